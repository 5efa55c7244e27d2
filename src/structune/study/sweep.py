"""Tasks × methods × learning rates × seeds: a run each, one small file a run, to be stopped and continued at any time.

The learning rate is chosen on a validation part; the test part is scored for the chosen rate alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from structune.data.section import DataSection
from structune.data.split import stratified_split
from structune.errors import UserError
from structune.files import write_json
from structune.finetune.importing import without_remarks
from structune.finetune.launch import refuse_several_processes
from structune.finetune.lock import locked
from structune.finetune.recipe import Recipe, ResolvedRecipe
from structune.finetune.run import Run
from structune.finetune.task_data import load_data
from structune.methods.method import Method
from structune.study.own_process import stop_if_interrupted, train_in_own_process
from structune.study.sweep_file import Sweep, TaskSection


@dataclass(frozen=True)
class Wanted:
    """One run of a sweep."""

    task: str
    label: str
    method: Method
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """What its file and its folder are called."""
        words = f"{self.label} lr={self.rate:.3g} seed={self.seed}"
        return f"{self.task}/{re.sub(r'[^A-Za-z0-9.=-]+', '-', words).strip('-')}"


class Results:
    """The files of a sweep: one for each run that is finished.

    Args:
        folder: where they are; made with the first of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, wanted: Wanted) -> Path:
        """Where the result of a run is, or will be."""
        return self.folder / f"{wanted.name}.json"

    def get(self, wanted: Wanted, recipe: ResolvedRecipe) -> dict[str, Any] | None:
        """The result of a run; None: it is not there.

        Raises:
            UserError: the file is damaged, or of a run with other settings.
        """
        file = self.file(wanted)
        if not file.is_file():
            return None
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            same = _agree(content["settings"], _settings(recipe), _settings(recipe, exclude_defaults=True))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(f"{file}: not a result of a sweep ({error}); restore or delete it") from None
        if not same:
            raise UserError(
                f"{file}: was run with other settings than the sweep has now; take another --out, or delete the file"
            )
        return content

    def all(self) -> list[dict[str, Any]]:
        """Every result, in the order of the files' names."""
        return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(self.folder.glob("*/*.json"))]


def sweep(
    plan: Sweep,
    results: Results,
    work: Path,
    *,
    only: str = "",
    task: str | None = None,
    first_seed_only: bool = False,
    console: Console | None = None,
) -> None:
    """Do every run that has no result yet.

    Runs of the first seed come before those of others, and methods in the order of the file. Each run is a process of
    its own and has a folder in `work`; one that was interrupted goes on from its last checkpoint. A rate at which
    numbers ran away counts as the worst. A run that failed for another reason is told of and passed over, and no rate
    is chosen that was to be compared with it; all others are done before that is an error.

    Args:
        plan: the sweep.
        results: where results are and go.
        work: where data parts and run folders go, which need not be kept.
        only: an expression that a method's label must contain a match of.
        task: the only task; all of them by default.
        first_seed_only: whether to leave out the other seeds.
        console: where progress is shown.

    Raises:
        UserError: the sweep, its data or a result does not work, or runs failed; then everything else is done.
        Interrupted, KeyboardInterrupt: a signal such as Ctrl-C asked for the end; the same command goes on.
    """
    console = console or Console(quiet=True)
    refuse_several_processes()
    if task is not None and task not in plan.tasks:
        raise UserError(f"--task {task!r}: the sweep has {', '.join(plan.tasks)}")
    tasks = list(plan.tasks) if task is None else [task]
    work.mkdir(parents=True, exist_ok=True)
    with locked(work, f"the folder {str(work)!r}"):
        parts = {name: _Parts(work / "data" / name, task) for name, task in plan.tasks.items()}
        runner = _Runner(plan, results, work, parts, console)
        chosen = {label: method for label, method in plan.settings().items() if re.search(only, label)}
        for seed in plan.seeds[:1] if first_seed_only else plan.seeds:
            for (label, method), name in product(chosen.items(), tasks):
                with suppress(_RunFailed):
                    rate = runner.searched(name, label, method)
                    if rate is not None:
                        runner.tested(Wanted(name, label, method, rate, seed))
        if failed := runner.failed:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
            count = f"{len(failed)} {'run' if len(failed) == 1 else 'runs'}"
            raise UserError(f"{count} failed, all else is done; the same command tries again: {reasons}")


