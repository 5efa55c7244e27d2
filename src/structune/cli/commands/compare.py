"""`structune compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from structune.cli.arguments import Debug, Overrides, RecipeFile, listed, path_if_given, path_of
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console
from structune.errors import UserError


def compare(
    recipe: RecipeFile,
    methods: Annotated[
        str, typer.Option(metavar="A,B,...", help="Methods by name, for example c3a,hydra-low-rank,lora,head.")
    ] = "c3a,hydra-low-rank,lora,head",
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Folder for the runs, the table and the figure.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="N,N,...", help="Train each method with each of these seeds.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished runs and go on.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the runs in the folder.")] = False,
    debug: Debug = False,
) -> None:
    """Run one recipe with several methods and put the results side by side."""
    with errors_as_lines(debug):
        from structune.comparison.compare import compare as run_all

        run_all(
            path_of("RECIPE", recipe), listed(methods), path_if_given("--out", out), overrides or [], resume,
            overwrite=overwrite, seeds=None if seeds is None else _numbers(seeds), console=console,
        )  # fmt: skip


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text!r}: give whole numbers, for example 0,1,2") from None
