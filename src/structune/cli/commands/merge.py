"""`structune merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from structune.cli.arguments import Debug, RunFolder, path_of
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console
from structune.finetune.importing import without_remarks


def merge(
    run: RunFolder,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the merged model.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Merge a run's adapter into its model: a plain transformers folder."""
    with errors_as_lines(debug):
        with without_remarks():
            from structune.finetune import merge as merging

        out = path_of("--out", out)
        difference = merging.merge(path_of("RUN", run), out)
        console.print(
            f"merged into {escape(str(out))}; outputs differ from the unmerged by at most {difference:.1e} "
            f"of the largest",
            highlight=False,
            soft_wrap=True,
        )
