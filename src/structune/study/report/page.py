"""`structune report`: the page, its figures as PNG, its tables as Markdown, and all runs as Parquet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from structune import __version__
from structune.errors import UserError
from structune.files import write_bytes, write_text
from structune.study.report import findings
from structune.study.report.against import Against, against
from structune.study.report.cells import Cell, by_label, cells
from structune.study.report.doubts import doubts
from structune.study.report.figures.axes import sign, task_looks
from structune.study.report.figures.contrast import readable
from structune.study.report.figures.costs import draw_costs
from structune.study.report.figures.critical_difference import draw_critical_difference
from structune.study.report.figures.drawn import Drawn, variable
from structune.study.report.figures.scores import draw_scores
from structune.study.report.figures.small import curves, draw_curves, draw_rates, limits, validation_curves
from structune.study.report.line_looks import line_looks
from structune.study.report.machines import Cost, costs, machines
from structune.study.report.one_rate import at_rates
from structune.study.report.optimum import Optimum, optimum
from structune.study.report.ranks import ranked
from structune.study.report.reference import reference_label
from structune.study.report.runs_table import write_runs
from structune.study.report.score_text import factor, titled
from structune.study.report.tables import (
    Table,
    against_table,
    machine_table,
    one_rate_table,
    state_table,
    task_table,
    whole_table,
)
from structune.study.results.counted import summaries
from structune.study.results.files import Results
from structune.study.study_file import Study

PAGE, TABLES, RUNS, FIGURES = "report.html", "tables.md", "runs.parquet", "figures"

LIGHT, DARK = "#ffffff", "#14171a"
"""The papers of the page, which `style.css` names too."""


class Shown(NamedTuple):
    """A figure, where there is something to draw, and what stands beside it."""

    figure: Drawn | None
    heading: str
    notes: list[str]


def write_report(plan: Study, results: Results, out: Path, command: str, reference: str | None = None) -> Path:
    """Write a report into a folder, and give its page.

    Args:
        plan: the study.
        results: what was run.
        out: the folder; files of other names stay.
        command: which made it.
        reference: label of the method that others are measured against; by default the first LoRA of the file.

    Raises:
        UserError: nothing was run yet, there is no such method, or a file cannot be written.
    """
    known = list(cells(plan, results))
    if not any(cell.runs for cell in known):
        folders = ", ".join(str(folder) for folder in (results.folder, *results.others))
        others = (
            f"; {count} results are of other seeds or rates" if (count := sum(len(c.left_out) for c in known)) else ""
        )
        raise UserError(
            f"{folders}: no run of the study {plan.name!r} has a result there{others}; run `structune study` first"
        )
    beaten = reference_label(plan, reference)
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {str(out)!r}: is a file; name a folder")
    content = _content(plan, results, known, beaten) | {"command": command}
    try:
        for figure in content["figures"]:
            write_bytes(out / FIGURES / f"{figure.name}.png", figure.png)
        write_text(out / TABLES, _markdown(plan.name, content))
        write_runs(known, out / RUNS)
        write_text(out / PAGE, _rendered(content))
    except OSError as error:
        raise UserError(f"--out {str(out)!r}: cannot be written ({error.strerror}); name another folder") from None
    return out / PAGE


def _content(plan: Study, results: Results, known: list[Cell], reference: str | None) -> dict[str, Any]:
    """Everything that the page says."""
    metrics, looks, tasks = plan.scores(), line_looks(plan), list(plan.tasks)
    compared = None if reference is None else against(known, reference)
    ranks = ranked(known)
    found = {(cell.task, cell.label): optimum(cell.tries, cell.metric, cell.fixed) for cell in known if cell.tries}
    names = _Names()
    rows = list(summaries(plan, results))
    scores = []
    for task, metric in metrics.items():
        own = [row for row in rows if row["task"] == task]
        heading = findings.best(task, known, compared)
        several = len(own) > 1
        figure = draw_scores(own, metric, looks, reference, names.of(f"scores {task}"), heading) if several else None
        scores.append(Shown(figure, heading, []))
    diagram = None
    if ranks.drawn:
        diagram = draw_critical_difference(ranks, names.of("critical difference"), ranks.said)
    at = at_rates(known)
    rates = list(_rates(known, tasks, found, names))
    losses = list(_losses(known, tasks, reference, names))
    spent = list(_costs(known, tasks, reference, names))
    figures = [one.figure for one in (*scores, *rates, *losses, *spent) if one.figure is not None]
    figures += [] if diagram is None else [diagram]
    legend = [(task, variable(colour.lower()), sign(marker)) for task, (colour, marker) in task_looks(tasks).items()]
    colours = {colour.lower() for colour, _ in task_looks(tasks).values()}.union(*(one.colours for one in figures))
    overall = _overall(compared)
    lead = [*findings.leaders(known), *(heading for heading, _, _ in overall[:1]), findings.rates(found)]
    return {
        "lead": lead, "plan": plan, "units": findings.units(metrics), "task_names": tasks,
        "reference": reference, "progress": findings.progress(known), "done": all(cell.done for cell in known),
        "uneven": findings.uneven_seeds(known), "doubts": list(doubts(plan, known, results)),
        "states": state_table(known), "scores": scores,
        "kinds": list(dict.fromkeys(line.name for line in looks.values())), "against": overall,
        "whole": whole_table(known, looks, compared), "interval_notes": findings.interval_notes(known),
        "tasks": task_table(known, ranks),
        "ranks": ranks, "diagram": diagram, "rates_heading": findings.rates(found), "rates": rates,
        "one_rate": [(findings.one_rate(at), one_rate_table(at), findings.one_rate_notes(at))] if at else [],
        "losses_heading": findings.losses(known), "losses": losses, "costs": spent,
        "machines": machine_table(machines(known)), "figures": figures, "legend": legend, "version": __version__,
        "light": _variables(colours, LIGHT), "dark": _variables(colours, DARK),
    }  # fmt: skip


def _overall(compared: Against | None) -> list[tuple[str, Table, list[str]]]:
    """Heading, table and notes: over all tasks, then task by task."""
    if compared is None or not compared.each:
        return []
    found = []
    tasks = {task for one in compared.each for task in one.tasks}
    where = ", task by task" if len(tasks) > 1 else f" on {next(iter(tasks))}"
    for own, said in ((compared.overall, " over all tasks"), (compared.each, where)):
        if own:
            heading = findings.verdicts(own, compared.reference, said)
            table = against_table(own, several=own is compared.overall)
            found.append((heading, table, findings.unseen(own)))
    found[-1][2].extend(findings.against_notes(compared))
    return found


class _Names:
    """Names of files and ids, each given once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def of(self, words: str) -> str:
        """Of what is drawn."""
        plain = re.sub(r"[^A-Za-z0-9.=]+", "-", words).strip("-.") or "figure"
        name, number = plain, 1
        while name.lower() in self._given:  # some file systems do not tell cases apart
            number += 1
            name = f"{plain}-{number}"
        self._given.add(name.lower())
        return name


