"""`structune version`."""

from __future__ import annotations

from structune.cli.screen import console
from structune.cli.versions import versions
from structune.finetune.tables import pairs, print_table


def version() -> None:
    """Show the version of structune and of what it stands on."""
    table = pairs()
    for package, number in versions().items():
        table.add_row(package, number)
    print_table(console, table)
