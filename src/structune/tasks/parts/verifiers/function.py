"""A user's own Python function as a verifier."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import math
import reprlib
import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from structune.errors import UserError
from structune.paths import FilePath
from structune.tasks.parts.verifiers.verifier import Row, Verifier

SIGNATURE = "(completion: str, row: dict) -> float"


class Function(Verifier):
    """What a Python function says: `file.py:function`, or `module:function` of an installed package.

    It is called with the completion (a text) and the row (a dictionary of all its columns), and returns a finite
    number, or True and False for 1 and 0. It is tried before training with an empty completion and the first row.
    """

    name: Literal["function"] = "function"
    function: FilePath

    def reward(self, completion: str, answer: str | None, row: Row) -> float:
        function = self._function()
        try:
            value = function(completion, dict(row))
        except Exception as error:
            raise UserError(
                f"{self._where}: raised {type(error).__name__}: {error} ({_place(error)}), for the completion "
                f"{reprlib.repr(completion)} and the row {reprlib.repr(dict(row))}; mend the function"
            ) from error
        try:
            number = math.nan if value is None or isinstance(value, (str, bytes)) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(
                f"{self._where}: returned {reprlib.repr(value)}, for the completion {reprlib.repr(completion)} and the "
                f"row {reprlib.repr(dict(row))}; it must return a finite number"
            )
        return number

    def check(self) -> None:
        """Raises `UserError` where there is no such function, or it cannot be called so."""
        function = self._function()
        try:
            inspect.signature(function).bind("", {})
        except TypeError as error:
            raise UserError(f"{self._where}: must be callable as {SIGNATURE} ({error})") from None
        except ValueError:  # no signature: seen when it is called
            pass
        if inspect.iscoroutinefunction(function):
            raise UserError(f"{self._where}: is asynchronous; it must be a plain function {SIGNATURE}")

    def about(self) -> str:
        place, _, function = self.function.rpartition(":")
        return f"{Path(place).name}:{function}"

    def code(self) -> str:
        source = inspect.getsourcefile(inspect.unwrap(self._function()))
        if source is None or not Path(source).is_file():
            return ""
        return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]

    def with_files(self, change: Callable[[str], str]) -> Verifier:
        place, _, function = self.function.rpartition(":")
        if not _is_file(place):
            return self
        return self.model_copy(update={"function": f"{change(place)}:{function}"})

    @property
    def _where(self) -> str:
        return f"task.verifier.function = {self.function!r}"

    def _function(self) -> Callable[..., Any]:
        place, colon, name = self.function.rpartition(":")
        if not colon or not place or not name.isidentifier():
            raise UserError(
                f"{self._where}: names no function; write file.py:function, or module:function of an installed package"
            )
        if _is_file(place) and not Path(place).is_file():
            raise UserError(f"{self._where}: there is no file {place!r}")
        try:
            module = (
                _of_file(place, Path(place).stat().st_mtime_ns) if _is_file(place) else importlib.import_module(place)
            )
        except Exception as error:  # noqa: BLE001  (whatever a user's module raises)
            hint = "" if _is_file(place) else f"; for a file of your own write {place}.py:{name}"
            raise UserError(
                f"{self._where}: cannot be imported ({type(error).__name__}: {error}, {_place(error)}){hint}"
            ) from None
        if not callable(function := getattr(module, name, None)):
            known = ", ".join(key for key, value in vars(module).items() if inspect.isfunction(value)) or "none"
            raise UserError(f"{self._where}: there is no function {name!r} in {place}; it has {known}")
        found: Callable[..., Any] = function
        return found


def _is_file(place: str) -> bool:
    return place.endswith(".py")


@cache
def _of_file(place: str, changed: int) -> ModuleType:
    """The module that a file is, executed once for each time it was `changed`; under a name of its own."""
    name = f"structune_verifier_{hashlib.sha256(str(Path(place).absolute()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None  # it ends with .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look there
    spec.loader.exec_module(module)
    return module


def _place(error: BaseException) -> str:
    """Where an error was raised, as `line 3 of rewards.py`."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"line {frames[-1].lineno} of {Path(frames[-1].filename).name}" if frames else "nowhere"
