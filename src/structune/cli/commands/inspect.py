"""`structune inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from structune.cli.arguments import Debug, expanded, path_if_given, path_of
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console
from structune.finetune.importing import without_remarks


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="RUN|ADAPTER", help="A run or an adapter folder.", show_default=False)
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Where to write the figure.", show_default=False),
    ] = None,
    base: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The base model, where it is not the one the adapter names.", show_default=False),
    ] = None,
    debug: Debug = False,
) -> None:
    """Show an adapter layer by layer: numbers, size on disk, spectrum and effective rank of each update."""
    with errors_as_lines(debug):
        with without_remarks():
            from structune.inspection.inspect import inspect_path

        base = None if base is None else expanded("--base", base)
        inspect_path(path_of("RUN|ADAPTER", path), path_if_given("--out", out), base, console)
