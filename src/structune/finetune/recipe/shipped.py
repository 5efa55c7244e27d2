"""Recipes that come with structune, by name: `recipes/` of a checkout, a folder of this package once it is built."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

from structune.errors import UserError
from structune.section import closest


def recipe_names() -> list[str]:
    """The names of the recipes that come with structune."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def described_recipes() -> dict[str, str]:
    """What each is, by its name: the first sentence of its remarks."""
    return {path.stem: _described(path.read_text(encoding="utf-8")) for path in sorted(_folder().glob("*.yaml"))}


def find_recipe(path: Path) -> Path:
    """The file that is meant: `path` itself, or for one word that is no file, the recipe of that name.

    Raises:
        UserError: no such recipe, or the current folder has one of the same name.
    """
    if path.is_file() or path.suffix or path.parent != Path():
        return path
    name, names = str(path), recipe_names()
    if name not in names:
        raise UserError(
            f"recipe {name!r}: no such file, and no recipe of that name{closest(name, names)}; "
            f"with structune come: {', '.join(names)}"
        )
    for own in (path.with_suffix(".yaml"), path.with_suffix(".yml")):
        if own.is_file():
            raise UserError(
                f"recipe {name!r}: it comes with structune, and {own} is here too: write {str(own)!r} for yours, or "
                f"{str(_folder() / f'{name}.yaml')!r}"
            )
    return _folder() / f"{name}.yaml"


def _described(text: str) -> str:
    remarks = [
        line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), text.splitlines())
    ]
    return first_sentence(" ".join(remarks))


def first_sentence(text: str) -> str:
    """The text up to the first full stop, without it; that of `et al.` ends no sentence."""
    return re.split(r"(?<! al)\. ", text, maxsplit=1)[0].rstrip(".")


def _folder() -> Path:
    here = Path(__file__).parent
    built = here.parent / "recipes"
    return built if built.is_dir() else here.parents[3] / "recipes"
