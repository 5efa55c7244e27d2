"""`structune study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from structune.cli.arguments import Debug, StudyOverrides, path_if_given, path_of
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console


def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="A YAML file.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="DIR", help="Folder of the results; results/NAME beside the file by default.", show_default=False
        ),
    ] = None,
    work: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Folder of runs and data; runs/NAME by default.", show_default=False),
    ] = None,
    only: Annotated[str, typer.Option(metavar="EXPRESSION", help="Only methods whose label has a match.")] = "",
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="Only this task.", show_default=False),
    ] = None,
    first_seed: Annotated[bool, typer.Option("--first-seed", help="Leave out all seeds but the first.")] = False,
    jobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            metavar="N",
            help="Runs at a time, each a process of its own; 1 by default, with --ray as many as there is room for.",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ADDRESS", help="Run on a Ray cluster: its address, auto, or local.", show_default=False),
    ] = None,
    gpus: Annotated[float, typer.Option(metavar="X", help="With --ray: GPUs of a run, or a share of one.")] = 0.0,
    hours: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(metavar="H", help="Stop after that time; the same command goes on.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run nothing: say what is left, its time, its cost.")
    ] = False,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="With --dry-run: time a few steps of what never ran here.")
    ] = True,
    price_per_hour: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(metavar="X", help="With --dry-run: what an hour of this machine costs.", show_default=False),
    ] = None,
    others: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--results", metavar="DIR", help="Results that count as well, such as another machine's."),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Try the study in small, in minutes: random models, two steps. No result."),
    ] = False,
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs", help="Keep the folders of runs whose rate was not chosen.")
    ] = False,
    page: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="FILE",
            help="Run nothing: put the table into this page, and the figure into assets beside it.",
            show_default=False,
        ),
    ] = None,
    overrides: StudyOverrides = None,
    debug: Debug = False,
) -> None:
    """Search each method's learning rate on several tasks, and score what is chosen.

    It can be stopped at any time; the same command goes on. Every run leaves one small file.
    """
    with errors_as_lines(debug):
        from structune.study.engine import run_study
        from structune.study.results.files import Results
        from structune.study.study_file import Study

        path = path_of("STUDY", file)
        plan = Study.load(path, overrides or [])
        if smoke:
            from structune.study.smoke import smoke as try_in_small

            try_in_small(plan, only=only, task=task, console=console)
            return
        results = Results(
            path_if_given("--out", out) or path.parent / "results" / plan.name,
            [path_of("--results", other) for other in others or []],
        )
        if page is not None:
            from structune.study.report.figures.study_figure import draw
            from structune.study.report.summary_table import put_into, table

            put_into(page, plan.name, table(plan, results))
            draw(plan, results, page.parent / "assets" / f"{plan.name}.png")
            return
        folder = path_if_given("--work", work) or Path("runs") / plan.name
        run_study(
            plan, results, folder, only=only, task=task, first_seed_only=first_seed, jobs=jobs, ray=ray, gpus=gpus,
            hours=hours, keep_runs=keep_runs, dry_run=dry_run, timing=timing, price_per_hour=price_per_hour,
            console=console,
        )  # fmt: skip
