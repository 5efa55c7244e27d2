"""One recipe with several methods: a run each, then a table and a figure."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from structune.finetune.data import load_data
from structune.finetune.encode import warn_of_cut_texts
from structune.finetune.errors import Interrupted, UserError
from structune.finetune.files import write_json, write_text
from structune.finetune.importing import without_remarks
from structune.finetune.methods import preset
from structune.finetune.recipe import Recipe
from structune.finetune.run import Run
from structune.finetune.tables import print_table
from structune.study.comparison import COLUMNS, Comparison
from structune.study.own_process import train_in_own_process
from structune.study.tradeoff_figure import draw_tradeoff

__all__ = ["compare"]


@dataclass(frozen=True)
class _Planned:
    """A run to be: its method's short name, its resolved recipe, and whether it is there already."""

    method: str
    recipe: Recipe
    finished: bool

    @property
    def run(self) -> Run:
        assert self.recipe.output is not None  # resolved
        return Run(Path(self.recipe.output))


def compare(
    recipe_path: str | Path,
    methods: Sequence[str],
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    *,
    overwrite: bool = False,
    seeds: Sequence[int] | None = None,
    console: Console | None = None,
) -> Comparison:
    """Train a recipe once with each method (and seed), on the same data with the same budget, and compare.

    A method that is the recipe's own takes its settings and learning rates from there; the others are presets with
    their recommended learning rates, on the same layers. Each run has a process and a folder of its own: OUT/METHOD,
    or OUT/METHOD-seedN when seeds are given. At the end OUT holds ``comparison.json``, ``comparison.md`` and
    ``comparison.png``. A run that fails does not keep the others from running.

    Args:
        recipe_path: a YAML recipe.
        methods: short names, such as ``hydra-toeplitz``.
        out: the folder; runs/NAME-comparison by default.
        overrides: ``section.key=value`` changes of the recipe.
        resume: keep finished runs in ``out`` and go on with unfinished ones, if they are of the same recipe.
        overwrite: replace the runs in ``out``.
        seeds: of training; the recipe's own by default.
        console: where progress and the table are shown.

    Raises:
        UserError: an argument, the recipe, its data or a folder does not work, and nothing was run; or runs failed.
        Interrupted, KeyboardInterrupt: the user pressed Ctrl-C; how to go on was said.
    """
    console = console or Console()
    recipe = Recipe.load(recipe_path, overrides)
    out = Path(out or Path("runs") / f"{recipe.name}-comparison")
    plan = _plan(recipe, methods, seeds, out, resume, overwrite)
    data = load_data(recipe.data)  # a mistake there is told once, and now

    with without_remarks():  # brings in transformers, which no mistake above waits for
        from structune.finetune.model import load_tokenizer

    warn_of_cut_texts([data.train, data.evaluation], load_tokenizer(recipe.model), recipe.data.max_length)
    resume_line = _resume_line(recipe_path, methods, out, overrides, seeds)
    try:
        failed = _carry_out(plan, resume, overwrite, resume_line, console)
    except KeyboardInterrupt:
        console.print(escape(resume_line), soft_wrap=True, highlight=False)
        raise

    groups: dict[str, list[Run]] = {}
    for planned in plan:
        if planned.run.folder.name not in failed:
            groups.setdefault(planned.method, []).append(planned.run)
    failures = [f"{name}: {reason}" for name, reason in failed.items()]
    if not groups:
        raise UserError("\n".join(["every run failed:", *failures]))
    comparison = Comparison.of(recipe.name, groups)
    write_json(out / "comparison.json", comparison.to_json())
    write_text(out / "comparison.md", comparison.to_markdown())
    draw_tradeoff(comparison, out / "comparison.png")
    print_table(console, _table(comparison))
    console.print("\n" + "\n".join(comparison.notes()), style="dim", highlight=False)
    console.print(
        f"saved in {escape(str(out))}: comparison.md, comparison.json, comparison.png", highlight=False, soft_wrap=True
    )
    if failed:
        raise UserError("\n".join(["these runs failed and are not in the table (--resume tries again):", *failures]))
    return comparison


