"""One recipe with several methods: a run each, then a table and a figure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from structune.comparison.side_by_side import RESULTS, Comparison, is_comparison
from structune.comparison.tradeoff_figure import draw_tradeoff
from structune.doubt import say
from structune.duration import duration
from structune.errors import Diverged, UserError
from structune.files import write_json, write_text
from structune.finetune.distributed.launch import refuse_several_processes
from structune.finetune.importing import without_remarks
from structune.finetune.recipe.recipe import Recipe, ResolvedRecipe
from structune.finetune.run_folder.fingerprint import Fingerprint
from structune.finetune.run_folder.lock import locked, refuse_locked
from structune.finetune.run_folder.place import check_writable
from structune.finetune.run_folder.run import Run, refuse_inside_run
from structune.finetune.stopping.resume import refuse_both, resume_line
from structune.finetune.tables import print_table
from structune.finetune.task_data import load_data
from structune.methods.registry import preset
from structune.study.workers.own_process import Outcome, stop_if_interrupted
from structune.study.workers.processes import train_in_own_process
from structune.tasks.task import Base


@dataclass(frozen=True)
class _Planned:
    """A run to be: its method's short name, its resolved recipe, whether it is kept as it is, or gone on with."""

    method: str
    recipe: ResolvedRecipe
    finished: bool
    resumed: bool

    @property
    def run(self) -> Run:
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
    or OUT/METHOD-seedN when seeds are given. At the end OUT holds `comparison.json`, `comparison.md` and
    `comparison.png`. A run that fails does not keep the others from running; one whose numbers ran away has a row
    that says so.

    Args:
        recipe_path: a YAML recipe.
        methods: short names, such as `hydra-toeplitz`.
        out: the folder; runs/NAME-comparison by default.
        overrides: `section.key=value` changes of the recipe.
        resume: keep finished runs in `out` and go on with unfinished ones, if they are of the same recipe.
        overwrite: replace the runs in `out`.
        seeds: of training; the recipe's own by default.
        console: where progress and the table are shown.

    Raises:
        UserError: an argument, the recipe, its data or a folder does not work, and nothing was run; or runs failed; or
            they are of different data.
        Diverged: all that did not finish diverged; the table is there.
        Interrupted, KeyboardInterrupt: a signal such as Ctrl-C asked for the end; how to go on was said.
    """
    console = console or Console()
    refuse_several_processes()
    recipe = Recipe.load(recipe_path, overrides)
    out = Path(out or Path("runs") / f"{recipe.name}-comparison")
    where = f"--out {str(out)!r}"
    refuse_inside_run(out, where)
    _check_results(out, where)
    plan = _plan(recipe, recipe_path, methods, seeds, out, resume, overwrite)
    check_writable(out, where)
    refuse_locked(out, where)
    data = load_data(recipe.task, recipe.data)  # a mistake there is told once, and now
    _check_kept(plan, Fingerprint.of(data))

    with without_remarks():  # brings in transformers, which no mistake above waits for
        from structune.finetune.adapters import check_method
        from structune.finetune.trainer.arguments import check_settings

    check_settings(recipe, out)
    for planned in plan:
        check_method(planned.recipe.method)
    base = Base(None, recipe.task.processor(recipe.model))
    say(recipe.task.doubts_about_encoding(data.parts(), base, recipe.data))
    go_on = _go_on(recipe_path, methods, out, overrides, seeds)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, where):
        try:
            ended = _carry_out(plan, overwrite, go_on, console)
        except KeyboardInterrupt:
            console.print(escape(go_on), soft_wrap=True, highlight=False)
            raise
        comparison = _put_together(recipe.name, plan, ended)
        write_json(out / "comparison.json", comparison.to_json())
        write_text(out / "comparison.md", comparison.to_markdown())
        draw_tradeoff(comparison, out / "comparison.png")
    print_table(console, _table(comparison))
    console.print("\n" + "\n".join(comparison.notes()), style="dim", highlight=False)
    console.print(f"saved in {escape(str(out))}: comparison.md, comparison.json, comparison.png", highlight=False)
    if failed := _reasons(ended, "failed"):
        raise UserError("\n".join(["these runs failed and are not in the table (--resume tries again):", *failed]))
    if diverged := _reasons(ended, "diverged"):
        raise Diverged("\n".join(["these runs diverged:", *diverged]))
    return comparison


def _put_together(name: str, plan: Sequence[_Planned], ended: Mapping[str, Outcome]) -> Comparison:
    """The table of what finished and what diverged."""
    groups: dict[str, list[Run]] = {}
    diverged: dict[str, list[str]] = {}
    for planned in plan:
        outcome = ended.get(planned.run.folder.name)
        if outcome is None:
            groups.setdefault(planned.method, []).append(planned.run)
        elif outcome.kind == "diverged":
            diverged.setdefault(planned.method, []).append(planned.run.folder.name)
    if not groups:
        kind = Diverged if len(_reasons(ended, "diverged")) == len(plan) else UserError
        raise kind("\n".join(["every run failed:", *_reasons(ended, "failed"), *_reasons(ended, "diverged")]))
    return Comparison.of(name, groups, diverged)


def _reasons(ended: Mapping[str, Outcome], kind: str) -> list[str]:
    return [f"{name}: {outcome.reason}" for name, outcome in ended.items() if outcome.kind == kind]


def _check_results(out: Path, where: str) -> None:
    """Raises `UserError` when `out` is a file, or holds files with the names of a comparison's that are none."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{where}: is a file; name a folder")
    there = [name for name in RESULTS if (out / name).exists() or (out / name).is_symlink()]
    if there and not is_comparison(out / RESULTS[0]):
        raise UserError(f"{where}: holds {', '.join(there)}, which compare did not write; choose another --out")


