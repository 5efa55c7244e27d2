"""`structune report`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from structune.cli.arguments import Debug, StudyOverrides, path_if_given, path_of
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console


def report(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="The study's YAML file.")],
    found: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            "--results",
            metavar="DIR",
            help="Folders of results, which are put together; results/NAME beside the file by default.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Folder of the report; runs/NAME-report by default.", show_default=False),
    ] = None,
    reference: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="LABEL", help="The method to beat; the first LoRA of the file by default.", show_default=False
        ),
    ] = None,
    overrides: StudyOverrides = None,
    debug: Debug = False,
) -> None:
    """Make a page of a study's results: figures, tables, statistics, and what is missing.

    Nothing is run. **report.html** needs no network and no other file; the figures as PNG, the tables as Markdown and
    all runs as Parquet lie beside it.
    """
    with errors_as_lines(debug):
        from structune.study.report.page import write_report
        from structune.study.results.files import Results
        from structune.study.study_file import Study

        path = path_of("STUDY", file)
        plan = Study.load(path, overrides or [])
        folders = [path_of("--results", folder) for folder in found or []] or [path.parent / "results" / plan.name]
        command = shlex.join(["structune", *sys.argv[1:]])
        target = path_if_given("--out", out) or Path("runs") / f"{plan.name}-report"
        page = write_report(plan, Results(folders[0], folders[1:]), target, command, reference)
        console.print(str(page), highlight=False, soft_wrap=True, markup=False)
