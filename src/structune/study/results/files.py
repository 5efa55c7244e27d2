"""The results of a study: one small file for each run, found again by what was run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structune.data.section import DataSection
from structune.doubt import say
from structune.errors import UserError
from structune.finetune.recipe.recipe import Recipe, ResolvedRecipe
from structune.methods.method import Method
from structune.study.inputs.base_model import base_model
from structune.study.inputs.hashes import hash_of
from structune.study.search.points import Point


@dataclass(frozen=True)
class Wanted:
    """One run of a study."""

    task: str
    label: str
    method: Method
    point: Point
    seed: int

    @property
    def name(self) -> str:
        """What its file and its folder are called."""
        words = " ".join([self.label, *self.point.words(), f"seed={self.seed}"])
        return f"{self.task}/{plain(words)}"


def plain(words: str) -> str:
    """Words as a name of a file or a folder has them."""
    return re.sub(r"[^A-Za-z0-9.=-]+", "-", words).strip("-")


class Results:
    """The files of a study: one for each run that is finished.

    Args:
        folder: where they are and go; made with the first of them.
        others: folders that are read as well, such as other machines'. Of two results of one run the one with a test
            score counts, else the one in the first folder.

    Raises:
        UserError: there is no folder where another is named.
    """

    def __init__(self, folder: Path, others: Sequence[Path] = ()) -> None:
        self.folder, self.others = folder, list(others)
        self._doubted: set[str] = set()
        for other in self.others:
            if not other.is_dir():
                raise UserError(f"--results {str(other)!r}: no such folder; name one of results")

    def file(self, wanted: Wanted) -> Path:
        """Where the result of a run is, or will be."""
        return self.folder / f"{wanted.name}.json"

    def get(self, wanted: Wanted, recipe: ResolvedRecipe) -> dict[str, Any] | None:
        """The result of a run; None: it is not there.

        Raises:
            UserError: the file is damaged, or of a run with other settings.

        Warns:
            DataWarning: the model is known by its name only, which says little of a local folder; once for each name.
        """
        files = [folder / f"{wanted.name}.json" for folder in (self.folder, *self.others)]
        contents = [_read(file, recipe) for file in files if file.is_file()]
        name = recipe.model.name
        if name not in self._doubted and any(_says_too_little(content, recipe) for content in contents):
            self._doubted.add(name)
            say(
                [
                    f"results in {str(self.folder)!r}: some were written before results knew models by their weights; "
                    f"they are taken to be of model.name = {name!r} because its name is theirs. Delete them if it was "
                    f"another, or was loaded otherwise."
                ]
            )
        return _better(contents)

    def all(self) -> list[dict[str, Any]]:
        """Every result, in the order of the files' names. Raises `UserError` where a file is damaged."""
        found: dict[str, list[dict[str, Any]]] = {}
        for folder in (self.folder, *self.others):
            for file in folder.glob("*/*.json"):
                try:
                    content = _loaded(file)
                    _ = [content[key] for key in ("task", "method", "rate", "seed", "validation", "test")]
                except (ValueError, KeyError, TypeError, OSError) as error:
                    raise _damaged(file, error) from None
                found.setdefault(file.relative_to(folder).as_posix(), []).append(content)
        return [better for _, contents in sorted(found.items()) if (better := _better(contents)) is not None]


def _better(contents: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Of results of one run the one that counts."""
    return next((content for content in contents if content["test"] is not None), next(iter(contents), None))


def _read(file: Path, recipe: ResolvedRecipe) -> dict[str, Any]:
    try:
        content = _loaded(file)
        stored = content["settings"]
        absent = "weights" in stored.get("base", ()) and not Path(recipe.model.name).is_dir()
        same = are_of(stored, recipe)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise _damaged(file, error) from None
    if absent:
        raise UserError(f"{file}: is of a model in a folder, and model.name = {recipe.model.name!r} is no folder here")
    if not same:
        raise UserError(
            f"{file}: was run with other settings than the study has now; take another --out and another --work, or "
            f"delete the file and the run's folder in --work"
        )
    return content


def _loaded(file: Path) -> dict[str, Any]:
    """Raises ValueError where a number is none: what compares with nothing would be the best score, or the worst."""

    def refused(word: str) -> None:
        raise ValueError(f"{word} is no score")

    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"), parse_constant=refused)
    return content


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(f"{file}: not a result of a study ({error}); restore or delete it")


def _says_too_little(content: dict[str, Any], recipe: ResolvedRecipe) -> bool:
    """Whether a result does not say what its study asks for: it is older, and counts all the same."""
    return "base" not in content["settings"] and bool(
        base_model(recipe.model, exclude_defaults=True).keys() - {"id"}  # of the hub, where names are models
    )


def settings(recipe: Recipe, *, exclude_defaults: bool = False) -> dict[str, Any]:
    """What is said of a run, but for the names and paths of one machine.

    Beside the recipe's sections are the keys that the task has in its `data` section: columns, lengths.
    """
    written: dict[str, Any] = {"mode": "json", "exclude_none": True, "exclude_defaults": exclude_defaults}
    of_data = recipe.data.model_dump(**written, exclude=set(DataSection.model_fields))
    own = recipe.model_dump(**written, exclude={"name", "output", "model", "data"})
    return of_data | own | _sources(recipe) | {"base": base_model(recipe.model, exclude_defaults=exclude_defaults)}


def are_of(stored: dict[str, Any], recipe: Recipe) -> bool:
    """Whether `settings`, stored by this or an older version, are the recipe's."""
    given = settings(recipe, exclude_defaults=True)
    if "base" not in stored:
        del given["base"]  # it is older than that key
    return _agree(stored, settings(recipe), given)


def _sources(recipe: Recipe) -> dict[str, Any]:
    """What a run reads: its data by their hash."""
    hashes = [hash_of(Path(file)) for file in recipe.data.files().values()]
    return {"data": hashes, "model": Path(recipe.model.name).name}


def _agree(stored: Any, now: Any, given: Any) -> bool:
    """Whether settings are those that were stored; options that came later are, where they have their defaults.

    Args:
        stored: settings of a run.
        now: those of the study.
        given: of these, what is no default.
    """
    if not isinstance(stored, dict) or not isinstance(now, dict):
        return bool(stored == now)
    given = given if isinstance(given, dict) else {}
    return all(key in now and _agree(value, now[key], given.get(key)) for key, value in stored.items()) and not any(
        key in given for key in now if key not in stored
    )