def _check_kept(plan: Sequence[_Planned], data: Fingerprint) -> None:
    """Raises `UserError` when runs that are there to be kept, or to go on with, are of other data."""
    for planned in plan:
        before = Fingerprint.load(planned.run.data_file) if planned.resumed else None
        if before is not None and (changes := before.changes(data, ordered=not planned.finished)):
            raise UserError(
                f"--resume: the data differ from those of {planned.run.folder.name} ({'; '.join(changes)}). "
                f"Bring back the data it began with, or start anew with --overwrite or another --out."
            )


def _plan(
    recipe: Recipe,
    recipe_path: str | Path,
    methods: Sequence[str],
    seeds: Sequence[int] | None,
    out: Path,
    resume: bool,
    overwrite: bool,
) -> list[_Planned]:
    """The runs, everything that can be wrong with them checked."""
    refuse_both(resume, overwrite)
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
            state = Run(folder).state()
            plan.append(_Planned(name, one, resume and state == "finished", resume and state != "new"))
    there = [planned.run for planned in plan if planned.run.state() != "new"]
    for planned in plan:
        if planned.run.state() == "foreign":
            planned.run.check_free(resume, overwrite)
        if planned.run in there and resume:
            planned.run.check_same(planned.recipe)
        elif planned.run in there and not overwrite:
            raise UserError(
                f"--out {str(out)!r}: holds {', '.join(run.folder.name for run in there)} already; use --resume to "
                f"keep what is finished and go on, --overwrite to start anew, or choose another --out"
            )
        if not resume:
            planned.run.check_place(planned.recipe, Path(recipe_path))
        if not planned.finished:
            planned.run.check_free(planned.resumed, overwrite)
    return plan


def _carry_out(plan: Sequence[_Planned], overwrite: bool, go_on: str, console: Console) -> dict[str, Outcome]:
    """Train what is not finished, one after the other. Returns, by name, how each ended that did not finish."""
    ended = {}
    begun, trained = time.monotonic(), 0
    waiting = sum(not planned.finished for planned in plan)
    for number, planned in enumerate(plan, start=1):
        heading = f"\n[bold]run {number} of {len(plan)}[/]  {escape(planned.run.folder.name)}"
        if planned.finished:
            console.print(f"{heading}  [dim]finished before, kept[/]", highlight=False)
            continue
        left = (time.monotonic() - begun) / trained * (waiting - trained) if trained else None
        estimate = "" if left is None else f"  [dim]about {duration(left)} left in all[/]"
        console.print(f"{heading}{estimate}", highlight=False)
        outcome = train_in_own_process(planned.recipe, overwrite, console.quiet)
        trained += 1
        stop_if_interrupted(outcome, go_on)
        if outcome.kind != "finished":
            ended[planned.run.folder.name] = outcome
            console.print(f"[red]{outcome.kind}:[/] {escape(outcome.reason)}", soft_wrap=True, highlight=False)
    return ended


def _go_on(
    recipe_path: str | Path, methods: Sequence[str], out: Path, overrides: Sequence[str], seeds: Sequence[int] | None
) -> str:
    words = ["compare", str(recipe_path), "--methods", ",".join(methods), "--out", str(out)]
    if seeds is not None:
        words += ["--seeds", ",".join(map(str, seeds))]
    for override in overrides:
        words += ["--set", override]
    return resume_line(words)


def _table(comparison: Comparison) -> Table:
    table = Table(
        title=f"\n[bold]{escape(comparison.name)}[/]", title_justify="left", title_style="",
        box=None, header_style="bold", pad_edge=False,
    )  # fmt: skip
    for number, column in enumerate(comparison.columns()):
        table.add_column(column.replace(" ", "\n"), justify="right" if number else "left", no_wrap=True)
    for cells in comparison.lines():
        table.add_row(*map(escape, cells))
    return table
