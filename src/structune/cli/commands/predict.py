"""`structune predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from structune.cli.arguments import Debug, RunFolder, path_of
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console, errors
from structune.finetune.importing import without_remarks
from structune.finetune.tables import pairs, print_table


def predict(
    run: RunFolder,
    given: Annotated[
        str,
        typer.Argument(
            metavar="FILE|TEXT|-",
            help="A file with the run's columns, one text (or the path of an image), or - for lines or JSON Lines on "
            "standard input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Ends with .csv, .jsonl or .parquet; CSV on standard output by default."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that is there.")] = False,
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="KEY=VALUE", help="Other columns than trained on: data.text=review."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Say what a run predicts, with probabilities, beside the columns that were given.

    Rows come and go in pieces, so there may be any number of them, and keep their order. A label column is not needed.
    """
    with errors_as_lines(debug):
        with without_remarks():
            from structune.finetune import predict as prediction
            from structune.finetune.answers.answers_file import CsvWriter

        source = prediction.Stream(sys.stdin.buffer) if given == "-" else given
        if out is not None:
            target = path_of("--out", out)
            count = prediction.write_predictions(
                path_of("RUN", run), source, target, overwrite=overwrite, overrides=overrides or (), console=console
            )
            console.print(
                f"{count:,} {'row' if count == 1 else 'rows'} in {escape(str(target))}", highlight=False, soft_wrap=True
            )
            return
        predictor = prediction.Predictor(path_of("RUN", run), overrides or ())
        predictor.refuse_images()
        writer = CsvWriter(sys.stdout)
        if not predictor.is_line(source):
            predictor.write(source, writer, console=errors)
        elif len(rows := predictor(source)) > 1:
            writer.write(rows)
        else:
            table = pairs()
            for name, value in rows[0].items():
                table.add_row(escape(name), escape(f"{value:.4g}" if isinstance(value, float) else str(value)))
            print_table(console, table)
