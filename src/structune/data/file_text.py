"""The text of a data file, or a word of what the file is instead, and how to make a text of it."""

from __future__ import annotations

import codecs
import gzip
import io
import zipfile
import zlib
from pathlib import Path

from structune.errors import UserError
from structune.section import closest

_BY_PANDAS: list[tuple[bytes, str, str]] = [
    (b"PAR1", "a Parquet file", "read_parquet"),
    (b"ARROW1", "an Arrow file", "read_feather"),
    (b"FEA1", "a Feather file", "read_feather"),
    (b"\x89HDF\r\n", "an HDF5 file", "read_hdf"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", "read_excel"),
    (b"\x80\x02", "a pickle", "read_pickle"),
    (b"\x80\x03", "a pickle", "read_pickle"),
    (b"\x80\x04", "a pickle", "read_pickle"),
    (b"\x80\x05", "a pickle", "read_pickle"),
]
"""First bytes, what they begin, and what in pandas reads it."""

_BY_HAND: list[tuple[bytes, str, str]] = [
    (b"BZh", "compressed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it with unzstd"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it, and name one file of it"),
    (b"Rar!", "a RAR archive", "unpack it, and name one file of it"),
    (b"SQLite format 3\0", "an SQLite database", "save the table as a CSV file"),
    (b"\x93NUMPY", "a NumPy array", "save texts and labels as a CSV file"),
    (b"%PDF", "a PDF", "save its table as a CSV file"),
    (b"{\\rtf", "an RTF document", "save its table as a CSV file"),
    (
        b"version https://git-lfs",
        "a pointer that Git LFS left in place of the file",
        "get the file with `git lfs pull`",
    ),
    (b"<!doctype", "a web page, not the file that it shows", "download the raw file"),
    (b"<html", "a web page, not the file that it shows", "download the raw file"),
    (b"<?xml", "an XML file", "save it as a CSV file"),
]
"""First bytes, in lower case where they are text, what they begin, and what to do."""

_BYTE_ORDER_MARKS = [  # those of UTF-32 begin like those of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]


def read_text(path: Path, field: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32; unpacked, if it is compressed with gzip.

    Raises:
        UserError: there is no such file, it is empty or cut off, of another kind, or in another encoding.
    """
    where = f"data.{field} = {str(path)!r}"
    raw = _bytes(path, where)
    if raw.startswith(b"\x1f\x8b"):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{where}: compressed with gzip, and damaged ({error}); get it anew") from None
    _refuse_other_kinds(raw, path, where)
    text = _decoded(raw, path, where)
    if not text.strip():
        raise UserError(f"{where}: the file is empty")
    return text


def by_pandas(path: Path, reader: str) -> str:
    """A line that makes a CSV file of `path`, or JSON Lines where texts are read from JSON."""
    lines = reader == "read_json"
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    target = str(plain.with_suffix(".jsonl" if lines else ".csv"))
    if target == str(path):  # the file under a wrong name is not to be written over
        target = str(path.with_name(f"{path.stem}-new{path.suffix}"))
    writer = f"to_json({target!r}, orient='records', lines=True)" if lines else f"to_csv({target!r}, index=False)"
    return f"with pandas: pandas.{reader}({str(path)!r}).{writer}"


def _bytes(path: Path, where: str) -> bytes:
    try:
        if path.is_dir():
            files = sorted(file.name for file in path.iterdir() if file.is_file())[:5]
            inside = f" (it has {', '.join(map(repr, files))})" if files else ""
            raise UserError(f"{where}: that is a folder; name one file in it{inside}")
        return path.read_bytes()
    except FileNotFoundError:
        near = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UserError(
            f"{where}: no such file{closest(path.name, near)}; paths are taken from the current folder, {Path.cwd()}"
        ) from None
    except UserError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{where}: cannot be read ({reason})") from None


def _refuse_other_kinds(raw: bytes, path: Path, where: str) -> None:
    if raw.startswith(b"PK\x03\x04"):
        raise UserError(f"{where}: {_zipped(raw, path)}")
    for start, what, reader in _BY_PANDAS:
        if raw.startswith(start):
            raise UserError(f"{where}: this is {what}; make a CSV file of it, {by_pandas(path, reader)}")
    beginning = raw[:64].lstrip().lower()
    for start, what, fix in _BY_HAND:
        if raw.startswith(start) or beginning.startswith(start):
            raise UserError(f"{where}: this is {what}; {fix}")
    if raw[257:262] == b"ustar":
        raise UserError(f"{where}: this is a tar archive; unpack it, and name one file of it")


def _zipped(raw: bytes, path: Path) -> str:
    try:
        names = zipfile.ZipFile(io.BytesIO(raw)).namelist()
    except zipfile.BadZipFile:
        return "this is a zip archive or a workbook, and damaged; get it anew"
    if any(name.startswith("xl/") for name in names):
        return f"this is an Excel workbook; make a CSV file of it, {by_pandas(path, 'read_excel')}"
    if "content.xml" in names:
        return f"this is an OpenDocument file; make a CSV file of it, {by_pandas(path, 'read_excel')}"
    return f"this is a zip archive of {', '.join(map(repr, names[:5]))}; unpack it, and name one file of it"


def _decoded(raw: bytes, path: Path, where: str) -> str:
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if raw.startswith(mark)), None)
    encoding = encoding or _unmarked_utf16(raw) or "utf-8"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if not encoding.startswith("utf-8"):
            raise UserError(f"{where}: {encoding.upper()}, and damaged ({error.reason}); get it anew") from None
        if _is_binary(raw):
            raise UserError(f"{where}: this is a binary file, not a text; save the data as a CSV file") from None
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where}, line {line}: not UTF-8 (byte 0x{raw[error.start]:02x}). Save it as UTF-8: 'CSV UTF-8' in a "
            f"spreadsheet, or `iconv -f WINDOWS-1252 -t UTF-8` if that is its encoding."
        ) from None
    if "\0" in text:
        if _is_binary(raw):
            raise UserError(f"{where}: this is a binary file, not a text; save the data as a CSV file")
        raise UserError(f"{where}: holds zero bytes, so it is no text in UTF-8. Save it as UTF-8.")
    return text


def _unmarked_utf16(raw: bytes) -> str | None:
    """The byte order of UTF-16 without a mark: of ASCII characters every other byte is zero."""
    begin = raw[:4096]
    even, odd = begin[::2].count(0), begin[1::2].count(0)
    if max(even, odd) < len(begin) / 8 or min(even, odd) > max(even, odd) / 20:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _is_binary(raw: bytes) -> bool:
    """Whether bytes occur that are in no text of any encoding but UTF-16: control characters."""
    begin = raw[:4096]
    control = sum(byte < 32 and byte not in b"\t\n\v\f\r\x1a\x1b" for byte in begin)
    return control > len(begin) / 50
