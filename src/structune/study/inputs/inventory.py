"""What a run reads, so that a machine without the same disk gets the same bytes or is told what is missing."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from structune.errors import UserError
from structune.finetune.recipe.recipe import ResolvedRecipe
from structune.study.inputs.base_model import hash_of_weights, loaded_files
from structune.study.inputs.hashes import hash_of

MOST = 2**31
"""Bytes of one input that are sent to another machine."""


@dataclass(frozen=True)
class Input:
    """A file or a folder that a run reads.

    Attributes:
        path: where it is on the machine that asks for the run.
        digest: of its content.
        model: whether it is the folder of a pretrained model, of which only what is loaded counts.
    """

    path: str
    digest: str
    model: bool

    @classmethod
    def of(cls, path: str, model: bool) -> Input:
        return cls(path, (hash_of_weights if model else hash_of)(Path(path)), model)

    @property
    def key(self) -> str:
        """What it is sent under: two files of one content may have different names."""
        return f"{self.digest}-{Path(self.path).name}"

    def is_at(self, path: Path) -> bool:
        """Whether it is there, byte for byte."""
        if self.model:
            return path.is_dir() and hash_of_weights(path) == self.digest
        return path.exists() and hash_of(path) == self.digest

    def packed(self) -> bytes:
        """Its content as one piece. Raises `UserError` where it is too large to be sent."""
        path = Path(self.path)
        inside = loaded_files(path) if self.model else (path.rglob("*") if path.is_dir() else [path])
        files = sorted(file for file in inside if file.is_file())
        if (size := sum(file.stat().st_size for file in files)) > MOST:
            raise UserError(
                f"{self.path}: has {size / 2**30:.1f} GiB, and what is above {MOST / 2**30:.0f} is not sent; put a "
                f"copy at that place on every machine, or share the disk"
            )
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for file in files:
                archive.add(file, file.relative_to(path.parent).as_posix())
        return content.getvalue()

    def place(self, scratch: Path) -> Path:
        """Where it is unpacked."""
        return scratch / "inputs" / self.key / Path(self.path).name

    def unpack(self, content: bytes, scratch: Path) -> Path:
        """Lay it down, whole or not at all, also where another run on this machine does the same."""
        place = self.place(scratch)
        if place.exists():
            return place
        place.parent.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=place.parent.parent))
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                archive.extractall(temporary, filter="data")
            os.rename(temporary, place.parent)
        except OSError:
            if not place.exists():  # else another was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return place


def inputs(recipe: ResolvedRecipe, test: Path | None) -> list[Input]:
    """Every file and folder that a run reads."""
    paths: list[str] = []

    def seen(path: str) -> str:
        paths.append(path)
        return path

    recipe.data.with_files(seen)
    recipe.task.with_files(seen)
    if test is not None:
        paths.append(str(test.absolute()))
    found = [Input.of(path, model=False) for path in dict.fromkeys(paths) if Path(path).exists()]
    if Path(recipe.model.name).is_dir():
        found.append(Input.of(recipe.model.name, model=True))
    return found


def moved(recipe: ResolvedRecipe, output: Path, place: Callable[[str], str]) -> ResolvedRecipe:
    """The recipe with its run folder and what it reads elsewhere."""
    changes = {
        "output": str(output),
        "data": recipe.data.with_files(place),
        "task": recipe.task.with_files(place),
        "model": recipe.model.model_copy(update={"name": place(recipe.model.name)}),
    }
    return recipe.model_copy(update=changes)
