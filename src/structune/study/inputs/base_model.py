"""Which pretrained model a run stood on, so that two of one name are told apart on any machine."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from structune.study.inputs.hashes import hash_of_file, hash_of_pieces
from structune.tasks.parts.model_section import ModelSection

_LOADED = (".json", ".txt", ".model", ".jinja", ".py")
"""Beside the weights: configuration, tokenizer, code."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
"""The first of these that a folder has is what is loaded from it."""


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
    files = sorted(loaded_files(folder))
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(hash_of_file, files))
    names = (file.relative_to(folder).as_posix() for file in files)
    return hash_of_pieces(f"{name}\0{digest}\0".encode() for name, digest in zip(names, digests, strict=True))[:16]


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
