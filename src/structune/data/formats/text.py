"""From bytes to characters, or a word of what the bytes are instead."""

from __future__ import annotations

import codecs
from pathlib import Path

from structune.doubt import say
from structune.errors import UserError

_BYTE_ORDER_MARKS = [  # those of UTF-32 begin like those of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]


def decode(raw: bytes, where: str, encoding: str | None = None) -> str:
    """The text of a file: in the encoding given or that its first bytes mark, else in UTF-8.

    UTF-16 without a mark is known by its zero bytes.

    Raises:
        UserError: it is empty or binary, in another encoding, or marked as one that contradicts the one given.

    Warns:
        DataWarning: the encoding given is not UTF-8, and the file is.
    """
    text = _decoded(raw, where, encoding)
    if not text.strip():
        raise UserError(f"{where}: the file is empty")
    return text


def lines_of(path: str | Path) -> dict[int, str] | None:
    """What stands on the lines of a `.txt` file, by their numbers, without those that are empty; None of other files.

    Raises:
        UserError: see `decode`.
    """
    path = Path(path)
    if path.suffix.lower() != ".txt" or not path.is_file():
        return None
    lines = enumerate(decode(path.read_bytes(), str(path)).splitlines(), start=1)
    return {number: line.strip() for number, line in lines if line.strip()}


def marked_encoding(raw: bytes) -> str | None:
    """The encoding that the first bytes of a file mark."""
    return next((name for mark, name in _BYTE_ORDER_MARKS if raw.startswith(mark)), None)


def _decoded(raw: bytes, where: str, given: str | None) -> str:
    marked = marked_encoding(raw)
    if given is not None:
        given = codecs.lookup(given).name
        if marked and not given.startswith(marked.removesuffix("-sig")):
            raise UserError(
                f"{where}: data.encoding is {given}, but the file begins with the mark of "
                f"{marked.removesuffix('-sig').upper()}. Remove data.encoding."
            )
    encoding = marked or given or _unmarked_utf16(raw) or "utf-8"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding.startswith(("utf-16", "utf-32")):
            raise UserError(f"{where}: {encoding.upper()}, and damaged ({error.reason}); get it anew") from None
        if _is_binary(raw):
            raise UserError(f"{where}: this is a binary file, not a text; save the data as a CSV file") from None
        line = raw.count(b"\n", 0, error.start) + 1
        name = "UTF-8" if encoding.startswith("utf-8") else encoding
        raise UserError(
            f"{where}, line {line}: not {name} (byte 0x{raw[error.start]:02x}). Save it as UTF-8: 'CSV UTF-8' in a "
            f"spreadsheet, or `iconv -f WINDOWS-1252 -t UTF-8` if that is its encoding. Or set data.encoding to what "
            f"it is, such as windows-1252."
        ) from None
    if "\0" in text:
        if _is_binary(raw):
            raise UserError(f"{where}: this is a binary file, not a text; save the data as a CSV file")
        raise UserError(f"{where}: holds zero bytes, so it is no text in UTF-8. Save it as UTF-8.")
    if given is not None and not encoding.startswith("utf") and not raw.isascii() and _is_utf8(raw):
        say([f"{where}: data.encoding is {given}, but the file can be read as UTF-8, as few others can: remove it?"])
    return text


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


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