def search(
    plan: Sweep, rates: Sequence[float], score: Callable[[float], float | None], greater_is_better: bool = True
) -> float | None:
    """The rate with the best score: those of the file, then more beyond the end at which the best one is.

    Args:
        plan: the sweep.
        rates: of the method, in the file.
        score: of a rate; None where numbers ran away.
        greater_is_better: what is best, the greatest score or the least.

    Returns:
        The rate; None if numbers ran away at all of them.
    """
    sign = 1 if greater_is_better else -1
    scores = {rate: score(rate) for rate in sorted(rates)}
    for _ in range(plan.further_rates + 1):
        fine = {rate: value for rate, value in scores.items() if value is not None}
        best = max(fine, key=lambda rate: (sign * fine[rate], -rate)) if fine else None
        if len(fine) == len(scores) and len(set(fine.values())) == 1:
            break  # no rate changes anything, and none beyond will
        smallest, largest = min(scores), max(scores)
        further = smallest / plan.rate_factor if best in (None, smallest) else largest * plan.rate_factor
        if best not in (None, smallest, largest) or len(scores) == len(rates) + plan.further_rates:
            break
        scores[further] = score(further)
    return best


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


class _RunFailed(Exception):
    """A run failed, and was told of."""


class _Runner:
    """Runs that have no result yet, one after the other.

    Attributes:
        failed: why, by the run's name.
    """

    def __init__(
        self, plan: Sweep, results: Results, work: Path, parts: Mapping[str, _Parts], console: Console
    ) -> None:
        self.plan, self.results, self.work, self.parts, self.console = plan, results, work, parts, console
        self.metrics = plan.scores()
        self.rates = plan.rates_by_label()
        self.failed: dict[str, str] = {}

    def searched(self, task: str, label: str, method: Method) -> float | None:
        """The rate with the best score on the validation part; None where numbers ran away at all of them.

        Raises:
            _RunFailed: one of its runs failed; the other rates of the file were tried.
        """
        score = partial(self.validated, task, label, method)
        failed = None
        for rate in self.rates[label]:
            try:
                score(rate)
            except _RunFailed as error:
                failed = error
        if failed is not None:
            raise failed
        return search(self.plan, self.rates[label], score, self.metrics[task].greater_is_better)

    def validated(self, task: str, label: str, method: Method, rate: float) -> float | None:
        """The score on the validation part with the first seed; None where numbers ran away."""
        result = self._result(Wanted(task, label, method, rate, self.plan.seeds[0]))
        return None if result["validation"] is None else result["validation"][self.metrics[task].key]

    def tested(self, wanted: Wanted) -> None:
        """Make sure that a run is there and scored on the test part."""
        result = self._result(wanted)
        if result["validation"] is None or result["test"] is not None:
            return
        recipe = self._recipe(wanted)
        if Run(Path(recipe.output)).state() != "finished":
            self._train(wanted, recipe)
        with without_remarks():
            from structune.finetune.evaluate import evaluate

        self._say(wanted, "test")
        try:
            scored = evaluate(recipe.output, self.parts[wanted.task].file("test"))
        except (UserError, RuntimeError) as error:  # such as too little memory on a GPU
            raise self._failed(wanted, str(error)) from None
        result["test"] = scored.scores | {"loss": scored.loss, "examples": scored.examples}
        write_json(self.results.file(wanted), result)

    def _result(self, wanted: Wanted) -> dict[str, Any]:
        recipe = self._recipe(wanted)
        if (there := self.results.get(wanted, recipe)) is not None:
            return there
        run = self._train(wanted, recipe)
        content: dict[str, Any] = {
            "task": wanted.task,
            "method": wanted.label,
            "rate": wanted.rate,
            "seed": wanted.seed,
            "validation": None,
            "test": None,
            "settings": _settings(recipe),
        }
        if run is not None:
            metrics = run.metrics()
            scores = [*(metric.key for metric in recipe.task.metrics), "loss"]
            content["validation"] = {key: metrics[f"eval_{key}"] for key in scores}
            if recipe.train.evaluate_first:
                first = next(entry for entry in run.history() if "eval_loss" in entry)
                content["untrained"] = {key: first[f"eval_{key}"] for key in scores}
            kept = ("trainable_adapter", "trainable_head", "adapter_bytes", "steps", "train_examples", "eval_examples")
            content |= {key: metrics[key] for key in kept}
            content |= {"train_seconds": round(metrics["train_seconds"], 1), "versions": run.machine()}
        write_json(self.results.file(wanted), content)
        return content

    def _train(self, wanted: Wanted, recipe: ResolvedRecipe) -> Run | None:
        """The finished run; None if its numbers ran away."""
        if reason := self.failed.get(wanted.name):
            raise _RunFailed(reason)
        run = Run(Path(recipe.output))
        if (state := run.state()) == "finished":
            return run
        self._say(wanted, "train" if state == "new" else "go on")
        outcome = train_in_own_process(recipe, state == "unfinished", overwrite=False, quiet=True)
        stop_if_interrupted(outcome, "the same command goes on")
        if outcome.kind == "failed":
            raise self._failed(wanted, outcome.reason)
        return run if outcome.kind == "finished" else None

    def _failed(self, wanted: Wanted, reason: str) -> _RunFailed:
        """The end of a run, which is told and remembered."""
        self.failed[wanted.name] = reason
        self._say(wanted, "failed")
        self.console.print(f"        {escape(reason)}", highlight=False, soft_wrap=True)
        return _RunFailed(reason)

    def _recipe(self, wanted: Wanted) -> ResolvedRecipe:
        task = self.plan.tasks[wanted.task]
        return Recipe.parse(
            {
                "name": self.plan.name,
                "seed": wanted.seed,
                "output": str(self.work / "runs" / wanted.name),
                "model": self.plan.model.model_dump(exclude_none=True),
                **({} if task.task is None else {"task": task.task}),
                "data": self.parts[wanted.task].section(),
                "method": wanted.method.model_dump(exclude_none=True),
                "train": task.train.model_dump(exclude_none=True) | {"learning_rate": wanted.rate},
            },
            where=wanted.name,
        ).resolved()

    def _say(self, wanted: Wanted, what: str) -> None:
        self.console.print(f"{what}  {escape(wanted.name)}", highlight=False, soft_wrap=True)


