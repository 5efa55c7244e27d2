"""What several runs measured, side by side: as rows, as JSON, as Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from structune.errors import UserError
from structune.finetune.markdown import markdown_row, markdown_table
from structune.finetune.run_folder.fingerprint import Fingerprint
from structune.finetune.run_folder.reported import CHOSEN_BY, TEST, Reported, reported
from structune.finetune.run_folder.run import Run
from structune.tasks.task import Metric

RESULTS = ("comparison.json", "comparison.md", "comparison.png")
"""The files of a comparison; the first is written first."""

COSTS = ["trained, adapter", "trained, head", "adapter kB", "s/step", "peak MiB"]
"""The columns of a comparison's table behind the method and its score."""


@dataclass(frozen=True)
class Row:
    """One method: means over its runs, which differ in the seed alone.

    Attributes:
        method: short name.
        metric: the task's headline metric.
        score: its value on the test part where every run has one, else on the held-out examples.
        deviation: sample standard deviation of the score over the seeds; None for one seed.
        error: standard error of one run's score as an estimate from its held-out examples; None where not known.
        trainable_adapter, trainable_head: trained numbers.
        adapter_bytes: of the adapter's tensors as a safetensors file, without the head.
        seconds_per_step: of an optimizer step.
        peak_memory_bytes: as `metrics.json` describes.
        runs: each run's folder and metrics.
    """

    method: str
    metric: Metric
    score: float
    deviation: float | None
    error: float | None
    trainable_adapter: int
    trainable_head: int
    adapter_bytes: int
    seconds_per_step: float
    peak_memory_bytes: float
    runs: list[dict[str, Any]]

    @classmethod
    def of(cls, method: str, runs: Sequence[Run], part: Reported | None = None) -> Row:
        """Read the metrics of finished runs, and the scores of this part; by default of what they all report."""
        metrics = [run.metrics() for run in runs]
        part = part or reported(*metrics)
        metric = runs[0].recipe().task.metrics[0]
        scores = [part.score(entry, metric) for entry in metrics]
        score = statistics.mean(scores)
        return cls(
            method=method,
            metric=metric,
            score=score,
            deviation=statistics.stdev(scores) if len(runs) > 1 else None,
            error=metric.standard_error(score, part.examples(metrics[0])),
            trainable_adapter=metrics[0]["trainable_adapter"],
            trainable_head=metrics[0]["trainable_head"],
            adapter_bytes=metrics[0]["adapter_bytes"],
            seconds_per_step=statistics.mean(entry["seconds_per_step"] for entry in metrics),
            peak_memory_bytes=statistics.mean(entry["peak_memory_bytes"] for entry in metrics),
            runs=[{"folder": run.folder.name, **entry} for run, entry in zip(runs, metrics, strict=True)],
        )

    def cells(self) -> list[str]:
        """The row as text: the method, its score, and `COSTS`."""
        spread = "" if self.deviation is None else f" ± {self.metric.plain(self.deviation)}"
        return [
            self.method,
            f"{self.metric.plain(self.score)}{spread}",
            f"{self.trainable_adapter:,}",
            f"{self.trainable_head:,}",
            f"{self.adapter_bytes / 1e3:,.1f}" if self.trainable_adapter else "–",
            f"{self.seconds_per_step:.3f}",
            f"{self.peak_memory_bytes / 2**20:,.0f}",
        ]


