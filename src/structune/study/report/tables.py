"""Tables of a report: on its page, where they are sorted and filtered, and as Markdown."""

from __future__ import annotations

import math
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from structune.finetune.markdown import markdown_table
from structune.study.report.against import Against, Compared
from structune.study.report.cells import Cell, said
from structune.study.report.line_looks import Line
from structune.study.report.machines import Machine, device
from structune.study.report.one_rate import AtRate, cost
from structune.study.report.ranks import Ranks
from structune.study.report.score_text import factor, number, spread
from structune.study.report.statistics import Interval, bootstrap_interval, t_interval
from structune.tasks.task import Metric

NOTHING = "–"


@dataclass(frozen=True)
class Entry:
    """What stands in a cell, and the number that it is sorted by; None: by its text, or last where that is a dash."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: their titles; text stands on the left, numbers on the right.
        rows: entries in that order.
        numeric: which columns hold numbers.
        tags: of each row, by what it can be chosen: `task` and `kind`.
    """

    columns: list[str]
    rows: list[list[Entry]]
    numeric: list[bool]
    tags: list[dict[str, str]] = field(default_factory=list)

    def markdown(self) -> str:
        """The table without its colours."""
        return markdown_table(self.columns, [[entry.text for entry in row] for row in self.rows])


def _table(columns: Sequence[str], rows: list[list[Entry]], tags: list[dict[str, str]] | None = None) -> Table:
    numeric = [
        any(row[place].value is not None for row in rows)
        and all(row[place].value is not None or row[place].text == NOTHING for row in rows)
        for place in range(len(columns))
    ]
    return Table(list(columns), rows, numeric, tags or [{} for _ in rows])


def whole_table(cells: Sequence[Cell], looks: Mapping[str, Line], against: Against | None) -> Table:
    """Every method on every task, with all that is known of it."""
    beaten = [] if against is None else [f"against {against.reference}", "verdict"]
    cells = sorted(cells, key=lambda cell: not cell.seeds)
    columns = [
        "method", "task", "state", "test score", "95 % interval by t", "by bootstrap", "seeds", *beaten,
        "trained numbers", "adapter kB", "rate", "validation", "s/step", "peak MiB", "device",
    ]  # fmt: skip
    rows = [_row(cell, against) for cell in cells]
    return _table(columns, rows, [{"task": cell.task, "kind": looks[cell.label].name} for cell in cells])


def _row(cell: Cell, against: Against | None) -> list[Entry]:
    names = [Entry(cell.label), Entry(cell.task), Entry(cell.state())]
    compared = None if against is None else against.of(cell)
    verdict = [] if against is None else [_gain(compared), Entry(NOTHING if compared is None else compared.said())]
    if against is not None and cell.seeds and cell.label == against.reference:
        verdict = [Entry(NOTHING), Entry("the reference")]
    if not cell.seeds:
        return [*names, *[Entry(NOTHING)] * 4, *verdict, *[Entry(NOTHING)] * 7]
    scores, runs = list(cell.seeds.values()), cell.scored
    where, _ = Counter(device(run) for run in runs).most_common(1)[0]
    there = [run for run in runs if device(run) == where]
    seconds = [run["seconds_per_step"] for run in there if "seconds_per_step" in run]
    memory = [run["peak_memory_bytes"] / 2**20 for run in there if "peak_memory_bytes" in run]
    kept = runs[0].get("adapter_bytes")
    validation = [run["validation"][cell.metric.key] for run in runs]
    return [
        *names,
        Entry(number(cell.score, cell.metric), factor(cell.metric) * cell.score),
        _interval(t_interval(scores), cell.metric, len(scores)),
        _interval(bootstrap_interval(scores), cell.metric, len(scores)),
        Entry(", ".join(map(str, cell.seeds)), len(scores)),
        *verdict,
        Entry(f"{cell.numbers:,}", cell.numbers),
        Entry(NOTHING) if kept is None else Entry(f"{kept / 1e3:,.1f}", kept),
        Entry(said(cell.point), cell.scored[0]["rate"]),
        Entry(spread(validation, cell.metric), factor(cell.metric) * statistics.fmean(validation)),
        Entry(NOTHING) if not seconds else Entry(f"{statistics.median(seconds):.3f}", statistics.median(seconds)),
        Entry(NOTHING) if not memory else Entry(f"{statistics.median(memory):,.0f}", statistics.median(memory)),
        Entry(where),
    ]