def _settings(recipe: Recipe, *, exclude_defaults: bool = False) -> dict[str, Any]:
    """What is said of a run, but for the names and paths of one machine.

    Beside the recipe's sections are the keys that the task has in its `data` section: columns, lengths.
    """
    written: dict[str, Any] = {"mode": "json", "exclude_none": True, "exclude_defaults": exclude_defaults}
    of_data = recipe.data.model_dump(**written, exclude=set(DataSection.model_fields))
    return of_data | recipe.model_dump(**written, exclude={"name", "output", "model", "data"}) | _sources(recipe)


def _sources(recipe: Recipe) -> dict[str, Any]:
    """What a run reads: its data by their hash."""
    hashes = [_hash(Path(file)) for file in recipe.data.files().values()]
    return {"data": hashes, "model": Path(recipe.model.name).name}


def _hash(path: Path) -> str:
    """Of a file; of a folder the names and contents of all files in it."""
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    whole = hashlib.sha256()
    for file in sorted(found for found in path.rglob("*") if found.is_file()):
        whole.update(f"{file.relative_to(path).as_posix()}\0{_hash(file)}\0".encode())
    return whole.hexdigest()[:16]


def _agree(stored: Any, now: Any, given: Any) -> bool:
    """Whether settings are those that were stored; options that came later are, where they have their defaults.

    Args:
        stored: settings of a run.
        now: those of the sweep.
        given: of these, what is no default.
    """
    if not isinstance(stored, dict) or not isinstance(now, dict):
        return bool(stored == now)
    given = given if isinstance(given, dict) else {}
    return all(key in now and _agree(value, now[key], given.get(key)) for key, value in stored.items()) and not any(
        key in given for key in now if key not in stored
    )


def summaries(plan: Sweep, results: Results) -> Iterator[dict[str, Any]]:
    """For each method and task that has a test score: what it trained, at which rate, and the scores of its seeds."""
    found = results.all()
    for task, metric in plan.scores().items():
        for label in plan.settings():
            own = [r for r in found if (r["task"], r["method"]) == (task, label) and r["test"] is not None]
            if own:
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
