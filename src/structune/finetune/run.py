"""The folder of one run: what lies where, and what state it is in."""

from __future__ import annotations

import json
import platform
import shlex
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from structune.finetune.errors import UserError
from structune.finetune.files import write_json, write_text
from structune.finetune.recipe import Recipe

__all__ = ["Run", "versions"]


@dataclass(frozen=True)
class Run:
    """Paths in a run folder.

    ``recipe.yaml`` is written first and ``metrics.json`` last: a folder with both is a finished run.
    """

    folder: Path

    @property
    def recipe_file(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def versions_file(self) -> Path:
        return self.folder / "versions.json"

    @property
    def log_file(self) -> Path:
        return self.folder / "log.jsonl"

    @property
    def curve_file(self) -> Path:
        return self.folder / "curve.png"

    @property
    def evaluation_file(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @classmethod
    def finished(cls, folder: str | Path) -> Run:
        """A finished run, to read from. Raises `UserError` when ``folder`` is none."""
        run = cls(Path(folder))
        match run.state():
            case "finished":
                return run
            case "unfinished":
                raise UserError(f"run {str(folder)!r}: not finished; {run.resume_line()}")
            case _:
                raise UserError(
                    f"run {str(folder)!r}: not a run folder (it has no recipe.yaml); name one that train wrote"
                )

    def state(self) -> Literal["new", "unfinished", "finished", "foreign"]:
        """``new``: nothing there. ``foreign``: something that is no run."""
        if not self.folder.exists() or (self.folder.is_dir() and not any(self.folder.iterdir())):
            return "new"
        if not self.recipe_file.is_file():
            return "foreign"
        return "finished" if self.metrics_file.is_file() else "unfinished"

    def check_free(self, resume: bool, overwrite: bool) -> None:
        """Raises `UserError` unless training may write here."""
        where = f"output = {str(self.folder)!r}"
        state = self.state()
        if state == "foreign":
            raise UserError(f"{where}: holds other files than a run's; choose another output")
        if resume and state == "new":
            raise UserError(f"{where}: there is no run to resume; train without --resume")
        if resume and state == "finished":
            raise UserError(f"{where}: the run is finished; there is nothing to resume")
        if not resume and not overwrite and state == "finished":
            raise UserError(f"{where}: holds a finished run; use --overwrite, or choose another output")
        if not resume and not overwrite and state == "unfinished":
            raise UserError(f"{where}: holds an unfinished run; use --resume to go on with it, or --overwrite")

    def check_same(self, recipe: Recipe) -> None:
        """Raises `UserError` naming what differs between ``recipe`` and the one this run began with."""
        before, now = _flat(self.recipe().model_dump()), _flat(recipe.model_dump())
        changed = [key for key in sorted(before | now) if before.get(key) != now.get(key) and key != "output"]
        if changed:
            shown = "; ".join(f"{key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in changed)
            raise UserError(
                f"--resume: the recipe differs from the run's ({shown}). "
                f"Resume with {self.recipe_file}, or start anew with --overwrite."
            )

    def begin(self, recipe: Recipe, resume: bool) -> None:
        """Make the folder with its recipe; without ``resume``, whatever run was there goes."""
        if not resume and self.state() in ("unfinished", "finished"):
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.recipe_file, recipe.to_yaml())
        write_json(self.versions_file, versions())

    def last_checkpoint(self) -> Path | None:
        """The latest checkpoint that was written whole: the trainer's state is its last file."""
        whole = [path.parent for path in self.checkpoints.glob("checkpoint-*/trainer_state.json")]
        return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def recipe(self) -> Recipe:
        """The resolved recipe of the run."""
        return Recipe.load(self.recipe_file)

    def metrics(self) -> dict[str, Any]:
        """What was measured at the end of training."""
        content: dict[str, Any] = json.loads(self.metrics_file.read_text(encoding="utf-8"))
        return content

    def history(self) -> list[dict[str, Any]]:
        """The training log: one dictionary a line of ``log.jsonl``."""
        return [json.loads(line) for line in self.log_file.read_text(encoding="utf-8").splitlines()]

    def resume_line(self) -> str:
        """What to type to go on."""
        return f"continue with: structune train {shlex.quote(str(self.recipe_file))} --resume"


def versions() -> dict[str, str]:
    """Versions of what decides a result, and the machine."""
    import torch

    packages = ("structune", "torch", "transformers", "peft", "accelerate", "numpy")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "platform": platform.platform(),
        "cpu": platform.processor() or platform.machine(),
        "cpu_threads": str(torch.get_num_threads()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
