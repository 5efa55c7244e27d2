"""Tasks × methods × learning rates × seeds: a run each, one small file a run, to be stopped and continued at any time.

The learning rate is chosen on a validation part; the test part is scored for the chosen rate alone.
"""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from structune.data.section import DataSection
from structune.data.split import stratified_split
from structune.duration import duration
from structune.errors import UserError
from structune.files import write_json
from structune.finetune.launch import refuse_several_processes
from structune.finetune.lock import locked
from structune.finetune.recipe import Recipe, ResolvedRecipe
from structune.finetune.run import Run
from structune.finetune.task_data import load_data
from structune.methods.method import Method
from structune.study.own_process import Outcome, stop_if_interrupted
from structune.study.rates import RAN_AWAY, Search, search
from structune.study.results import Results, Wanted, settings
from structune.study.study_file import Study, TaskSection
from structune.study.workers import Job, Workers


def run_study(
    plan: Study,
    results: Results,
    work: Path,
    *,
    only: str = "",
    task: str | None = None,
    first_seed_only: bool = False,
    jobs: int = 1,
    hours: float | None = None,
    keep_runs: bool = False,
    dry_run: bool = False,
    console: Console | None = None,
) -> None:
    """Do every run that has no result yet.

    Runs of the first seed come before those of others, and methods in the order of the file. Each run is a process of
    its own and has a folder in `work`; one that was interrupted goes on from its last checkpoint. What is run follows
    from the results alone, so that any number of processes come to the same. A rate at which numbers ran away counts as
    the worst. A run that failed for another reason is told of and passed over, and no rate is chosen that was to be
    compared with it; all others are done before that is an error.

    Args:
        plan: the study.
        results: where results are and go.
        work: where data parts and run folders go, which need not be kept.
        only: an expression that a method's label must contain a match of.
        task: the only task; all of them by default.
        first_seed_only: whether to leave out the other seeds.
        jobs: how many processes run at a time.
        hours: after which runs are stopped as by a signal, without an error; None: never.
        keep_runs: whether to keep the folders of runs whose rate was not chosen.
        dry_run: whether to say what is left instead, and how long that takes.
        console: where progress is shown.

    Raises:
        UserError: the study, its data or a result does not work, or runs failed; then everything else is done.
        Interrupted, KeyboardInterrupt: a signal such as Ctrl-C asked for the end; the same command goes on.
    """
    console = console or Console(quiet=True)
    refuse_several_processes()
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: at least one process has to run")
    if hours is not None and not hours > 0:
        raise UserError(f"--hours {hours}: give a time above 0, or leave it out")
    if task is not None and task not in plan.tasks:
        raise UserError(f"--task {task!r}: the study has {', '.join(plan.tasks)}")
    until = math.inf if hours is None else time.monotonic() + 3600 * hours
    tasks = list(plan.tasks) if task is None else [task]
    work.mkdir(parents=True, exist_ok=True)
    with locked(work, f"the folder {str(work)!r}"):
        chosen = {label: method for label, method in plan.settings().items() if re.search(only, label)}
        cells = [_Cell(name, label, method) for (label, method), name in product(chosen.items(), tasks)]
        runner = _Runner(plan, results, work, cells, plan.seeds[:1] if first_seed_only else plan.seeds, keep_runs)
        if dry_run:
            _tell(runner, jobs, console)
        else:
            _carry_out(runner, jobs, until, console)


