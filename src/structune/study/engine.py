"""Tasks × methods × learning rates × seeds: a run each, one small file a run, to be stopped and continued at any time.

The learning rate is chosen on a validation part; the test part is scored for the chosen rate alone.
"""

from __future__ import annotations

import math
import time
from itertools import product
from pathlib import Path

from rich.console import Console

from structune.errors import UserError
from structune.finetune.distributed.launch import refuse_several_processes
from structune.finetune.run_folder.lock import locked
from structune.study.clock import Clock
from structune.study.dry_run import tell
from structune.study.pair import Pair, Step
from structune.study.results.files import Results
from structune.study.runner import Runner
from structune.study.study_file import Study
from structune.study.workers.job_pool import JobPool
from structune.study.workers.own_process import Outcome, stop_if_interrupted
from structune.study.workers.processes import Workers
from structune.study.workers.ray_workers import RayWorkers

_LOOK_AGAIN = 1.0
"""Seconds after which it is seen whether there is room for a run."""


def run_study(
    plan: Study,
    results: Results,
    work: Path,
    *,
    only: str = "",
    task: str | None = None,
    first_seed_only: bool = False,
    jobs: int | None = None,
    ray: str | None = None,
    gpus: float = 0.0,
    hours: float | None = None,
    keep_runs: bool = False,
    dry_run: bool = False,
    timing: bool = True,
    price_per_hour: float | None = None,
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
        work: where data parts and run folders go; without it a rate that is chosen later is trained again.
        only: an expression that a method's label must contain a match of.
        task: the only task; all of them by default.
        first_seed_only: whether to leave out the other seeds.
        jobs: how many processes run at a time: 1 by default, with Ray as many as there is room for.
        ray: the address of a Ray cluster whose machines run them, or `local`.
        gpus: of a run on it.
        hours: after which runs are stopped as by a signal, without an error; None: never.
        keep_runs: whether to keep the folders of runs whose rate was not chosen.
        dry_run: whether to say what is left instead, how long that takes and what it costs.
        timing: whether to time a few steps of each method on each task for that, as far as no run tells.
        price_per_hour: of this machine.
        console: where progress is shown.

    Raises:
        UserError: the study, its data or a result does not work, or runs failed; then everything else is done.
        Interrupted, KeyboardInterrupt: a signal such as Ctrl-C asked for the end; the same command goes on.
    """
    console = console or Console(quiet=True)
    refuse_several_processes()
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: at least one process has to run")
    if gpus < 0 or (gpus and ray is None):
        raise UserError(
            f"--gpus {gpus:g}: give a number above 0, and --ray; without it, runs use the GPU that is there"
        )
    if hours is not None and not hours > 0:
        raise UserError(f"--hours {hours}: give a time above 0, or leave it out")
    if price_per_hour is not None and not (price_per_hour > 0 and dry_run):
        raise UserError(f"--price-per-hour {price_per_hour}: give a price above 0, and --dry-run")
    if dry_run and ray is not None:
        raise UserError(
            f"--ray {ray}: --dry-run takes its times on this machine; leave --ray out, and say with --jobs how many "
            "runs there is room for"
        )
    methods, tasks = plan.matching(only, task)
    until = math.inf if hours is None else time.monotonic() + 3600 * hours
    work.mkdir(parents=True, exist_ok=True)
    with locked(work, f"the folder {str(work)!r}"):
        pairs = [Pair(name, label, method) for (label, method), name in product(methods.items(), tasks)]
        runner = Runner(plan, results, work, pairs, plan.seeds[:1] if first_seed_only else plan.seeds, keep_runs)
        if dry_run:
            tell(runner, jobs or 1, console, timing=timing, price=price_per_hour)
        else:
            places: JobPool = Workers(jobs or 1) if ray is None else RayWorkers(ray, work, jobs, gpus)
            _carry_out(runner, places, until, console)


def _carry_out(runner: Runner, places: JobPool, until: float, console: Console) -> None:
    """Run what is left. Raises `UserError` at the end where some failed."""
    steps = runner.steps()
    if not steps:
        console.print(f"all {runner.done()} runs and test scores are done", highlight=False)
        return
    begun: dict[str, tuple[Step, float]] = {}
    interrupted, over, told = None, False, False
    with places as workers:
        clock = Clock(runner, workers.count)
        console.print(clock.first_line(), highlight=False, soft_wrap=True)
        while True:
            if not over and time.monotonic() >= until:
                over = True
                workers.stop()
            stopping = over or interrupted or workers.signals
            waiting = [] if stopping else [step for step in steps if step.name not in begun]
            for step in waiting[: workers.free]:
                workers.start(step.name, step.job)
                begun[step.name] = (step, time.monotonic())
            if not begun and not waiting:
                break
            if not begun:  # machines of a cluster come and go
                if not told:
                    console.print("there is no room for a run at the moment: waiting for it", highlight=False)
                told = True
                time.sleep(max(0.0, min(_LOOK_AGAIN, until - time.monotonic())))
                continue
            for name, outcome in workers.wait(
                None if over or until == math.inf else max(0.0, until - time.monotonic())
            ):
                step, since = begun.pop(name)
                if outcome.kind == "interrupted":
                    interrupted = outcome if interrupted is None or outcome.step is not None else interrupted
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
        rest = f"{clock.left()} runs and test scores are left" if steps else "all else is done"
        raise UserError(f"{count} failed, {rest}; the same command tries again: {reasons}")
    if over and steps:
        console.print(f"the time is over, about {clock.left()} runs and test scores are left; the same command goes on")