@dataclass(frozen=True)
class Comparison:
    """Methods on the same data with the same budget.

    Attributes:
        name: of the recipe.
        rows: one a method, in the order asked for.
        versions: of the machine and the packages; where runs differ, all that occur.
        diverged: by method, the folders of runs whose numbers ran away.
        recorded: whether every run has a record of its data, by which they are known to be the same.
    """

    name: str
    rows: list[Row]
    versions: dict[str, str]
    diverged: Mapping[str, list[str]] = field(default_factory=dict)
    recorded: bool = True

    @classmethod
    def of(
        cls, name: str, runs: Mapping[str, list[Run]], diverged: Mapping[str, list[str]] | None = None
    ) -> Comparison:
        """Put the finished runs of each method together.

        Raises:
            UserError: they were trained or evaluated on different data.
        """
        recorded = _check_same_data([run for group in runs.values() for run in group])
        part = reported(*(run.metrics() for group in runs.values() for run in group))
        stored = [run.machine() for group in runs.values() for run in group]
        keys = dict.fromkeys(key for versions in stored for key in versions)
        return cls(
            name,
            [Row.of(method, group, part) for method, group in runs.items()],
            {key: " and ".join(dict.fromkeys(str(versions.get(key)) for versions in stored)) for key in keys},
            dict(diverged or {}),
            recorded,
        )

    @property
    def metric(self) -> Metric:
        """What methods are compared by."""
        return self.rows[0].metric

    @property
    def part(self) -> Reported:
        """What the scores are on."""
        return reported(*(run for row in self.rows for run in row.runs))

    def columns(self) -> list[str]:
        """The titles of the table's columns."""
        return ["method", self.metric.unit_title, *COSTS]

    def lines(self) -> list[list[str]]:
        """The table's lines, in the order of `columns`: a row each, then the methods of which no run finished."""
        there = [row.method for row in self.rows]
        nothing = ["diverged", *["–"] * len(COSTS)]
        return [row.cells() for row in self.rows] + [[name, *nothing] for name in self.diverged if name not in there]

    def notes(self) -> list[str]:
        """What the numbers rest on, a sentence or two each."""
        first = self.rows[0].runs[0]
        tested = f", {first['test_examples']:,} to test on" if self.part is TEST else ""
        seeds = [str(seed) for seed in sorted({run["seed"] for row in self.rows for run in row.runs})]
        errors = [row.error for row in self.rows if row.error is not None]
        return [
            f"{first['train_examples']:,} examples to train on, {first['steps']:,} steps, "
            f"{first['eval_examples']:,} held out{tested}; {'seeds' if len(seeds) > 1 else 'seed'} {', '.join(seeds)}.",
            *(
                [f"For comparison, {blind['words']}: {self.metric.title} {self.metric.text(blind['value'])}."]
                if (blind := first.get(self.part.baseline))
                else []  # not known, or runs from before that was measured
            ),
            *(
                [f"With so many {self.part.words} examples {self.metric.title} has a standard error of up to {worst}."]
                if errors and (worst := f"{self.metric.plain(max(errors))}{' points' if self.metric.percent else ''}")
                else []
            ),
            *([] if self.part is TEST else [CHOSEN_BY]),
            *(["± is the standard deviation over the seeds."] if len(seeds) > 1 else []),
            *([] if self.metric.greater_is_better else [f"Less {self.metric.title} is better."]),
            f"Times ({first['device']}, {first['dtype']}) depend on the machine and on what else runs there: compare "
            f"their ratios. Memory is {first['peak_memory_kind']}.",
            *(
                f"{name}: the numbers of {', '.join(folders)} ran away; no score of it is in the table."
                for name, folders in self.diverged.items()
            ),
            *(
                []
                if self.recorded
                else ["Some runs have no record of their data: that they are the same is not checked."]
            ),
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything, as `comparison.json` holds it."""
        diverged = {"diverged": dict(self.diverged)} if self.diverged else {}
        methods = [asdict(row) | {"metric": row.metric.key} for row in self.rows]
        return {"name": self.name, "part": self.part.key, "methods": methods, **diverged, "versions": self.versions}

    def to_markdown(self) -> str:
        """A page with the table, what it rests on, the figure, the machine and the versions."""
        lines = [f"# {self.name}: {len(self.lines())} methods compared", ""]
        lines += [markdown_table(self.columns(), self.lines())]
        lines += ["", *self.notes(), "", "![score and cost](comparison.png)", ""]
        lines += ["| | |", "|---|---|", *(markdown_row([key, value]) for key, value in self.versions.items())]
        return "\n".join(lines) + "\n"


def is_comparison(path: Path) -> bool:
    """Whether a file is a `comparison.json`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"name", "methods", "versions"} <= content.keys()


def _check_same_data(runs: Sequence[Run]) -> bool:
    """Whether every run has a record of its data.

    Raises:
        UserError: the data differ, by the records or by the numbers of rows.
    """
    records = {run: Fingerprint.load(run.data_file) for run in runs}
    known = [(run, record) for run, record in records.items() if record is not None]
    for run, record in known[1:]:
        first, before = known[0]
        if record.digest() != before.digest():
            names = (f"in {first.folder.name}", f"in {run.folder.name}")
            raise _different(first, run, "; ".join(before.changes(record, words=names)))
    first = runs[0]
    for run in runs[1:]:
        for key in ("train_examples", "eval_examples", "test_examples"):
            one, other = first.metrics().get(key), run.metrics().get(key)
            if one != other:
                raise _different(first, run, f"{key}: {one} and {other}")
    return len(known) == len(runs)


def _different(one: Run, other: Run, what: str) -> UserError:
    return UserError(
        f"{one.folder.name} and {other.folder.name} are runs on different data ({what}): they cannot stand in one "
        f"table; train them again on the same, with --overwrite"
    )
