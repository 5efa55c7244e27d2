"""What a study would run, how long that takes here, and what it costs. Nothing is trained and nothing is written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from structune.duration import duration
from structune.errors import UserError
from structune.study.clock import Takes, finished_here
from structune.study.pair import Step
from structune.study.runner import Left, Runner
from structune.study.workers.job_pool import Job
from structune.study.workers.own_process import Outcome, stop_if_interrupted
from structune.study.workers.processes import Workers


def tell(runner: Runner, jobs: int, console: Console, *, timing: bool = True, price: float | None = None) -> None:
    """What can be run now, a line a run, what follows on it, then the time and the cost of all that is left.

    Args:
        runner: of the study.
        jobs: how many processes would run at a time; as many take steps at a time to be timed.
        console: where it is told.
        timing: whether to time steps of methods on tasks of which no run was finished on this machine.
        price: of an hour of this machine.

    Raises:
        UserError: a method cannot be run on a task; all others were told.
        Interrupted, KeyboardInterrupt: a signal such as Ctrl-C asked for the end.
    """
    steps, left = runner.steps(), [each for each in runner.left() if each.steps]
    takes = {id(pair): found for pair in runner.pairs if (found := finished_here(pair)) is not None}
    failed: list[str] = []
    waiting = {id(step.pair): step for step in reversed(steps) if id(step.pair) not in takes}
    if timing and waiting:
        takes, failed = _timed(runner, list(reversed(waiting.values())), takes, jobs, console)
    for step in steps:
        what, found = "train" if step.job.test is None else "train and test", takes.get(id(step.pair))
        seconds = None if found is None else found.run + (found.test if step.job.test is not None else 0.0)
        console.print(
            f"{step.said()}  {what}{'' if seconds is None else f'  about {duration(seconds)}'}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    listed = Counter(id(step.pair) for step in steps)
    for each in left:
        if each.steps > listed[id(each.pair)]:
            pair = each.pair
            console.print(
                f"{escape(f'{pair.task}  {pair.label}')}  then {_later(each, listed[id(pair)], runner.seeds)}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
    search, plan = "", runner.plan
    if plan.search is None and plan.further_rates:
        search = f"; searches may go on by {plan.further_rates} rates each"
    count = sum(each.steps for each in left)
    done = f"{runner.done()} runs and test scores are done, {count} left{search if left else ''}"
    known = [each for each in left if id(each.pair) in takes]
    seconds = sum(takes[id(each.pair)].of(each) for each in known) / jobs
    said = [f"{done}: all is done" if not left else f"{done}: no run was timed, and none is finished on this machine"]
    if known:
        unknown = count - sum(each.steps for each in known)
        of_all = f", without {unknown} of which nothing is known" if unknown else ""
        said = [f"{done}: about {duration(seconds)} at {jobs} at a time{of_all}"]
        cost = "" if price is None else f", which cost {price * seconds / 3600:,.2f} at {price:g} an hour"
        said.append(f"{seconds / 3600:.2f} hours of this machine{cost}")
    console.print("\n".join(said), soft_wrap=True, highlight=False)
    if failed:
        raise UserError("\n".join(["these would fail:", *failed]))


def _later(left: Left, now: int, seeds: Sequence[int]) -> str:
    """What comes once a search is over, and what of the search has to wait, in words."""
    others = [str(seed) for seed in seeds[1:]]
    tries = left.runs - now - len(others)
    parts = [f"{tries} more {'try' if tries == 1 else 'tries'}"] if tries else []
    parts += ["the best one's test score" if now + tries > 1 else "its test score"]
    parts += [f"{'seed' if len(others) == 1 else 'seeds'} {', '.join(others)}"] if others else []
    return ", ".join(parts)


def _timed(
    runner: Runner, steps: list[Step], takes: dict[int, Takes], jobs: int, console: Console
) -> tuple[dict[int, Takes], list[str]]:
    """A few steps of one run of each pair, thrown away. Returns what each takes, and why some would fail."""
    takes, failed, begun = dict(takes), [], time.monotonic()
    console.print(
        f"timing a few steps of each method on each task, {len(steps)} in all: this takes a while", highlight=False
    )
    waiting, by_name = list(reversed(steps)), {step.name: step for step in steps}
    with Workers(jobs) as workers:
        done = 0
        while True:
            while waiting and workers.free and not workers.signals:
                step = waiting.pop()
                workers.start(step.name, Job(step.job.recipe, timed=True))
            if not (ended := workers.wait()):
                break
            for name, outcome in ended:
                step, done = by_name[name], done + 1
                if outcome.kind == "finished" and outcome.timed is not None:
                    found = outcome.timed
                    per_example = found.evaluation / found.examples
                    takes[id(step.pair)] = Takes(found.run, per_example * runner.parts[step.pair.task].count("test"))
                    said = f"{found.step:.3g} s a step, about {duration(found.run)} a run"
                elif outcome.kind == "interrupted":
                    continue
                else:
                    failed.append(f"{name}: {outcome.reason}")
                    said = f"[red]{outcome.kind}:[/] {escape(outcome.reason)}"
                rest = (time.monotonic() - begun) / done * (len(steps) - done)
                left = f"  [dim]about {duration(rest)} left[/]" if rest else ""
                console.print(
                    f"{done}/{len(steps)}  {escape(step.pair.task)}  {escape(step.pair.label)}  {said}{left}",
                    highlight=False, soft_wrap=True,
                )  # fmt: skip
        if workers.signals:
            stop_if_interrupted(Outcome("interrupted", number=workers.signals[0]), "the same command begins anew")
    return takes, failed
