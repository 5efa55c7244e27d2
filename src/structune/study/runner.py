"""What of a study is left to do, as it follows from the results, and the record of what was done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.markup import escape

from structune.files import write_json
from structune.finetune.recipe.recipe import Recipe, ResolvedRecipe
from structune.finetune.run_folder.run import Run
from structune.study.inputs.parts import Parts
from structune.study.pair import Pair, Step
from structune.study.results.files import Results, Wanted, settings
from structune.study.results.measured import TOOK, measured
from structune.study.search.points import Point, SearchSection
from structune.study.search.rates import RAN_AWAY, search
from structune.study.search.sampled import Choice, check_sampler, sampled
from structune.study.study_file import Study, TaskSection
from structune.study.workers.job_pool import Job
from structune.study.workers.own_process import Outcome


class Left(NamedTuple):
    """What is left of a pair.

    Attributes:
        pair: which.
        steps: of any kind: a run, its test score, or both in one.
        runs: to be trained.
        tests: scores on the test part.
    """

    pair: Pair
    steps: int
    runs: int
    tests: int


class Runner:
    """What is left to do, as it follows from the results, and the record of what was done.

    Attributes:
        failed: why, by the run's name: it is not tried again, and no rate is chosen without it.
    """

    def __init__(
        self, plan: Study, results: Results, work: Path, pairs: list[Pair], seeds: list[int], keep_runs: bool
    ) -> None:
        self.plan, self.results, self.work = plan, results, work
        self.pairs, self.seeds, self.keep_runs = pairs, seeds, keep_runs
        self.parts = {name: Parts(work / "data" / name, task) for name, task in plan.tasks.items()}
        self.metrics = plan.scores()
        self._recipes: dict[str, ResolvedRecipe] = {}
        self.searches, self.spaces = plan.searches(), plan.spaces()
        if self.plan.search is not None:
            self._find_tries(self.plan.search)
        self.failed: dict[str, str] = {}

    def steps(self) -> list[Step]:
        """What can be done now; what says most comes first: all methods with one seed, then with the next."""
        found = [step for pair in self.pairs for step in self._steps(pair) if step.name not in self.failed]
        return sorted(found, key=lambda step: self.plan.seeds.index(step.wanted.seed))

    def left(self) -> list[Left]:
        """What each pair has still, at least: a search may go beyond its ends."""
        return [self._left(pair) for pair in self.pairs]

    def done(self) -> int:
        """How many steps the results stand for: runs, and a test score more where the rate was chosen."""
        there = [(key, result) for pair in self.pairs for key, result in pair.results.items() if result is not None]
        return sum(1 + (seed == self.plan.seeds[0] and result["test"] is not None) for (_, seed), result in there)

    def _steps(self, pair: Pair) -> Iterator[Step]:
        first = self.plan.seeds[0]
        missing, best, _ = self._search(pair)
        for point in missing.values():
            yield self._step(pair, pair.wanted(point, first), tested=False)
        if best is None:
            return
        for seed in self.seeds:
            result = self._result(pair, best, seed)
            if result is None or (result["validation"] is not None and result["test"] is None):
                yield self._step(pair, pair.wanted(best, seed), tested=True)

    def _left(self, pair: Pair) -> Left:
        now, found = list(self._steps(pair)), self._search(pair)
        open_ = [step for step in now if step.name not in self.failed]
        first = [step for step in open_ if step.job.test is not None and step.wanted.seed == self.plan.seeds[0]]
        if not found.missing or len(open_) < len(now):
            tests = sum(step.job.test is not None for step in open_)
            return Left(pair, len(open_), len(open_) - len(first), tests)
        runs = len(open_) + found.later + len(self.seeds) - 1  # one of the first seed's is the one that is scored
        return Left(pair, runs + 1, runs, len(self.seeds))

    def _search(self, pair: Pair) -> Choice:
        better, space = self.metrics[pair.task].greater_is_better, self.spaces.get((pair.label, pair.task))
        if self.plan.search is None or space is None:
            rates = search(self.searches[pair.label, pair.task], lambda rate: self._score(pair, Point(rate)), better)
            missing = {number: Point(rate) for number, rate in enumerate(rates.missing)}
            return Choice(missing, None if rates.best is None else Point(rates.best))
        while True:
            known = {number: (point, self._score(pair, point)) for number, point in pair.tries.items()}
            scores = {number: (point, score) for number, (point, score) in known.items() if score is not None}
            if pair.searched is not None and pair.searched[0] == scores:  # of NaN there is one, which is itself
                return pair.searched[1]
            found = sampled(space, self.plan.search, scores, better)
            pair.tries |= found.missing
            pair.searched = scores, found

    def _score(self, pair: Pair, point: Point) -> float | None:
        """On the validation part with the first seed, `RAN_AWAY`, or None: not there yet."""
        result = self._result(pair, point, self.plan.seeds[0])
        if result is None:
            return None
        return RAN_AWAY if result["validation"] is None else float(result["validation"][self.metrics[pair.task].key])

    def _find_tries(self, section: SearchSection) -> None:
        """What was tried before, by its number: what comes next follows from it, whichever version has drawn it."""
        pairs = {(pair.label, pair.task): pair for pair in self.pairs}
        for key in self.spaces.keys() & pairs.keys():
            check_sampler(section, self.spaces[key])
        for result in self.results.all() if section.sampler != "grid" else ():
            key = result["method"], result["task"]
            pair, space = pairs.get(key), self.spaces.get(key)
            if pair is None or space is None or result["seed"] != self.plan.seeds[0] or "try" not in result:
                continue
            if (point := Point.of_run(result)).inside(space):
                pair.tries.setdefault(result["try"], point)

    def _result(self, pair: Pair, point: Point, seed: int) -> dict[str, Any] | None:
        """What is known of a run; its file is looked for once."""
        if (point, seed) not in pair.results:
            wanted = pair.wanted(point, seed)
            pair.results[point, seed] = self.results.get(wanted, self._recipe(wanted))
        return pair.results[point, seed]

    def _step(self, pair: Pair, wanted: Wanted, tested: bool) -> Step:
        test = self.parts[pair.task].file("test") if tested else None
        return Step(pair, wanted, Job(self._recipe(wanted), test))

    def record(self, step: Step, outcome: Outcome) -> str:
        """Write down how a step ended, and say it in a few words."""
        pair, wanted, run = step.pair, step.wanted, step.job.run
        metric = self.metrics[pair.task]
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
        pair.results[wanted.point, wanted.seed] = content
        run.remove_checkpoints()
        if outcome.test is not None and not self.keep_runs:
            self._remove_others(pair, wanted.point)
        return said

    def _content(self, step: Step, outcome: Outcome) -> dict[str, Any]:
        """What the file of a run says."""
        pair, wanted, recipe = step.pair, step.wanted, step.job.recipe
        content: dict[str, Any] = {
            "task": wanted.task,
            "method": wanted.label,
            "rate": wanted.point.rate,
            "seed": wanted.seed,
        }
        if (pair.label, pair.task) in self.spaces:
            numbers = {point: number for number, point in pair.tries.items()}
            content |= {"try": numbers[wanted.point], "tried": dict(wanted.point.more)}
        content |= {"validation": None, "test": None, "settings": settings(recipe)}
        if outcome.kind != "finished":
            return content
        before = pair.results.get((wanted.point, wanted.seed)) or {}
        now = dict(zip(TOOK, (outcome.took.run, outcome.took.test), strict=True))
        took = {key: round(seconds, 1) for key in TOOK if (seconds := now[key] or before.get(key)) is not None}
        return content | (measured(recipe, step.job.run) if outcome.measured is None else outcome.measured) | took

    def _remove_others(self, pair: Pair, best: Point) -> None:
        """Delete the runs of what was not chosen: what they say is in their results."""
        for point, seed in pair.results:
            if point != best:
                Run(self._folder(pair.wanted(point, seed))).remove()

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
