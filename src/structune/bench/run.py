"""Running a suite: case after case, each kept as soon as it is finished."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from structune.bench.budget import expected_peak
from structune.bench.csv_file import to_csv
from structune.bench.machine import commit, device_slug, in_words, machine, package_versions
from structune.bench.measure import measure_case
from structune.bench.results import CaseResult, Results
from structune.bench.suite import Case, Suite, load_suite
from structune.bench.terminal import print_results
from structune.errors import UserError
from structune.files import write_text
from structune.finetune.run_folder.place import check_writable
from structune.finetune.stopping.resume import refuse_both, resume_line

RESULTS = Path("benchmarks/results")


def bench(
    suite: str | Path = "layer",
    *,
    quick: bool = False,
    out: Path | None = None,
    cases: str | None = None,
    methods: Sequence[str] = (),
    rounds: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> Path:
    """Measure a suite and write `SUITE-DEVICE.json` and `.csv`.

    Cases that are finished wait in `SUITE-DEVICE.partial.json` until the last one is. A quick run, and a run of some
    cases or methods only, is written under a name of its own (`-quick`, `-part`) and so never replaces whole results.

    Args:
        suite: name of one that comes with structune, or a YAML file.
        quick: its small sizes and few rounds.
        out: folder of the results; benchmarks/results by default.
        cases: only cases whose name has this text (`*` for anything) in it.
        methods: only these, and the frozen layer.
        rounds: how often each method is timed, in place of the suite's.
        device: where; `auto` takes a GPU if there is one.
        resume: go on with a run that was stopped: same suite, machine, versions and commit only.
        overwrite: forget a run that was stopped.
        console: where progress and tables are shown.

    Returns:
        the JSON file.

    Raises:
        UserError: an argument or the suite does not work, and nothing was measured.
        KeyboardInterrupt: the user pressed Ctrl-C; how to go on was said.
    """
    console = console or Console()
    refuse_both(resume, overwrite)
    kind = _device(device)
    settings = _narrowed(load_suite(suite, quick), cases, methods, rounds)
    here = machine(kind)
    stem = f"{settings.name}-{device_slug(kind, here)}" + ("-part" if cases or methods else "") + quick * "-quick"
    out = out or RESULTS
    path, partial = out / f"{stem}.json", out / f"{stem}.partial.json"
    where = f"--out {str(out)!r}"
    check_writable(out, where)
    for there in (path, path.with_suffix(".csv")):
        if there.exists() and not _measured(path):
            raise UserError(
                f"{where}: {there.name} there is no result of a benchmark; move it, or choose another --out"
            )
    results = Results(
        suite=settings.model_dump(mode="json"),
        device=kind,
        machine=here,
        versions=package_versions(),
        commit=commit(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        cases=[],
    )
    if resume and not partial.exists():
        raise UserError(f"--resume: {partial} does not exist, so there is nothing to go on with")
    if resume:
        stopped = Results.load(partial)
        stopped.check_goes_on(results, partial)
        results = stopped
    elif partial.exists() and not overwrite:
        raise UserError(f"{partial}: a run that was stopped; use --resume to go on with it, or --overwrite")

    _announce(settings, results, console)
    try:
        with torch.random.fork_rng(devices=[]):
            results = _carry_out(settings, results, partial, console)
    except KeyboardInterrupt:
        if results.cases or partial.exists():
            line = _resume_line(suite, quick, out, cases, methods, rounds, device)
            console.print(escape(line), soft_wrap=True, highlight=False)
        raise
    results.save(path)
    write_text(path.with_suffix(".csv"), to_csv(results))
    partial.unlink(missing_ok=True)
    print_results(results, console)
    console.print(f"\nsaved in {escape(str(path))} and .csv", highlight=False, soft_wrap=True)
    return path


def _measured(path: Path) -> bool:
    """Whether a file holds results, which new ones may replace."""
    try:
        return {"suite", "machine", "cases"} <= json.loads(path.read_text(encoding="utf-8")).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _device(asked: str) -> Literal["cpu", "cuda"]:
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here; use --device cpu")
    return "cuda" if asked == "cuda" or (asked == "auto" and torch.cuda.is_available()) else "cpu"


def _narrowed(suite: Suite, cases: str | None, methods: Sequence[str], rounds: int | None) -> Suite:
    """The suite with some of its cases and methods, and other rounds."""
    changes: dict[str, object] = {}
    if rounds is not None:
        if rounds < 1:
            raise UserError(f"--rounds {rounds}: give at least 1")
        changes["rounds"] = rounds
    if methods:
        changes["methods"] = list(methods)
    if cases:
        chosen = [case for case in suite.all_cases if fnmatchcase(case.name, f"*{cases}*")]
        if not chosen:
            raise UserError(f"--cases {cases!r}: no such case; they are {'; '.join(c.name for c in suite.all_cases)}")
        changes["cases"] = chosen
    narrowed = suite.model_copy(update=changes)
    narrowed.rows()  # a mistake in a name is told now
    return narrowed


def _carry_out(suite: Suite, results: Results, partial: Path, console: Console) -> Results:
    """Measure what is not in `results` yet."""
    methods = suite.rows()
    done = {case.name for case in results.cases}
    bar = _Bar(suite, console)
    with bar.progress:
        for number, case in enumerate(suite.all_cases, start=1):
            bar.begin(case, f"case {number} of {len(suite.all_cases)}  {case.name}")
            if case.name not in done:
                expected = {method.label: _expected(suite, results.cases, case, method.label) for method in methods}
                measured = measure_case(
                    suite, case, methods, results.device,
                    {label: peak for label, peak in expected.items() if peak is not None}, bar.advance,
                )  # fmt: skip
                results = results.model_copy(update={"cases": [*results.cases, measured]})
                results.save(partial)
            bar.end()
    return results


def _expected(suite: Suite, finished: Sequence[CaseResult], case: Case, method: str) -> int | None:
    by_name = {other.name: other for other in suite.all_cases}
    rows = [(by_name[result.name], row) for result in finished if (row := result.row(method)) is not None]
    return expected_peak(case, [(other, row.peak) for other, row in rows if row.peak is not None])


class _Bar:
    """Progress over all cases, weighed by their work, with an estimate of the time left."""

    def __init__(self, suite: Suite, console: Console) -> None:
        heaviest = max(case.work for case in suite.all_cases)
        self.weights = {case.name: 0.05 + case.work / heaviest for case in suite.all_cases}
        self.finished = 0.0
        self.weight = 0.0
        self.progress = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn(), TextColumn("left"),
            TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self.task: TaskID = self.progress.add_task("", total=sum(self.weights.values()))

    def begin(self, case: Case, heading: str) -> None:
        self.weight = self.weights[case.name]
        self.progress.update(self.task, description=escape(heading))

    def advance(self, share: float) -> None:
        self.progress.advance(self.task, share * self.weight)

    def end(self) -> None:
        self.finished += self.weight
        self.progress.update(self.task, completed=self.finished)


def _announce(suite: Suite, results: Results, console: Console) -> None:
    count = len(suite.all_cases)
    cases = f"{count} case{'s' if count > 1 else ''}" + (f", {len(results.cases)} kept" if results.cases else "")
    console.print(
        f"[bold]{escape(suite.title)}[/]\n"
        f"[dim]{escape(in_words(results.machine))}: {len(suite.rows())} methods, {cases}, {suite.rounds} rounds[/]",
        highlight=False,
    )


def _resume_line(
    suite: str | Path,
    quick: bool,
    out: Path,
    cases: str | None,
    methods: Sequence[str],
    rounds: int | None,
    device: str,
) -> str:
    words = ["bench", str(suite), *(["--quick"] if quick else []), "--out", str(out)]
    words += ["--cases", cases] if cases else []
    words += ["--methods", ",".join(methods)] if methods else []
    words += ["--rounds", str(rounds)] if rounds else []
    words += ["--device", device] if device != "auto" else []
    return resume_line(words)
