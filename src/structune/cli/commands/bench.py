"""`structune bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from structune.bench.folder import SUITES
from structune.cli.arguments import Debug, Device, expanded, listed, path_if_given
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console
from structune.finetune.importing import without_remarks


def bench(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help=f"{', '.join(SUITES)}, or a YAML file.",
        ),
    ] = "layer",
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="The suite calibrate: every algorithm, and what auto takes.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and few rounds: does it run?")] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Where results go; benchmarks/results by default.", show_default=False),
    ] = None,
    cases: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TEXT", help="Only cases with this text in their name.", show_default=False),
    ] = None,
    methods: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="A,B,...", help="Only these methods, and the frozen layer.", show_default=False),
    ] = None,
    rounds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", help="How often each method is timed.", show_default=False),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to measure.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget a run that was stopped.")] = False,
    docs: Annotated[
        bool, typer.Option("--docs", help="Measure nothing: write docs/benchmarks.md and its figures from the results.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Measure what methods cost side by side: time, memory, growth.

    Every method of a case runs in one process, once a round in random order. Finished cases are kept: after Ctrl-C,
    **--resume** goes on.
    """
    with errors_as_lines(debug):
        if docs:
            from structune.bench.page import write_page

            for path in write_page():
                console.print(f"wrote {escape(str(path))}", highlight=False)
            return
        with without_remarks():
            from structune.bench.run import bench as measure

        measure(
            "calibrate" if calibrate else expanded("SUITE", suite),
            quick=quick,
            out=path_if_given("--out", out),
            cases=cases,
            methods=listed(methods or ""),
            rounds=rounds,
            device=device,
            resume=resume,
            overwrite=overwrite,
            console=console,
        )
