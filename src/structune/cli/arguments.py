"""Arguments and options that several commands have, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from structune.errors import UserError
from structune.finetune.recipe.shipped import recipe_names

RecipeFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        help=f"A YAML file, or one that comes with structune: {', '.join(recipe_names())}.",
        show_default=False,
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.", show_default=False)]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads this at run time, on Python 3.10 too)
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe, for example train.epochs=1."),
]
StudyOverrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the study, for example seeds=[0,1]."),
]
Device = Literal["auto", "cpu", "cuda"]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]


def expanded(argument: str, given: str) -> str:
    """What is meant: a shell leaves `~` alone in `--out=~/x`, and everything in quotes."""
    from structune.paths import expand

    try:
        return expand(given)
    except UserError as error:
        raise UserError(f"{argument} {given!r}: {error}") from None


def path_of(argument: str, given: Path) -> Path:
    """A path as it is meant; errors name the argument."""
    return Path(expanded(argument, str(given)))


def path_if_given(argument: str, given: Path | None) -> Path | None:
    """As `path_of`; None stays None."""
    return None if given is None else path_of(argument, given)


def listed(text: str) -> list[str]:
    """The parts of `a,b,...`."""
    return [part.strip() for part in text.split(",") if part.strip()]
