"""`structune recipe`."""

from __future__ import annotations

import sys
from typing import Annotated, Optional

import typer
from rich.markup import escape

from structune.cli.arguments import Debug
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console
from structune.errors import UserError
from structune.finetune.recipe.shipped import described_recipes
from structune.finetune.tables import pairs, print_table


def recipe(
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[TASK]", help="A task by name; without one, tasks and recipes are listed."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON schema of recipes, for editors that complete and check YAML.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Print a recipe to begin with: every key of a task's recipe, with its default and what it means."""
    with errors_as_lines(debug):
        from structune.finetune.recipe.starter import starter, summary
        from structune.tasks import registry

        if schema:
            import json

            from structune.finetune.recipe.schema import recipe_schema

            if task is not None:
                raise UserError(f"TASK {task!r} and --schema exclude each other: the schema is of all tasks")
            sys.stdout.write(json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n")
        elif task is not None:
            sys.stdout.write(starter(registry.get(task)))
        else:
            table = pairs()
            for name in registry.names():
                table.add_row(f"[bold]{escape(name)}[/]", escape(summary(registry.get(name))))
            print_table(console, table)
            console.print("\n`structune recipe TASK` prints a recipe of one. These come with structune:\n")
            shipped = pairs()
            for name, about in described_recipes().items():
                shipped.add_row(f"[bold]{escape(name)}[/]", escape(about))
            print_table(console, shipped)
