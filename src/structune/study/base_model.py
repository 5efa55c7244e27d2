"""Which pretrained model a run stood on, so that two of one name are told apart on any machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from structune.data.embedded import cache_folder
from structune.files import write_text
from structune.tasks.parts.model_section import ModelSection

_LOADED = (".json", ".txt", ".model", ".jinja", ".py")
"""Beside the weights: configuration, tokenizer, code."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
"""The first of these that a folder has is what is loaded from it."""

_KEPT = 2**26
"""Of files of this size and above the hash is kept between commands."""

_PIECE = 2**22


def base_model(model: ModelSection, *, exclude_defaults: bool = False) -> dict[str, Any]:
    """The hash of a local folder's weights and configuration, or the id on the hub; and how the weights are held."""
    written = model.model_dump(mode="json", exclude_none=True, exclude={"name"}, exclude_defaults=exclude_defaults)
    folder = Path(model.name)
    if folder.is_dir():
        return {"weights": hash_of_weights(folder)} | written
    return ({} if model.name == "embedded" else {"id": model.name}) | written


def hash_of_weights(folder: Path) -> str:
    """Of the names and all bytes of what is loaded: a sample of them would miss a layer that was fine-tuned."""
    folder = folder.resolve()
    states = [_State.of(file) for file in sorted(loaded_files(folder))]
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(_hash_of_file, states))
    names = (state.file.relative_to(folder).as_posix() for state in states)
    return _hash(f"{name}\0{digest}\0".encode() for name, digest in zip(names, digests, strict=True))[:16]


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


def loaded_files(folder: Path) -> Iterator[Path]:
    """Weights in one format for each folder, and what is beside them; nothing hidden, no card, no checkpoints."""
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    yield from (file for file in files if file.suffix in _LOADED and file.is_file())
    for suffix in _WEIGHTS:
        if weights := [file for file in files if file.suffix == suffix and file.is_file()]:
            yield from weights
            break
    for inner in files:
        if inner.is_dir() and not inner.name.startswith("checkpoint-"):
            yield from loaded_files(inner)


@cache
def _hash_of_file(state: _State) -> str:
    if state.size < _KEPT:
        return _hash(_pieces(state.file))
    kept = cache_folder() / "weights" / _hash([repr(state).encode()])
    with suppress(OSError, UnicodeDecodeError):
        digest = kept.read_text(encoding="ascii").strip()
        if len(digest) == 64:
            return digest
    digest = _hash(_pieces(state.file))
    with suppress(OSError):
        write_text(kept, f"{digest}\n")
    return digest


def _hash(pieces: Iterable[bytes]) -> str:
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece)
    return whole.hexdigest()


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        while piece := content.read(_PIECE):
            yield piece
