"""The bytes of a file, unpacked if it is compressed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

from structune.errors import UserError
from structune.section import closest


@dataclass(frozen=True)
class Content:
    """Bytes of a file, and the name whose ending tells their kind."""

    name: PurePath
    raw: bytes


def read_content(path: Path, where: str) -> Content:
    """The bytes of a file; of one that is compressed (gzip, bzip2, xz, zstd, a zip archive of one file), those inside.

    Raises:
        UserError: there is no such file, or it is damaged, or an archive of several files.
    """
    content = Content(path, _bytes(path, where))
    while (inner := _unpacked(content, where)) is not None:
        content = inner
    return content


def open_unpacked(path: Path) -> IO[bytes]:
    """The file, read as it is asked for; unpacked, if it is compressed with gzip, bzip2 or xz."""
    with path.open("rb") as file:
        begin = file.read(8)
    opener = next((each for start, each in _OPENERS if begin.startswith(start)), None)
    return path.open("rb") if opener is None else opener(path)


def is_zip(raw: bytes) -> bool:
    """Whether it is a zip archive, as workbooks are too."""
    return raw.startswith(b"PK\x03\x04")


def without_packing(name: PurePath) -> PurePath:
    """The name without an ending such as `.gz`."""
    return name.with_suffix("") if name.suffix.lower() in _ENDINGS else name


def _bytes(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        near = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UserError(
            f"{where}: no such file{closest(path.name, near)}; paths are taken from the current folder, {Path.cwd()}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{where}: cannot be read ({reason})") from None


def _unpacked(content: Content, where: str) -> Content | None:
    """What is inside; None where nothing is packed."""
    if is_zip(content.raw):
        return _from_zip(content.raw, where)
    for start, program, unpack in _PACKED:
        if content.raw.startswith(start):
            try:
                return Content(without_packing(content.name), unpack(content.raw))
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                reason = str(error).partition("\n")[0]
                raise UserError(f"{where}: compressed with {program}, and damaged ({reason}); get it anew") from None
    return None


def _from_zip(raw: bytes, where: str) -> Content | None:
    """The one file of an archive; None for workbooks, which are archives too."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if any(name.startswith("xl/") for name in names) or "content.xml" in names:
            return None
        if len(names) == 1:
            return Content(PurePath(names[0]), archive.read(names[0]))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{where}: this is a zip archive or a workbook, and damaged ({error}); get it anew") from None
    except RuntimeError:
        raise UserError(f"{where}: this is a zip archive that is locked with a password; unpack it") from None
    shown = ", ".join(map(repr, names[:5])) or "nothing"
    raise UserError(f"{where}: this is a zip archive of {shown}; unpack it, and name one file of it")


def _from_zstd(raw: bytes) -> bytes:
    import pyarrow

    with pyarrow.CompressedInputStream(pyarrow.BufferReader(raw), "zstd") as stream:
        return bytes(stream.read())


_PACKED: list[tuple[bytes, str, Callable[[bytes], bytes]]] = [
    (b"\x1f\x8b", "gzip", gzip.decompress),
    (b"BZh", "bzip2", bz2.decompress),
    (b"\xfd7zXZ\0", "xz", lzma.decompress),
    (b"\x28\xb5\x2f\xfd", "zstd", _from_zstd),
]
"""First bytes, the program that writes them, and what unpacks them."""

_OPENERS: list[tuple[bytes, Callable[[Path], Any]]] = [
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
]
"""First bytes, and what reads the file a little at a time."""

_ENDINGS = {".gz", ".bz2", ".xz", ".zst", ".zstd", ".zip"}