def _rates(
    known: Sequence[Cell], tasks: Sequence[str], found: Mapping[tuple[str, str], Optimum], names: _Names
) -> Iterator[Shown]:
    """A panel for each method and unit of scores; all panels of a unit have one axis."""
    units: dict[str, list[Cell]] = {}
    for cell in known:
        if cell.tries:
            units.setdefault("× 100" if factor(cell.metric) > 1 else titled(cell.metric), []).append(cell)
    for unit, own in units.items():
        fine = [factor(cell.metric) * one.score for cell in own for one in cell.tries if one.score is not None]
        height = limits(fine) if fine else (0.0, 1.0)
        for label, group in by_label(own).items():
            sentences: dict[str, list[str]] = {}
            for cell in group:
                sentences.setdefault(found[cell.task, label].said(), []).append(cell.task)
            several = len(tasks) > 1
            notes = [f"{', '.join(where)}: {said}" if several else said for said, where in sentences.items()]
            heading = label if len(units) == 1 else f"{label}, {unit}"
            words = f"Validation score of {label} by learning rate. {' '.join(notes)}"
            yield Shown(draw_rates(group, tasks, height, names.of(f"rates {heading}"), words), heading, notes)


def _losses(known: Sequence[Cell], tasks: Sequence[str], reference: str | None, names: _Names) -> Iterator[Shown]:
    """A panel for each method whose runs have losses; all have one axis."""
    own = [cell for cell in known if curves(cell)]
    values = [loss for cell in own for curve in (*curves(cell), *validation_curves(cell)) for _, loss in curve]
    beaten = {cell.task: cell for cell in own if cell.label == reference}
    for label, group in by_label(own).items():
        rings = ", and the validation loss as rings" if any(validation_curves(cell) for cell in group) else ""
        words = f"Training loss of {label} by step, a line a seed{rings}"
        name = names.of(f"losses {label}")
        yield Shown(draw_curves(group, beaten, tasks, limits(values), name, words), label, [])


def _costs(known: Sequence[Cell], tasks: Sequence[str], reference: str | None, names: _Names) -> Iterator[Shown]:
    """A figure for each device on which several methods were run."""
    by_device: dict[str, list[Cost]] = {}
    for cost in costs(known):
        by_device.setdefault(cost.device, []).append(cost)
    for device, found in by_device.items():
        heading = findings.costs_of(device, found, reference)
        yield Shown(draw_costs(found, tasks, names.of(f"costs {device}"), heading), heading, [])


def _variables(colours: set[str], paper: str) -> str:
    """The colours of figures as CSS variables, such that they can be told from the paper."""
    own = {colour: name for colour in sorted(colours) if (name := variable(colour)).startswith("--c-")}
    return " ".join(f"{name}: {readable(colour, paper, 3.0)};" for colour, name in own.items())


def _rendered(content: Mapping[str, Any]) -> str:
    """The page. What comes from a study is escaped; only this package's own files and figures are not."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    raw = {name: Markup((here / file).read_text(encoding="utf-8")) for name, file in _OWN.items()}
    return environment.get_template("template.html").render(content, svg=lambda one: Markup(one.svg), **raw) + "\n"


_OWN = {"style": "style.css", "script": "table.js"}


def _markdown(name: str, content: Mapping[str, Any]) -> str:
    """All tables."""
    parts = [f"# {name}", content["progress"] + ".", content["uneven"], *content["doubts"]]
    parts += ["## Every method on every task", content["whole"].markdown(), *content["interval_notes"]]
    parts += _sections(content["against"])
    parts += ["## By task", content["tasks"].markdown(), content["ranks"].said]
    rates = "\n".join(f"- {one.heading}: {' '.join(one.notes)}" for one in content["rates"])
    parts += [f"## {content['rates_heading']}", rates]
    parts += _sections(content["one_rate"])
    parts += ["## What was run where", content["machines"].markdown()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sections(found: Sequence[tuple[str, Table, list[str]]]) -> Iterator[str]:
    """Heading, table and notes of each."""
    for heading, table, notes in found:
        yield from (f"## {heading}", table.markdown(), *notes)
