"""The trainer's checkpoints in a folder: which are there, which are whole, and how one is removed."""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FOLDER = re.compile(r"checkpoint-(0|[1-9]\d*)", re.ASCII)
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors", re.ASCII)

_STATE = "trainer_state.json"
_PROGRESS = ("optimizer.pt", "scheduler.pt")
_RANDOM = re.compile(r"rng_state(_(0|[1-9]\d*))?\.pth", re.ASCII)  # with a number: of one of several processes
_SCALER = "scaler.pt"
_ADAPTER, _MODEL, _INDEX = "adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json"
_OF_PEFT = ("README.md", _ADAPTER, "adapter_config.json")
_OF_MODEL = (_MODEL, _INDEX, "generation_config.json", "config.json")
_OF_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "spm.model", "sentencepiece.bpe.model", "bpe.codes",
    "tokenizer.model",
)  # fmt: skip


def checkpoint_folders(folder: Path, begun: bool = False) -> list[Path]:
    """The checkpoints of a trainer by their steps, whole or not; a folder with such a name alone is none.

    The trainer's state is what makes one; `begun` adds folders without it, which may be anybody's.
    """
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _FOLDER.fullmatch(path.name)]
    found = [path for path in found if path.is_dir() and not path.is_symlink() and (begun or _is_one(path))]
    return sorted(found, key=checkpoint_step)


def checkpoint_step(folder: Path) -> int:
    """After which step a checkpoint was saved."""
    return int(folder.name.rpartition("-")[2])


def checkpoint_files(folder: Path) -> Iterator[Path]:
    """What the trainer wrote into a checkpoint, of what is there. Its state comes last: it makes it a checkpoint."""
    of_model = any((folder / name).is_file() for name in ("config.json", _MODEL))  # is written first
    of_peft = not of_model or any((folder / name).is_file() for name in (_ADAPTER, "adapter_config.json"))
    shards = [] if of_peft else sorted(path.name for path in folder.iterdir() if _SHARD.fullmatch(path.name))
    weights = _OF_PEFT if of_peft else (*shards, *_OF_MODEL)
    for name in (*_PROGRESS, *_random_states(folder), _SCALER, "training_args.bin", *_OF_TOKENIZER, *weights, _STATE):
        path = folder / name
        if path.is_file() and not path.is_symlink():
            yield path


def remove_checkpoint(folder: Path) -> None:
    """Delete what the trainer wrote there, and the folder if nothing else is in it."""
    for path in list(checkpoint_files(folder)):
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def checkpoint_fault(folder: Path, of_peft: bool, fp16: bool, has_config: bool = True) -> str | None:
    """What keeps training from going on from a checkpoint as if it had never stopped; None if it is whole.

    Args:
        folder: the checkpoint.
        of_peft: whether it holds an adapter of PEFT rather than the model.
        fp16: whether the scale of the loss belongs to it.
        has_config: whether the model keeps a configuration beside its weights.
    """
    index = folder / _INDEX
    weights = [_ADAPTER] if of_peft else [_MODEL]
    if not of_peft and index.is_file():
        shards = _object(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            return f"{_INDEX} is damaged"
        weights = sorted({str(name) for name in shards.values()})
    configuration = ["adapter_config.json"] if of_peft else ["config.json"] if has_config else []
    random = _random_states(folder) or ["rng_state.pth"]
    for name in (_STATE, *weights, *configuration, *_PROGRESS, *random, *([_SCALER] if fp16 else [])):
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if not _READABLE[path.suffix](path):
            return f"{name} is damaged"
    state = _object(folder / _STATE)
    if state.get("global_step") != checkpoint_step(folder) or not isinstance(state.get("log_history"), list):
        return f"{_STATE} is of another step, or not whole"
    return None


def checkpoint_processes(folder: Path) -> int:
    """How many processes saved a checkpoint."""
    return max(len(_random_states(folder)), 1)


def _random_states(folder: Path) -> list[str]:
    """The files with the state of random numbers, one for each process."""
    return sorted(path.name for path in folder.iterdir() if _RANDOM.fullmatch(path.name))


def _is_one(folder: Path) -> bool:
    """Whether the trainer's state is there, and of no other step: somebody's copy under another number is theirs."""
    state = folder / _STATE
    return state.is_file() and _object(state).get("global_step", checkpoint_step(folder)) == checkpoint_step(folder)


def _opens_as_tensors(path: Path) -> bool:
    """Whether the header of a safetensors file can be read and the file is as long as that says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return bool(file.keys())
    except (OSError, ValueError, SafetensorError):
        return False


def _opens_as_archive(path: Path) -> bool:
    """Whether a file of `torch.save`, which is a zip archive, has all its parts, and each its checksum."""
    try:
        with zipfile.ZipFile(path) as file:
            return bool(file.namelist()) and file.testzip() is None
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error):
        return False


_READABLE = {
    ".json": lambda path: bool(_object(path)),
    ".safetensors": _opens_as_tensors,
    ".pt": _opens_as_archive,
    ".pth": _opens_as_archive,
}


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
