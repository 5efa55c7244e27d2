"""`structune evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from structune.cli.arguments import Debug, RunFolder, path_if_given, path_of
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console
from structune.finetune.importing import without_remarks
from structune.finetune.tables import print_table, records


def evaluate(
    run: RunFolder,
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A file with the same columns; the run's own examples by default.", show_default=False),
    ] = None,
    part: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="validation|test",
            help="Which of the run's own examples; the test part by default, where there is one.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Load a run's adapter into a fresh model and score it, class by class."""
    with errors_as_lines(debug):
        with without_remarks():
            from structune.finetune import evaluate as evaluation

        result = evaluation.evaluate(path_of("RUN", run), path_if_given("--data", data), console, part)
        for title, rows in result.tables():
            print_table(console, records(title, rows))
        scores = "   ".join(f"{title} [bold]{text}[/]" for title, text in result.shown())
        console.print(
            f"{scores}   loss {result.loss:.4f}   on {result.examples:,} examples ({escape(result.source)})",
            highlight=False,
            soft_wrap=True,
        )
        if result.baseline:
            console.print(f"[dim]{escape(result.baseline)}[/]", highlight=False)
        for title, number in result.numbers():
            console.print(f"{escape(title)} {number:.3f}", highlight=False)
        if result.figures:
            console.print(f"drawn: {escape(', '.join(map(str, result.figures)))}", highlight=False, soft_wrap=True)
