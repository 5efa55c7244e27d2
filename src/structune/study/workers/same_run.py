"""Whether the run that a folder holds is the one that is asked for, and nobody is in it."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from structune.errors import UserError
from structune.finetune.recipe.recipe import ResolvedRecipe
from structune.finetune.run_folder.fingerprint import Fingerprint
from structune.finetune.run_folder.run import Run
from structune.finetune.stopping.resume import changes
from structune.study.inputs.base_model import loaded_files
from structune.study.results.files import are_of, settings

_LEAVING = 60.0
"""Seconds in which the process of a killed study ends and leaves its folder."""


def noted_of(recipe: ResolvedRecipe) -> dict[str, Any] | None:
    """What a run folder notes of its run; None: a file is missing, of which training tells."""
    try:
        return settings(recipe)
    except OSError:
        return None


def refuse_other(run: Run, recipe: ResolvedRecipe) -> None:
    """Raises `UserError` where the run that is there had other settings, other data or another model's weights."""
    stored, now = run.noted(), noted_of(recipe)
    if stored is None or now is None:
        _refuse_other_than_recipe(run, recipe)
    elif not are_of(dict(stored), recipe):
        raise _other(run, "; ".join(changes(stored, now).values()))


def _refuse_other_than_recipe(run: Run, recipe: ResolvedRecipe) -> None:
    """As `refuse_other`, of a folder from before settings were noted: by its recipe, its rows and files' times."""
    from structune.finetune.task_data import load_data

    try:
        run.check_same(recipe)
    except UserError as error:
        raise _other(run, str(error).removeprefix("--resume: ")) from None
    finished = run.state() == "finished"
    if finished:  # an unfinished one is compared when it goes on
        before = Fingerprint.load(run.data_file)
        if before is None:
            raise _other(run, "it does not say of which data it is")
        if different := before.changes(Fingerprint.of(load_data(recipe.task, recipe.data)), ordered=False):
            raise _other(run, "; ".join(different))
    model, begun = Path(recipe.model.name), (run.metrics_file if finished else run.marker_file).stat().st_mtime
    if model.is_dir() and any(file.stat().st_ctime > begun for file in loaded_files(model)):
        raise _other(run, f"model.name = {str(model)!r}: its files have changed since")


def _other(run: Run, why: str) -> UserError:
    return UserError(
        f"{run.folder}: holds a run with other settings than are asked for now ({why}); delete that folder, or take "
        f"another --work (of compare: --out)"
    )


def wait_until_left(run: Run) -> None:
    """Wait for a process of a killed study, which saves and ends. Raises `UserError` where it does not."""
    for _ in range(int(2 * _LEAVING)):
        with suppress(UserError):
            run.refuse_locked()
            return
        time.sleep(0.5)
    run.refuse_locked()