def _tell(runner: _Runner, jobs: int, console: Console) -> None:
    """What can be run now, a line a run, and how long all takes as far as finished runs tell."""
    steps, times = runner.steps(), _Times()
    for cell in runner.cells:
        for result in cell.results.values():
            if result is not None and "train_seconds" in result:
                times.add(cell, result["train_seconds"])
    for step in steps:
        what = "train" if step.job.test is None else "train and test"
        seconds = times.of(step.cell)
        console.print(
            f"{step.said()}  {what}{'' if seconds is None else f'  about {duration(seconds)}'}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    left = runner.left()
    count, seconds = sum(number for _, number in left), times.left(left, jobs)
    estimate = "no run is finished that would tell how long they take"
    if seconds is not None:
        estimate = f"about {duration(seconds)} at {jobs} at a time, to judge by the training time of finished runs"
    further = f"; searches may go on by {runner.plan.further_rates} rates each" if runner.plan.further_rates else ""
    console.print(
        f"{runner.done()} runs are done, {count} left{further}: {estimate if count else 'all is done'}", soft_wrap=True
    )


def _carry_out(runner: _Runner, jobs: int, until: float, console: Console) -> None:
    """Run what is left, so many processes at a time. Raises `UserError` at the end where some failed."""
    steps = runner.steps()
    if not steps:
        return
    begun: dict[str, tuple[_Step, float]] = {}
    clock = _Clock(runner, jobs)
    at_a_time = f", {jobs} at a time" if jobs > 1 else ""
    console.print(f"{clock.done} runs are done, about {clock.left()} left{at_a_time}", highlight=False)
    interrupted, over = None, False
    with Workers(jobs) as workers:
        while True:
            if not over and time.monotonic() >= until:
                over = True
                workers.stop()
            stopping = over or interrupted or workers.signals
            waiting = [] if stopping else [step for step in steps if step.name not in begun]
            for step in waiting[: workers.free]:
                workers.start(step.name, step.job)
                begun[step.name] = (step, time.monotonic())
            if not begun:
                break
            for name, outcome in workers.wait(
                None if over or until == math.inf else max(0.0, until - time.monotonic())
            ):
                step, since = begun.pop(name)
                if outcome.kind == "interrupted":
                    interrupted = outcome
                    workers.stop()
                    continue
                said = runner.record(step, outcome)
                console.print(clock.line(step, time.monotonic() - since, said), highlight=False, soft_wrap=True)
            steps = runner.steps()
        if workers.signals and not interrupted and steps:
            interrupted = Outcome("interrupted", number=workers.signals[0])
        if interrupted and (workers.signals or not over):
            stop_if_interrupted(interrupted, "the same command goes on")
    if failed := runner.failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        count = f"{len(failed)} {'run' if len(failed) == 1 else 'runs'}"
        rest = f"{clock.left()} are left" if steps else "all else is done"
        raise UserError(f"{count} failed, {rest}; the same command tries again: {reasons}")
    if steps:
        console.print(f"the time is over, about {clock.left()} runs are left; the same command goes on")


@dataclass
class _Cell:
    """One method on one task: a rate is searched, then come the seeds.

    Attributes:
        results: of its runs by rate and seed, as far as they were looked for; None: none is there.
    """

    task: str
    label: str
    method: Method
    results: dict[tuple[float, int], dict[str, Any] | None] = field(default_factory=dict)

    def wanted(self, rate: float, seed: int) -> Wanted:
        return Wanted(self.task, self.label, self.method, rate, seed)


@dataclass(frozen=True)
class _Step:
    """What one process is to do: a run, a test score, or both."""

    cell: _Cell
    wanted: Wanted
    job: Job

    @property
    def name(self) -> str:
        return self.wanted.name

    def said(self) -> str:
        """For a person, to be printed."""
        what = (self.cell.task, self.cell.label, f"lr {self.wanted.rate:.3g}", f"seed {self.wanted.seed}")
        return escape("  ".join(what))


class _Parts:
    """The three parts of a task's data, as files, made when they are first needed."""

    def __init__(self, folder: Path, task: TaskSection) -> None:
        self.folder, self.task = folder, task
        self._files: dict[str, Path] = {}

    def file(self, part: str) -> Path:
        """The file of the part `train`, `validation` or `test`."""
        if not self._files:
            recipe = self.task.recipe(str(self.folder))
            data, section = load_data(recipe.task, recipe.data), recipe.data
            rows = range(len(data.train))
            held_out, left = stratified_split(data.train, rows, self.task.validation_examples, section.split_seed + 1)
            parts = {
                "train": data.train.subset(left),
                "validation": data.train.subset(held_out),
                "test": data.evaluation,
            }
            self._files = {
                name: recipe.task.write(examples, self.folder / name, section) for name, examples in parts.items()
            }
        return self._files[part]

    def section(self) -> dict[str, Any]:
        """The `data` section of a run's recipe: trained on one part, evaluated on the validation part."""
        files = {"train": str(self.file("train")), "evaluation": str(self.file("validation"))}
        own = {key: value for key, value in self.task.data.items() if key not in DataSection.model_fields}
        return {**files, **own}


class _Runner:
    """What is left to do, as it follows from the results, and the record of what was done.

    Attributes:
        failed: why, by the run's name: it is not tried again, and no rate is chosen without it.
    """

    def __init__(
        self, plan: Study, results: Results, work: Path, cells: list[_Cell], seeds: list[int], keep_runs: bool
    ) -> None:
        self.plan, self.results, self.work = plan, results, work
        self.cells, self.seeds, self.keep_runs = cells, seeds, keep_runs
        self.parts = {name: _Parts(work / "data" / name, task) for name, task in plan.tasks.items()}
        self.metrics = plan.scores()
        self._recipes: dict[str, ResolvedRecipe] = {}
        self.searches = plan.searches()
        self.failed: dict[str, str] = {}

    def steps(self) -> list[_Step]:
        """What can be done now; what says most comes first: all methods with one seed, then with the next."""
        found = [step for cell in self.cells for step in self._steps(cell) if step.name not in self.failed]
        return sorted(found, key=lambda step: self.plan.seeds.index(step.wanted.seed))

    def left(self) -> list[tuple[_Cell, int]]:
        """How many steps each cell has still, at least: a search may go beyond its ends."""
        return [(cell, self._left(cell)) for cell in self.cells]

    def done(self) -> int:
        """How many steps the results stand for: runs, and a test score more where the rate was chosen."""
        there = [(key, result) for cell in self.cells for key, result in cell.results.items() if result is not None]
        return sum(1 + (seed == self.plan.seeds[0] and result["test"] is not None) for (_, seed), result in there)

    def _steps(self, cell: _Cell) -> Iterator[_Step]:
        first = self.plan.seeds[0]
        missing, best = self._search(cell)
        for rate in missing:
            yield self._step(cell, cell.wanted(rate, first), tested=False)
        if best is None:
            return
        for seed in self.seeds:
            result = self._result(cell, best, seed)
            if result is None or (result["validation"] is not None and result["test"] is None):
                yield self._step(cell, cell.wanted(best, seed), tested=True)

    def _left(self, cell: _Cell) -> int:
        now = [step.name in self.failed for step in self._steps(cell)]
        searching, undecided = bool(self._search(cell).missing), any(now)
        return now.count(False) + (len(self.seeds) if searching and not undecided else 0)

    def _search(self, cell: _Cell) -> Search:
        metric, first = self.metrics[cell.task], self.plan.seeds[0]

        def score(rate: float) -> float | None:
            result = self._result(cell, rate, first)
            if result is None:
                return None
            return RAN_AWAY if result["validation"] is None else float(result["validation"][metric.key])

        return search(self.searches[cell.label, cell.task], score, metric.greater_is_better)

    def _result(self, cell: _Cell, rate: float, seed: int) -> dict[str, Any] | None:
        """What is known of a run; its file is looked for once."""
        if (rate, seed) not in cell.results:
            wanted = cell.wanted(rate, seed)
            cell.results[rate, seed] = self.results.get(wanted, self._recipe(wanted))
        return cell.results[rate, seed]

    def _step(self, cell: _Cell, wanted: Wanted, tested: bool) -> _Step:
        test = self.parts[cell.task].file("test") if tested else None
        return _Step(cell, wanted, Job(self._recipe(wanted), test))

    def record(self, step: _Step, outcome: Outcome) -> str:
        """Write down how a step ended, and say it in a few words."""
        cell, wanted, recipe, run = step.cell, step.wanted, step.job.recipe, step.job.run
        metric = self.metrics[cell.task]
        if outcome.kind == "failed":
            self.failed[step.name] = outcome.reason
            return f"[red]failed:[/] {escape(outcome.reason)}"
        content = self._result(cell, wanted.rate, wanted.seed) or _content(wanted, recipe, outcome, run)
        said = "numbers ran away"
        if outcome.kind == "finished":
            said = f"validation {metric.title} {metric.text(content['validation'][metric.key])}"
        if outcome.test is not None:
            content = content | {"test": outcome.test}
            said = f"test {metric.title} {metric.text(outcome.test[metric.key])}"
        write_json(self.results.file(wanted), content)
        cell.results[wanted.rate, wanted.seed] = content
        run.remove_checkpoints()
        if outcome.test is not None and not self.keep_runs:
            self._remove_others(cell, wanted.rate)
        return said

    def _remove_others(self, cell: _Cell, best: float) -> None:
        """Delete the runs of the rates that were not chosen: what they say is in their results."""
        for rate, seed in cell.results:
            if rate != best:
                Run(self._folder(cell.wanted(rate, seed))).remove()

    def _folder(self, wanted: Wanted) -> Path:
        return self.work / "runs" / wanted.name

    def _recipe(self, wanted: Wanted) -> ResolvedRecipe:
        if wanted.name not in self._recipes:
            self._recipes[wanted.name] = self._made(wanted)
        return self._recipes[wanted.name]

    def _made(self, wanted: Wanted) -> ResolvedRecipe:
        task = self.plan.tasks[wanted.task]
        return Recipe.parse(
            {
                "name": self.plan.name,
                "seed": wanted.seed,
                "output": str(self._folder(wanted)),
                "model": (task.model or self.plan.model).model_dump(exclude_none=True),
                **({} if task.task is None else {"task": task.task}),
                "data": self.parts[wanted.task].section(),
                "method": wanted.method.model_dump(exclude_none=True),
                "train": task.train.model_dump(exclude_none=True) | {wanted.method.searched_rate: wanted.rate},
            },
            where=wanted.name,
        ).resolved()


class _Times:
    """How long steps take: as those of the same cell, else of the same task, else as all."""

    def __init__(self) -> None:
        self._known: list[tuple[_Cell, float]] = []

    def add(self, cell: _Cell, seconds: float) -> None:
        self._known.append((cell, seconds))

    def of(self, cell: _Cell) -> float | None:
        """Seconds of one step; None: nothing is known."""
        for alike in (lambda one: one is cell, lambda one: one.task == cell.task, lambda one: True):
            if known := [seconds for one, seconds in self._known if alike(one)]:
                return statistics.mean(known)
        return None

    def left(self, steps: Sequence[tuple[_Cell, int]], jobs: int) -> float | None:
        """Seconds that so many steps take, so many at a time; None: nothing is known."""
        if not self._known:
            return None
        return sum(count * (self.of(cell) or 0.0) for cell, count in steps if count) / jobs


class _Clock:
    """A line a step, with the time that is left to judge by the steps so far."""

    def __init__(self, runner: _Runner, jobs: int) -> None:
        self.runner, self.jobs = runner, jobs
        self.done = runner.done()
        self.times = _Times()

    def left(self) -> int:
        """How many steps are left, at least."""
        return sum(count for _, count in self.runner.left())

    def line(self, step: _Step, seconds: float, said: str) -> str:
        self.done += 1
        self.times.add(step.cell, seconds)
        left = self.times.left(self.runner.left(), self.jobs)
        estimate = f"about {duration(left)} left" if left else "done"
        return f"{self.done}/{self.done + self.left()}  {step.said()}  {said}  {duration(seconds)}  [dim]{estimate}[/]"


def _content(wanted: Wanted, recipe: ResolvedRecipe, outcome: Outcome, run: Run) -> dict[str, Any]:
    """What the file of a run says."""
    content: dict[str, Any] = {
        "task": wanted.task,
        "method": wanted.label,
        "rate": wanted.rate,
        "seed": wanted.seed,
        "validation": None,
        "test": None,
        "settings": settings(recipe),
    }
    if outcome.kind == "finished":
        metrics = run.metrics()
        scores = [*(metric.key for metric in recipe.task.metrics), "loss"]
        content["validation"] = {key: metrics[f"eval_{key}"] for key in scores}
        if recipe.train.evaluate_first:
            first = next(entry for entry in run.history() if "eval_loss" in entry)
            content["untrained"] = {key: first[f"eval_{key}"] for key in scores}
        kept = ("trainable_adapter", "trainable_head", "adapter_bytes", "steps", "train_examples", "eval_examples")
        measured = ("seconds_per_step", "peak_memory_bytes", "peak_memory_kind", "device")
        content |= {key: metrics[key] for key in (*kept, *measured) if key in metrics}
        content |= {"train_seconds": round(metrics["train_seconds"], 1), "versions": run.machine()}
        content["curve"] = [[entry["step"], entry["loss"]] for entry in run.history() if "loss" in entry]
    return content


def summaries(plan: Study, results: Results) -> Iterator[dict[str, Any]]:
    """For each method and task that has a test score: what it trained, at which rate, and the scores of its seeds."""
    found = results.all()
    for task, metric in plan.scores().items():
        for label in plan.settings():
            scored = [r for r in found if (r["task"], r["method"]) == (task, label) and r["test"] is not None]
            if scored:
                # A search that went on later may have chosen another rate: what an earlier choice scored is left out.
                sign = 1 if metric.greater_is_better else -1
                of_first = [r for r in scored if r["seed"] == plan.seeds[0]] or scored
                best = max(of_first, key=lambda r: (sign * r["validation"][metric.key], -r["rate"]))
                own = [r for r in scored if r["rate"] == best["rate"]]
                yield {
                    "task": task,
                    "method": label,
                    "numbers": own[0]["trainable_adapter"],
                    "rate": own[0]["rate"],
                    "validation": [r["validation"][metric.key] for r in own],
                    "test": [r["test"][metric.key] for r in own],
                    "untrained": own[0].get("untrained", {}).get(metric.key),
                    "seeds": [r["seed"] for r in own],
                }
