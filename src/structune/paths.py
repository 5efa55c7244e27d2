"""Paths as people write them: `~` and environment variables stand for what they stand for in a shell."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticKnownError

from structune.errors import UserError
from structune.section import wrong_text

LONGEST = 255
"""Bytes of the name of a file or folder."""

_VARIABLE = re.compile(r"\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*)|\{([^{}]*)\})")


def expand(path: str) -> str:
    """The path with `~`, `~user`, `$NAME` and `${NAME}` replaced, and `$$` by a dollar sign.

    A file that is there under the very name given is meant where that name cannot be expanded.

    Raises:
        UserError: a variable is not set or empty, there is no such user, or nothing can have that name.
    """
    try:
        full = _VARIABLE.sub(_value, path)
        home = os.path.expanduser(full)  # last: a variable may begin with ~
        if home.startswith("~"):
            raise UserError(f"no user {home[1:].partition('/')[0]!r} here; write ./~ for a name that begins so")
        _check_possible(home)
    except UserError:
        if os.path.lexists(path):
            return path
        raise
    return home


def _check_possible(path: str) -> None:
    """Raises `UserError` for what no file is called, or nobody calls a file on purpose."""
    if not path:
        raise UserError("it names nothing; give a name, or leave it out")
    longest = max(len(os.fsencode(part)) for part in path.split(os.sep))
    if longest > LONGEST:
        raise UserError(f"a name in it has {longest} bytes, and file systems take {LONGEST}; give a shorter one")
    if not os.path.lexists(path) and any(ord(char) < 32 for char in path):
        raise UserError("it holds a line break or another control character; leave it out")


def _value(match: re.Match[str]) -> str:
    dollar, plain, braced = match.groups()
    name = plain or braced
    if dollar:
        return "$"
    if not name or not name.isidentifier():
        raise UserError(f"{match[0]} is no variable; write ${{NAME}}, or $$ for a dollar sign")
    if not os.environ.get(name):
        state = "empty" if name in os.environ else "not set"
        raise UserError(f"the environment variable {name} is {state}; set it, or write $$ for a dollar sign")
    return os.environ[name]


def _checked(path: str) -> str:
    try:
        return expand(path)
    except UserError as error:
        raise wrong_text(str(error)) from None


def _escaped(path: str) -> str:
    """What `expand` turns into `path`: a recipe that was written reads back as it was."""
    return path.replace("$", "$$")


def _checked_files(given: Any) -> str | list[str]:
    if isinstance(given, list) and given and all(isinstance(path, str) for path in given):
        return [_checked(path) for path in given]
    if not isinstance(given, str):
        raise PydanticKnownError("string_type")
    return _checked(given)


def _escaped_files(paths: str | list[str]) -> str | list[str]:
    return _escaped(paths) if isinstance(paths, str) else list(map(_escaped, paths))


FilePath = Annotated[str, AfterValidator(_checked), PlainSerializer(_escaped, when_used="json")]
"""A path in a recipe: expanded when it is read."""

FilePaths = Annotated[
    str | list[str],
    PlainValidator(_checked_files),
    PlainSerializer(_escaped_files, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
"""One path in a recipe, or a list of them."""
