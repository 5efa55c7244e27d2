"""A study in small: whether its file is sound and every method fits its model, before anything is rented."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from structune.doubt import DataWarning
from structune.errors import UserError
from structune.finetune.distributed.launch import refuse_several_processes
from structune.finetune.importing import without_remarks
from structune.finetune.miniature import WIDEST, Miniatures
from structune.finetune.recipe.recipe import Recipe
from structune.methods.method import Method
from structune.study.results.files import Wanted
from structune.study.search.points import Point
from structune.study.study_file import Study, TaskSection
from structune.study.workers.job_pool import Job
from structune.study.workers.own_process import stop_if_interrupted
from structune.study.workers.processes import carry_out

NO_RESULT = "nothing here is a result: random models, two steps"


def smoke(
    plan: Study,
    *,
    only: str = "",
    task: str | None = None,
    widest: int = WIDEST,
    console: Console | None = None,
) -> None:
    """Train two steps of small random models, score them, and throw all away: the study's runs with one seed and rate.

    Of each group of methods the first and the last are tried, on the first task of each kind and model; on its other
    tasks the first method is. Data that are there are read as a whole and some rows are used; in place of others, and
    of the hub's, some are made up.

    Args:
        plan: the study.
        only: an expression that a method's label must contain a match of; first and last are those of what matches.
        task: the only task; all of them by default.
        widest: how wide layers of models are at most.
        console: where a line for each run is shown.

    Raises:
        UserError: some did not work; the others were tried. Or there is nothing to try.
        KeyboardInterrupt: a signal such as Ctrl-C asked for the end.
    """
    console = console or Console(quiet=True)
    refuse_several_processes()
    methods, tasks = plan.matching(only, task)
    console.print(f"[bold]smoke test: {NO_RESULT}[/]", highlight=False)
    with without_remarks():
        import torch  # noqa: F401  # what follows takes a second, and not the time of the first run
    wrong: dict[str, str] = {}
    told = done = 0
    with tempfile.TemporaryDirectory(prefix="structune-smoke-") as folder:
        miniatures = Miniatures(Path(folder), widest)
        for wanted in _tried(plan, methods, tasks):
            begun = time.monotonic()
            try:
                said = _carried_out(plan, wanted, miniatures)
                done += 1
            except UserError as error:
                wrong[wanted.name] = str(error)
                said = f"[red]failed:[/] {escape(str(error))}"
            for note in miniatures.notes[told:]:
                console.print(f"[dim]{escape(note)}[/]", highlight=False, soft_wrap=True)
            told = len(miniatures.notes)
            what = escape(f"{wanted.task}  {wanted.label}")
            console.print(f"{what}  {said}  {time.monotonic() - begun:.1f} s", highlight=False, soft_wrap=True)
    console.print(f"{done} of {done + len(wrong)} runs work; {NO_RESULT}", highlight=False, soft_wrap=True)
    if wrong:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in wrong.items())
        raise UserError(f"{len(wrong)} of {done + len(wrong)} runs failed in small: {reasons}")


def _tried(plan: Study, methods: Mapping[str, Method], tasks: Sequence[str]) -> Iterator[Wanted]:
    """What is run: every group of methods wherever a kind of task or a model is new, and else one method."""
    searches = plan.searches()
    groups = [[label for label, _ in group.each() if label in methods] for group in plan.methods]
    labels = [group[place] for group in groups if group for place in sorted({0, len(group) - 1})]
    seen = set()
    for task in tasks:
        section = plan.tasks[task]
        kind = (_recipe(plan, section, task).task.name, (section.model or plan.model).name)
        for label in labels[:1] if kind in seen else labels:
            rate = searches[label, task].tried[0]
            yield Wanted(task, label, methods[label], Point(rate), plan.seeds[0])
        seen.add(kind)


def _recipe(plan: Study, section: TaskSection, where: str) -> Recipe:
    whole = section.recipe(where)
    return whole.model_copy(update={"name": plan.name, "model": section.model or plan.model, "train": section.train})


def _carried_out(plan: Study, wanted: Wanted, miniatures: Miniatures) -> str:
    """Train one run in small and score it: what is said of it. Raises `UserError` where it does not work."""
    method = wanted.method
    recipe = _recipe(plan, plan.tasks[wanted.task], wanted.task)
    train = recipe.train.model_copy(update={method.searched_rate: wanted.point.rate})
    recipe = recipe.model_copy(update={"method": method, "train": train, "seed": wanted.seed})
    small, test = miniatures.of(recipe, wanted.name, plan.tasks[wanted.task].validation_examples)
    job = Job(small.resolved(), test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of so few rows everything is doubtful
        outcome = carry_out(job)
    stop_if_interrupted(outcome, "nothing of a smoke test is kept")
    if outcome.kind == "diverged":
        return f"[yellow]numbers ran away[/] at the rate {wanted.point.rate:g}, as they may in a random model"
    if outcome.kind != "finished":
        raise UserError(outcome.reason)
    numbers = job.run.metrics()["trainable_adapter"]
    job.run.remove()
    return f"works  {numbers:,} numbers beside the head in the small model"
