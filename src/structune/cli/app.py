"""The command `structune`: each of its commands is a function in a file of its own.

Each command imports what it needs when it runs, so that help and errors in a recipe come at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from structune.cli.commands.bench import bench
from structune.cli.commands.chat import chat
from structune.cli.commands.compare import compare
from structune.cli.commands.evaluate import evaluate
from structune.cli.commands.inspect import inspect
from structune.cli.commands.merge import merge
from structune.cli.commands.predict import predict
from structune.cli.commands.push import push
from structune.cli.commands.recipe import recipe
from structune.cli.commands.report import report
from structune.cli.commands.study import study
from structune.cli.commands.train import train
from structune.cli.commands.version import version
from structune.cli.screen import console
from structune.cli.versions import versions

app = typer.Typer(
    name="structune",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune pretrained transformers with structured matrices: C3A, HyDRA and the rest of the family.",
    epilog="Start with:  `structune train movie-sentences`",
)


def _print_versions(asked: bool) -> None:
    if asked:
        own, *others = (f"{package} {number}" for package, number in versions().items())
        console.print(f"{own}\n{', '.join(others)}", highlight=False, soft_wrap=True)
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", help="Show versions and exit.", callback=_print_versions, is_eager=True)
    ] = False,
) -> None:
    """Options that come before a command."""


for _command in (train, recipe, evaluate, predict, chat, merge, push, inspect, compare, study, report, bench, version):
    app.command()(_command)
app.command("sweep", hidden=True)(study)  # as it was called