def _interval(found: Interval | None, metric: Metric, count: int) -> Entry:
    if found is None:
        return Entry("one seed" if count == 1 else "all the same")
    text = f"{number(found.low, metric)} to {number(found.high, metric)}"
    return Entry(text, factor(metric) * found.low)


def _gain(compared: Compared | None) -> Entry:
    if compared is None or math.isnan(compared.gain.mean):
        return Entry(NOTHING)
    return Entry(compared.shown(), factor(compared.metric) * compared.gain.mean)


def against_table(compared: Sequence[Compared], several: bool) -> Table:
    """Comparisons with the reference, from the largest gain on.

    Args:
        compared: what is shown.
        several: whether each is over several tasks; then their number is shown, else the task.
    """
    columns = ["method", "tasks" if several else "task", "better by", "95 % interval", "pairs", "p (Holm)", "verdict"]
    rows = []
    for one in sorted(compared, key=lambda one: -one.gain.mean if one.gain.pairs else math.inf):
        between = NOTHING if one.gain.interval is None else _interval(one.gain.interval, one.metric, 2).text
        tasks = Entry(str(len(one.tasks)), len(one.tasks)) if several else Entry(one.tasks[0])
        verdict = one.verdict if one.p is not None else one.said()
        rows.append(
            [
                Entry(one.label), tasks, _gain(one), Entry(between), Entry(str(one.gain.pairs), one.gain.pairs),
                Entry(NOTHING) if one.p is None else Entry(f"{one.p:.3f}" if one.p >= 0.001 else "< 0.001", one.p),
                Entry(verdict),
            ]
        )  # fmt: skip
    return _table(columns, rows)


def task_table(cells: Sequence[Cell], ranks: Ranks) -> Table:
    """Mean scores, a column a task, with mean ranks where methods were scored on the same tasks."""
    scores = {(cell.task, cell.label): cell for cell in cells if cell.seeds}
    labels = dict.fromkeys(cell.label for cell in cells if cell.seeds)
    rank = dict(zip(ranks.labels, ranks.ranks, strict=True)) if len(ranks.labels) > 1 else {}
    order = sorted(labels, key=lambda label: rank.get(label, math.inf))
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    rows = []
    for label in order:
        row = [Entry(label)]
        for task in tasks:
            cell = scores.get((task, label))
            row.append(
                Entry(NOTHING) if cell is None else Entry(spread(list(cell.seeds.values()), cell.metric), cell.score)
            )
        if rank:
            row.append(Entry(f"{rank[label]:.2f}", rank[label]) if label in rank else Entry(NOTHING))
        rows.append(row)
    return _table(["method", *tasks, *(["mean rank"] if rank else [])], rows)


def state_table(cells: Sequence[Cell]) -> Table:
    """How far every method is on every task."""
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    states = {(cell.task, cell.label): cell.state() for cell in cells}
    labels = dict.fromkeys(cell.label for cell in cells)
    rows = [[Entry(label), *(Entry(states[task, label]) for task in tasks)] for label in labels]
    return _table(["method", *tasks], rows)


def one_rate_table(found: Sequence[AtRate]) -> Table:
    """How far every method is below its best on average at each rate, a column a rate, and in brackets at most."""
    rates = sorted({one.rate for one in found})
    known = {(one.label, one.rate): one for one in found}
    tasks = {one.label: one.tasks for one in found}
    rows = [
        [Entry(label), Entry(str(count), count), *(_below(known.get((label, rate))) for rate in rates)]
        for label, count in tasks.items()
    ]
    return _table(["method", "tasks", *(f"{rate:.3g}" for rate in rates)], rows)


def _below(one: AtRate | None) -> Entry:
    if one is None:
        return Entry(NOTHING)
    if math.isinf(one.mean):
        return Entry("ran away", sys.float_info.max)  # a number that a page can sort by
    return Entry(f"{cost(one.mean)} ({cost(one.most)})" if one.tasks > 1 else cost(one.mean), one.mean)


def machine_table(found: Sequence[Machine]) -> Table:
    """What was run where."""
    rows = [
        [
            Entry(one.name), Entry(f"{one.runs:,}", one.runs), Entry(one.time(), one.seconds),
            Entry(one.dates), Entry(one.versions),
        ]
        for one in found
    ]  # fmt: skip
    return _table(["device", "runs", "training time in all", "dates", "versions"], rows)
