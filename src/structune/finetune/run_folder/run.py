"""The folder of one run: what lies where, and what state it is in."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from structune import __version__
from structune.errors import UserError
from structune.files import write_json, write_text
from structune.finetune.recipe.recipe import Recipe, ResolvedRecipe
from structune.finetune.run_folder.checkpoint import (
    checkpoint_fault,
    checkpoint_files,
    checkpoint_folders,
    remove_checkpoint,
)
from structune.finetune.run_folder.fingerprint import Fingerprint
from structune.finetune.run_folder.lock import LOCK_FILE, locked, refuse_locked
from structune.finetune.run_folder.place import check_own_folder
from structune.finetune.stopping.resume import changes, resume_line
from structune.methods.method import PeftMethod
from structune.processor import processor
from structune.tasks.task import Targets

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

_FORMAT, _VERSION = "structune run", 1
_RATES = ("train.learning_rate", "train.head_learning_rate", "train.max_grad_norm", "train.warmup", "train.scheduler")


@dataclass(frozen=True)
class Run:
    """Paths in a run folder.

    `run.json` is written first and says that the folder is a run's; `metrics.json` is written last: a folder with
    both is a finished run.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    @property
    def marker_file(self) -> Path:
        return self.folder / "run.json"

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
    def data_file(self) -> Path:
        return self.folder / "data.json"

    @property
    def prepared_file(self) -> Path:
        """What the task found out before training."""
        return self.folder / "prepared.json"

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

    @property
    def where(self) -> str:
        """How messages begin."""
        return f"output = {str(self.folder)!r}"

    @classmethod
    def finished(cls, folder: str | Path) -> Self:
        """A finished run, to read from. Raises `UserError` when `folder` is none."""
        run = cls(Path(folder))
        match run.state():
            case "finished":
                return run
            case "unfinished":
                raise UserError(f"run {str(folder)!r}: not finished; {run.resume_line()}")
            case _:
                raise UserError(f"run {str(folder)!r}: not a run folder; name one that train wrote")

    def state(self) -> Literal["new", "unfinished", "finished", "foreign"]:
        """`new`: nothing there. `foreign`: something that is no run."""
        if not self.folder.exists() or (self.folder.is_dir() and not any(self._entries())):
            return "new"
        if not self.is_run():
            return "foreign"
        return "finished" if self.metrics_file.is_file() else "unfinished"

    def is_run(self) -> bool:
        """Whether training wrote this folder: its `run.json` says so.

        Runs from before there was one are known by a recipe with nothing left open, beside versions or metrics.
        """
        if self.marker_file.exists():
            return _json(self.marker_file).get("format") == _FORMAT
        beside = {"structune", "torch"} <= _json(self.versions_file).keys()
        if not beside and not {"eval_loss", "trainable_adapter"} <= _json(self.metrics_file).keys():
            return False
        try:
            self.recipe()
        except UserError:
            return False
        return True

    def check_free(self, resume: bool, overwrite: bool) -> None:
        """Raises `UserError` unless training may write here."""
        state = self.state()
        if state == "foreign":
            raise UserError(f"{self.where}: holds other files than a run's; choose another output")
        if resume and state == "new":
            raise UserError(f"{self.where}: there is no run to resume; train without --resume")
        if resume and state == "finished":
            raise UserError(f"{self.where}: the run is finished; there is nothing to resume")
        if not resume and not overwrite and state == "finished":
            raise UserError(f"{self.where}: holds a finished run; use --overwrite, or choose another output")
        if not resume and not overwrite and state == "unfinished":
            raise UserError(f"{self.where}: holds an unfinished run; use --resume to go on with it, or --overwrite")
        self._check_unclaimed()
        if overwrite:
            list(self._own())  # or it is said why not

    def check_place(self, recipe: Recipe, recipe_file: Path | None) -> None:
        """Raises `UserError` when the folder is a link or a file, or what the recipe names lies in it.

        Args:
            recipe: of the run to be.
            recipe_file: where it was read; a run's own `recipe.yaml` may be trained again.
        """
        kept = {f"data.{key}": Path(file) for key, file in recipe.data.files().items()}
        for key, file in kept.items():
            if file.is_dir() and file.resolve() in self.folder.resolve().parents:
                raise UserError(
                    f"{self.where}: lies in {key} = {str(file)!r}, whose files are the examples; name one elsewhere"
                )
        own = recipe_file is not None and recipe_file.resolve() == self.recipe_file.resolve() and self.is_run()
        if recipe_file is not None and recipe_file.is_file() and not own:
            kept["the recipe"] = recipe_file
        if Path(recipe.model.name).is_dir():
            kept["model.name"] = Path(recipe.model.name)
        check_own_folder(self.folder, self.where, kept)
        refuse_inside_run(self.folder, self.where)

    def check_same(self, recipe: ResolvedRecipe) -> None:
        """Raises `UserError` naming what differs between `recipe` and the one this run began with."""
        changed = changes(_flat(self.recipe().model_dump()), _flat(recipe.model_dump()))
        changed.pop("output", None)
        if changed:
            rates = (
                " Rates cannot change on the way: the optimizer and its schedule come from the checkpoint."
                if any(key in _RATES for key in changed)
                else ""
            )
            raise UserError(
                f"--resume: the recipe differs from the run's ({'; '.join(changed.values())}).{rates} "
                f"Resume with {self.recipe_file}, or start anew with --overwrite or another output."
            )

    def check_data(self, now: Fingerprint) -> str | None:
        """Raises `UserError` naming what differs between the data and those this run began with.

        Returns:
            what there is to say if it cannot be checked.
        """
        before = Fingerprint.load(self.data_file)
        if before is None:
            return UNCHECKED
        if changes := before.changes(now, ordered=True):
            raise UserError(
                f"--resume: the data differ from the run's ({'; '.join(changes)}). "
                f"Bring back the data it began with, or start anew with --overwrite."
            )
        return None

    def refuse_locked(self) -> None:
        """Raises `UserError` when another process trains in the folder; makes nothing."""
        refuse_locked(self.folder, self.where)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Make the folder and be the only process that trains in it; a folder that stays empty goes again.

        Raises:
            UserError: another process trains in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder, self.where):
            try:
                yield
            finally:
                if self.state() == "new":
                    (self.folder / LOCK_FILE).unlink(missing_ok=True)
                    self.folder.rmdir()

    def begin(
        self,
        recipe: ResolvedRecipe,
        resume: bool,
        data: Fingerprint | None = None,
        prepared: Mapping[str, Any] | None = None,
        noted: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the folder with its recipe; without `resume`, whatever run was there goes, and nothing else does.

        What is `noted` is kept for who asked for the run.
        """
        if self.state() == "foreign":
            raise UserError(f"{self.where}: holds other files than a run's; choose another output")
        replaced = (self.marker_file, self.recipe_file)  # in one go, so that the folder is a run's at every moment
        old = [path for path in self._own() if path not in replaced]
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = {"format": _FORMAT, "version": _VERSION, "process": _process()}
        write_json(self.marker_file, marker if noted is None else marker | {"noted": dict(noted)})
        checkpoints = checkpoint_folders(self.checkpoints)
        for path in old:
            if path.parent not in checkpoints and (not resume or self._half_written(path)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for folder in [] if resume else checkpoints:
            remove_checkpoint(folder)
        for folder in [] if resume else (self.adapter, self.checkpoints):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        write_text(self.recipe_file, recipe.to_yaml())
        write_json(self.versions_file, versions())
        if data is not None:
            write_json(self.data_file, data.to_json())
        if prepared:
            write_json(self.prepared_file, dict(prepared))

    def remove_checkpoints(self) -> None:
        """Delete the checkpoints, which a finished run has no use for."""
        for folder in checkpoint_folders(self.checkpoints):
            remove_checkpoint(folder)
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()

    def remove(self) -> None:
        """Delete the run: what training and evaluations wrote, and the folder if nothing else is in it.

        Raises:
            UserError: another process trains in it, or something else has the name of a file of a run's.
        """
        if not self.is_run():
            return
        with self.lock():
            own = list(self._own())
            self.remove_checkpoints()
            marker = [path for path in own if path == self.marker_file]
            for path in [*(path for path in own if path not in marker and path.exists()), *marker]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if self.adapter.is_dir() and not any(self.adapter.iterdir()):
                self.adapter.rmdir()

    def noted(self) -> Mapping[str, Any] | None:
        """What `begin` was given to keep; None: nothing."""
        return _json(self.marker_file).get("noted")

    def note_divergence(self, message: str) -> None:
        """Keep why training stopped, for `divergence` to tell who resumes it."""
        write_json(self.marker_file, _json(self.marker_file) | {"diverged": message})

    def divergence(self) -> str | None:
        """Why training stopped, if its numbers ran away."""
        return _json(self.marker_file).get("diverged")

    def _entries(self) -> Iterator[Path]:
        """What lies in the folder, without the lock and what a killed process had begun to write."""
        return (path for path in self.folder.iterdir() if path.name != LOCK_FILE and not self._half_written(path))

    def _check_unclaimed(self) -> None:
        """Raises `UserError` when a file that newer runs write is there, and is not this older run's."""
        if self.state() != "new" and not self.marker_file.exists() and self.data_file.exists():
            raise UserError(f"{self.where}: {self.data_file} is not what the run there wrote; move it away")

    def _own(self) -> Iterator[Path]:
        """What a run writes into its folder, of what is there: the only things that are ever deleted.

        `metrics.json` comes first: without it the run counts as unfinished.

        Raises:
            UserError: something else has the name of one of them.
        """
        if not self.folder.is_dir():
            return
        for name, kind in {**_OWN, **dict.fromkeys(self._figures(), "file")}.items():
            path = self.folder / name
            if path.is_symlink() or (path.exists() and not (path.is_dir() if kind == "folder" else path.is_file())):
                raise UserError(
                    f"{self.where}: {path} is not what a run writes; move it away, or choose another output"
                )
            if path.is_file():
                yield path
        for name in ADAPTER_FILES:
            if (path := self.adapter / name).is_file():
                yield path
        for path in checkpoint_folders(self.checkpoints):
            yield from checkpoint_files(path)
        for folder in (self.folder, self.adapter, self.checkpoints):
            if folder.is_dir():
                yield from (path for path in folder.iterdir() if self._half_written(path))

    def _figures(self) -> tuple[str, ...]:
        """What training and evaluations of this run draw; nothing where its recipe cannot be read."""
        try:
            task = self.recipe().task
            return (*task.figures, *task.shown_figures)
        except UserError:
            return ()

    def _half_written(self, path: Path) -> bool:
        """Whether it is the temporary name of something of a run, as `files` makes them, left by a killed process."""
        name, _, rest = path.name.removeprefix(".").rpartition(".")
        if not path.name.startswith(".") or re.fullmatch(r"[a-z0-9_]{8}", rest) is None:
            return False
        return name in _OWN or name in ADAPTER_FILES or name in self._figures()

    def last_checkpoint(self) -> Path | None:
        """The latest checkpoint that is whole."""
        return self._last_checkpoint()[0]

    def check_checkpoints(self) -> list[str]:
        """What there is to say of checkpoints that are newer than the last whole one: which, and what it lacks.

        Raises:
            UserError: there are checkpoints, and none is whole.
        """
        last, faults = self._last_checkpoint()
        if last is None and checkpoint_folders(self.checkpoints):
            raise UserError(
                f"--resume: no checkpoint is whole ({'; '.join(faults)}). "
                f"Restore the file, or start anew with --overwrite."
            )
        return [f"{fault}: passed over" for fault in faults]

    def _last_checkpoint(self) -> tuple[Path | None, list[str]]:
        """The latest whole checkpoint, and what the newer ones lack."""
        faults: list[str] = []
        for folder in reversed(checkpoint_folders(self.checkpoints, begun=True)):
            recipe = self.recipe()
            of_peft, fp16 = isinstance(recipe.method, PeftMethod), recipe.train.precision == "fp16"
            fault = checkpoint_fault(folder, of_peft, fp16, recipe.task.has_config)
            if fault is None:
                return folder, faults
            faults.append(f"{folder}: {fault}")
        return None, faults

    def recipe(self) -> ResolvedRecipe:
        """The resolved recipe of the run."""
        return ResolvedRecipe.load(self.recipe_file)

    def metrics(self) -> dict[str, Any]:
        """What was measured at the end of training. Raises `UserError` when the file is damaged."""
        content = _json(self.metrics_file)
        if not content.keys() >= _MEASURED | {f"eval_{self.recipe().task.metrics[0].key}"}:
            raise self._damaged(self.metrics_file)
        return content

    def targets(self) -> Targets:
        """What the task learned from the data alone. Raises `UserError` when `metrics.json` is damaged."""
        metrics = self.metrics()
        before = {"classes": metrics["labels"]} if "labels" in metrics else None  # of runs from before there were tasks
        targets: Any = metrics.get("targets", before)
        if not self.recipe().task.are_targets(targets):
            raise self._damaged(self.metrics_file)
        return cast(Targets, targets)

    def prepared(self) -> Mapping[str, Any]:
        """What the task found out with the frozen model before training; nothing for most tasks.

        Of a finished run: what training made of it.
        """
        finished = self.state() == "finished"
        return (_json(self.adapter / self.prepared_file.name) if finished else {}) or _json(self.prepared_file)

    def history(self) -> list[dict[str, Any]]:
        """The training log: one dictionary a line of `log.jsonl`. Raises `UserError` when the file is damaged."""
        try:
            entries = [json.loads(line) for line in self.log_file.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError):
            raise self._damaged(self.log_file) from None
        if not all(isinstance(entry, dict) for entry in entries):
            raise self._damaged(self.log_file)
        return entries

    def machine(self) -> dict[str, Any]:
        """The versions and the machine of the run. Raises `UserError` when the file is damaged."""
        content = _json(self.versions_file)
        if not content:
            raise self._damaged(self.versions_file)
        return content

    def _damaged(self, file: Path) -> UserError:
        return UserError(
            f"run {str(self.folder)!r}: {file.name} is damaged; restore it, or train again with --overwrite"
        )

    def resume_line(self) -> str:
        """What to type to go on."""
        return resume_line(["train", str(self.recipe_file)])


UNCHECKED = "the run is older than the record of its data (data.json): whether they are the same cannot be checked"

_OWN = {
    "metrics.json": "file",
    "evaluation.json": "file",
    "inspect.png": "file",
    "curve.png": "file",
    "log.jsonl": "file",
    "versions.json": "file",
    "data.json": "file",
    "prepared.json": "file",
    "recipe.yaml": "file",
    "run.json": "file",
    "adapter": "folder",
    "checkpoints": "folder",
}
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json", "README.md", "inspect.png", "prepared.json")
_MEASURED = {
    "steps", "train_examples", "eval_examples", "eval_loss", "trainable_adapter", "trainable_head",
    "adapter_bytes", "seconds_per_step", "peak_memory_bytes",
}  # fmt: skip
"""What the metrics of every run have, older ones included."""


def refuse_inside_run(folder: Path, where: str) -> None:
    """Raises `UserError` when `folder` lies in the checkpoints or the adapter of a run, which training replaces."""
    whole = folder.resolve()
    for path in (whole, *whole.parents):
        run = Run(path.parent)
        if path in (run.adapter, run.checkpoints) and run.is_run():
            raise UserError(f"{where}: lies in {path}, which a run replaces; name a folder outside of {path.parent}")


def _process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def versions() -> dict[str, str]:
    """Versions of what decides a result, and the machine."""
    import torch

    packages = ("torch", "transformers", "peft", "accelerate", "numpy")
    return {
        "python": platform.python_version(),
        "structune": __version__,
        **{name: _version(name) for name in packages},
        "platform": platform.platform(),
        "cpu": processor(),
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