def _plan(
    recipe: Recipe, methods: Sequence[str], seeds: Sequence[int] | None, out: Path, resume: bool, overwrite: bool
) -> list[_Planned]:
    """The runs, everything that can be wrong with them checked."""
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one")
    if not methods:
        raise UserError("--methods: names none; give some, for example c3a,lora,head")
    if seeds is not None and (not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0):
        raise UserError(f"--seeds {','.join(map(str, seeds))}: give different integers of at least 0")
    sections = [preset(name) for name in methods]
    names = [section.label for section in sections]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--methods: {', '.join(twice)} given twice; name each method once")
    plan = []
    for name, section in zip(names, sections, strict=True):
        own = name == recipe.method.label
        settings = recipe if own else recipe.with_method(section)
        rates = {} if own else {"learning_rate": None, "head_learning_rate": None}
        for seed in seeds or [recipe.seed]:
            folder = out / (name if seeds is None else f"{name}-seed{seed}")
            changes = {"seed": seed, "output": str(folder), "train": settings.train.model_copy(update=rates)}
            one = settings.model_copy(update=changes).resolved()
            plan.append(_Planned(name, one, resume and Run(folder).state() == "finished"))
    there = [planned.run for planned in plan if planned.run.state() != "new"]
    for planned in plan:
        if planned.run in there and resume:
            planned.run.check_same(planned.recipe)
        elif planned.run in there and not overwrite:
            raise UserError(
                f"--out {str(out)!r}: holds {', '.join(run.folder.name for run in there)} already; use --resume to "
                f"keep what is finished and go on, --overwrite to start anew, or choose another --out"
            )
    return plan


def _carry_out(
    plan: Sequence[_Planned], resume: bool, overwrite: bool, resume_line: str, console: Console
) -> dict[str, str]:
    """Train what is not finished, one after the other. Returns why, by name, for each run that failed."""
    failed = {}
    begun, trained = time.monotonic(), 0
    waiting = sum(not planned.finished for planned in plan)
    for number, planned in enumerate(plan, start=1):
        heading = f"\n[bold]run {number} of {len(plan)}[/]  {escape(planned.run.folder.name)}"
        if planned.finished:
            console.print(f"{heading}  [dim]finished before, kept[/]", highlight=False)
            continue
        left = (time.monotonic() - begun) / trained * (waiting - trained) if trained else None
        estimate = "" if left is None else f"  [dim]about {_minutes(left)} left in all[/]"
        console.print(f"{heading}{estimate}", highlight=False)
        going_on = resume and planned.run.state() == "unfinished"
        outcome = train_in_own_process(planned.recipe, going_on, overwrite, console.quiet)
        trained += 1
        if outcome.kind == "interrupted":
            raise KeyboardInterrupt if outcome.step is None else Interrupted(outcome.step, resume_line)
        if outcome.kind == "failed":
            failed[planned.run.folder.name] = outcome.reason
            console.print(f"[red]failed:[/] {escape(outcome.reason)}", soft_wrap=True, highlight=False)
    return failed


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _resume_line(
    recipe_path: str | Path, methods: Sequence[str], out: Path, overrides: Sequence[str], seeds: Sequence[int] | None
) -> str:
    words = ["structune", "compare", str(recipe_path), "--methods", ",".join(methods), "--out", str(out)]
    if seeds is not None:
        words += ["--seeds", ",".join(map(str, seeds))]
    for override in overrides:
        words += ["--set", override]
    return f"continue with: {shlex.join([*words, '--resume'])}"


def _table(comparison: Comparison) -> Table:
    table = Table(
        title=f"\n[bold]{escape(comparison.name)}[/]", title_justify="left", title_style="",
        box=None, header_style="bold", pad_edge=False,
    )  # fmt: skip
    for column in COLUMNS:
        number = column != COLUMNS[0]
        table.add_column(column.replace(" ", "\n"), justify="right" if number else "left", no_wrap=True)
    for row in comparison.rows:
        table.add_row(*map(escape, row.cells()))
    return table
