"""Hashes of what runs read: of files, each read once, and of folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from structune.data.embedded import cache_folder
from structune.files import write_text

_KEPT = 2**26
"""Of files of this size and above the hash is kept between commands."""

_PIECE = 2**22


def hash_of(path: Path) -> str:
    """Of a file; of a folder the names and contents of all files in it. 16 digits."""
    return _hash_of_folder(path, path.stat().st_mtime_ns) if path.is_dir() else hash_of_file(path)[:16]


@cache
def _hash_of_folder(path: Path, time: int) -> str:
    """Looked through once for all runs that read it."""
    files = sorted(found for found in path.rglob("*") if found.is_file())
    return hash_of_pieces(f"{file.relative_to(path).as_posix()}\0{hash_of(file)}\0".encode() for file in files)[:16]


def hash_of_file(file: Path) -> str:
    """SHA-256 of its bytes."""
    return _hash_of_state(_State.of(file))


class _State(NamedTuple):
    """What a file's hash is remembered by. `changed` is the file system's own time, which no copying tool sets back."""

    file: Path
    number: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, file: Path) -> _State:
        about = file.stat()
        return cls(file, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


@cache
def _hash_of_state(state: _State) -> str:
    if state.size < _KEPT:
        return hash_of_pieces(_pieces(state.file))
    kept = cache_folder() / "weights" / hash_of_pieces([repr(state).encode()])
    with suppress(OSError, UnicodeDecodeError):
        digest = kept.read_text(encoding="ascii").strip()
        if len(digest) == 64:
            return digest
    digest = hash_of_pieces(_pieces(state.file))
    with suppress(OSError):
        write_text(kept, f"{digest}\n")
    return digest


def hash_of_pieces(pieces: Iterable[bytes]) -> str:
    """SHA-256 of one piece after the other."""
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece)
    return whole.hexdigest()


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        while piece := content.read(_PIECE):
            yield piece
