"""`structune push`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from structune.cli.arguments import Debug, RunFolder, path_of
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console, errors
from structune.finetune.importing import without_remarks
from structune.finetune.tables import pairs, print_table


def push(
    run: RunFolder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="On the hub: USER/MODEL.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be uploaded; needs no network.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository a private one.")] = False,
    debug: Debug = False,
) -> None:
    """Upload a run's adapter and its model card to the hub."""
    with errors_as_lines(debug):
        with without_remarks():
            from structune.finetune import push as pushing

        upload = pushing.push(path_of("RUN", run), name, private=private, dry_run=dry_run)
        for note in upload.notes:
            errors.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)
        if dry_run:
            table = pairs()
            for file, size in upload.files.items():
                table.add_row(file, f"{size:,} bytes")
            print_table(console, table)
            console.print(f"\n{escape(upload.card)}\n...", highlight=False, soft_wrap=True)
            console.print(f"\nnothing was uploaded; it would go to {escape(upload.name)}", highlight=False)
        else:
            console.print(f"uploaded to {escape(upload.url or upload.name)}", highlight=False, soft_wrap=True)
