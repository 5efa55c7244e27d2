"""What of a study is left to do, as it follows from the results, and the record of what was done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.markup import escape

from structune.files import write_json
from structune.finetune.recipe.recipe import Recipe, ResolvedRecipe
from structune.finetune.run_folder.run import Run
from structune.study.cell import Cell, Step
from structune.study.inputs.parts import Parts
from structune.study.results.files import Results, Wanted, settings
from structune.study.results.measured import TOOK, measured
from structune.study.search.points import Point, SearchSection
from structune.study.search.rates import RAN_AWAY, search
from structune.study.search.sampled import Choice, check_sampler, sampled
from structune.study.study_file import Study, TaskSection
from structune.study.workers.job_pool import Job
from structune.study.workers.own_process import Outcome


class Left(NamedTuple):
    """What is left of a cell.

    Attributes:
        cell: which.
        steps: of any kind: a run, its test score, or both in one.
        runs: to be trained.
        tests: scores on the test part.
    """

    cell: Cell
    steps: int
    runs: int
    tests: int


class Runner:
    """What is left to do, as it follows from the results, and the record of what was done.

    Attributes:
        failed: why, by the run's name: it is not tried again, and no rate is chosen without it.
    """

    def __init__(
        self, plan: Study, results: Results, work: Path, cells: list[Cell], seeds: list[int], keep_runs: bool
    ) -> None:
        self.plan, self.results, self.work = plan, results, work
        self.cells, self.seeds, self.keep_runs = cells, seeds, keep_runs
        self.parts = {name: Parts(work / "data" / name, task) for name, task in plan.tasks.items()}
        self.metrics = plan.scores()
        self._recipes: dict[str, ResolvedRecipe] = {}
        self.searches, self.spaces = plan.searches(), plan.spaces()
        if self.plan.search is not None:
            self._find_tries(self.plan.search)
        self.failed: dict[str, str] = {}

    def steps(self) -> list[Step]:
        """What can be done now; what says most comes first: all methods with one seed, then with the next."""
        found = [step for cell in self.cells for step in self._steps(cell) if step.name not in self.failed]
        return sorted(found, key=lambda step: self.plan.seeds.index(step.wanted.seed))

    def left(self) -> list[Left]:
        """What each cell has still, at least: a search may go beyond its ends."""
        return [self._left(cell) for cell in self.cells]

    def done(self) -> int:
        """How many steps the results stand for: runs, and a test score more where the rate was chosen."""
        there = [(key, result) for cell in self.cells for key, result in cell.results.items() if result is not None]
        return sum(1 + (seed == self.plan.seeds[0] and result["test"] is not None) for (_, seed), result in there)

    def _steps(self, cell: Cell) -> Iterator[Step]:
        first = self.plan.seeds[0]
        missing, best, _ = self._search(cell)
        for point in missing.values():
            yield self._step(cell, cell.wanted(point, first), tested=False)
        if best is None:
            return
        for seed in self.seeds:
            result = self._result(cell, best, seed)
            if result is None or (result["validation"] is not None and result["test"] is None):
                yield self._step(cell, cell.wanted(best, seed), tested=True)

    def _left(self, cell: Cell) -> Left:
        now, found = list(self._steps(cell)), self._search(cell)
        open_ = [step for step in now if step.name not in self.failed]
        first = [step for step in open_ if step.job.test is not None and step.wanted.seed == self.plan.seeds[0]]
        if not found.missing or len(open_) < len(now):
            tests = sum(step.job.test is not None for step in open_)
            return Left(cell, len(open_), len(open_) - len(first), tests)
        runs = len(open_) + found.later + len(self.seeds) - 1  # one of the first seed's is the one that is scored
        return Left(cell, runs + 1, runs, len(self.seeds))

    def _search(self, cell: Cell) -> Choice:
        better, space = self.metrics[cell.task].greater_is_better, self.spaces.get((cell.label, cell.task))
        if self.plan.search is None or space is None:
            rates = search(self.searches[cell.label, cell.task], lambda rate: self._score(cell, Point(rate)), better)
            missing = {number: Point(rate) for number, rate in enumerate(rates.missing)}
            return Choice(missing, None if rates.best is None else Point(rates.best))
        while True:
            known = {number: (point, self._score(cell, point)) for number, point in cell.tries.items()}
            scores = {number: (point, score) for number, (point, score) in known.items() if score is not None}
            if cell.searched is not None and cell.searched[0] == scores:  # of NaN there is one, which is itself
                return cell.searched[1]
            found = sampled(space, self.plan.search, scores, better)
            cell.tries |= found.missing
            cell.searched = scores, found

    def _score(self, cell: Cell, point: Point) -> float | None:
        """On the validation part with the first seed, `RAN_AWAY`, or None: not there yet."""
        result = self._result(cell, point, self.plan.seeds[0])
        if result is None:
            return None
        return RAN_AWAY if result["validation"] is None else float(result["validation"][self.metrics[cell.task].key])

    def _find_tries(self, section: SearchSection) -> None:
        """What was tried before, by its number: what comes next follows from it, whichever version has drawn it."""
        cells = {(cell.label, cell.task): cell for cell in self.cells}
        for key in self.spaces.keys() & cells.keys():
            check_sampler(section, self.spaces[key])
        for result in self.results.all() if section.sampler != "grid" else ():
            key = result["method"], result["task"]
            cell, space = cells.get(key), self.spaces.get(key)
            if cell is None or space is None or result["seed"] != self.plan.seeds[0] or "try" not in result:
                continue
            if (point := Point.of_run(result)).inside(space):
                cell.tries.setdefault(result["try"], point)

    def _result(self, cell: Cell, point: Point, seed: int) -> dict[str, Any] | None:
        """What is known of a run; its file is looked for once."""
        if (point, seed) not in cell.results:
            wanted = cell.wanted(point, seed)
            cell.results[point, seed] = self.results.get(wanted, self._recipe(wanted))
        return cell.results[point, seed]

    def _step(self, cell: Cell, wanted: Wanted, tested: bool) -> Step:
        test = self.parts[cell.task].file("test") if tested else None
        return Step(cell, wanted, Job(self._recipe(wanted), test))

    def record(self, step: Step, outcome: Outcome) -> str:
        """Write down how a step ended, and say it in a few words."""
        cell, wanted, run = step.cell, step.wanted, step.job.run
        metric = self.metrics[cell.task]
        if outcome.kind == "failed":
            self.failed[step.name] = outcome.reason
            return f"[red]failed:[/] {escape(outcome.reason)}"
        content = self._content(step, outcome)  # also where a result is there: it may be of another machine's training
        said = "numbers ran away"
        if outcome.kind == "finished":
            said = f"validation {metric.title} {metric.text(content['validation'][metric.key])}"
        if outcome.test is not None:
            content = content | {"test": outcome.test}
            said = f"test {metric.title} {metric.text(outcome.test[metric.key])}"
        write_json(self.results.file(wanted), content)
        cell.results[wanted.point, wanted.seed] = content
        run.remove_checkpoints()
        if outcome.test is not None and not self.keep_runs:
            self._remove_others(cell, wanted.point)
        return said

    def _content(self, step: Step, outcome: Outcome) -> dict[str, Any]:
        """What the file of a run says."""
        cell, wanted, recipe = step.cell, step.wanted, step.job.recipe
        content: dict[str, Any] = {
            "task": wanted.task,
            "method": wanted.label,
            "rate": wanted.point.rate,
            "seed": wanted.seed,
        }
        if (cell.label, cell.task) in self.spaces:
            numbers = {point: number for number, point in cell.tries.items()}
            content |= {"try": numbers[wanted.point], "tried": dict(wanted.point.more)}
        content |= {"validation": None, "test": None, "settings": settings(recipe)}
        if outcome.kind != "finished":
            return content
        before = cell.results.get((wanted.point, wanted.seed)) or {}
        now = dict(zip(TOOK, (outcome.took.run, outcome.took.test), strict=True))
        took = {key: round(seconds, 1) for key in TOOK if (seconds := now[key] or before.get(key)) is not None}
        return content | (measured(recipe, step.job.run) if outcome.measured is None else outcome.measured) | took

    def _remove_others(self, cell: Cell, best: Point) -> None:
        """Delete the runs of what was not chosen: what they say is in their results."""
        for point, seed in cell.results:
            if point != best:
                Run(self._folder(cell.wanted(point, seed))).remove()

    def _folder(self, wanted: Wanted) -> Path:
        return self.work / "runs" / wanted.name

    def _recipe(self, wanted: Wanted) -> ResolvedRecipe:
        if wanted.name not in self._recipes:
            self._recipes[wanted.name] = self._made(wanted)
        return self._recipes[wanted.name]

    @staticmethod
    def _train(task: TaskSection) -> dict[str, Any]:
        """The section `train` of a task: where checkpoints are chosen, by the score that the task is reported by."""
        chooses = task.train.best_checkpoint or task.train.early_stopping is not None
        metric = {} if task.metric is None or not chooses else {"metric": task.metric}
        return metric | task.train.model_dump(exclude_none=True)

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
                "method": wanted.method.model_dump(exclude_none=True) | wanted.point.section("method"),
                "train": self._train(task)
                | wanted.point.section("train")
                | {wanted.method.searched_rate: wanted.point.rate},
            },
            where=wanted.name,
        ).resolved()
