"""What every part of a recipe has in common, and how its mistakes are told."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from structune.errors import UserError


class Section(BaseModel):
    """Part of a recipe: unknown keys and wrong types are refused, values do not change after validation."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)


def explain(error: ValidationError, root: type[Section], where: str) -> UserError:
    """Pydantic's errors as lines that name the field, the value and the fix."""
    return UserError("\n".join(f"{where}: {_line(problem, root)}" for problem in error.errors()))


def wrong_text(reason: str) -> PydanticCustomError:
    """What a validator of one text raises: told as `path = 'text': reason`."""
    return PydanticCustomError("wrong_text", "{reason}", {"reason": reason})


def kinds(root: type[Section], keys: Sequence[str]) -> set[Any]:
    """The types (`str`, `NoneType`, `list`, ...) that the field of that dotted name may have; none if unknown."""
    here: list[type[Section]] = [root]
    for key in keys[:-1]:
        here = [section for cls in here if key in cls.model_fields for section in _sections(_annotation(cls, key))]
    return {kind for cls in here if keys[-1] in cls.model_fields for kind in _alternatives(_annotation(cls, keys[-1]))}


def _annotation(cls: type[Section], key: str) -> Any:
    return cls.model_fields[key].annotation


def _alternatives(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _alternatives(part)]
    return [NoneType if annotation is None else origin or annotation]


def inside_a_line(problem: ErrorDetails) -> str:
    """Pydantic's message as it stands after a colon: names in it keep their capitals."""
    return problem["msg"][:1].lower() + problem["msg"][1:]


def _line(problem: ErrorDetails, root: type[Section]) -> str:
    path, known = _locate(problem["loc"], root)
    value = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            key = path.rpartition(".")[2]
            return f"{path}: unknown key{closest(key, known)}; known keys: {', '.join(known)}"
        case "union_tag_invalid":
            tag = problem["ctx"]["tag"]
            names = [name.strip(" '") for name in problem["ctx"]["expected_tags"].split(",")]
            return f"{path}.name = {tag!r}: unknown{closest(tag, names)}; known: {', '.join(names)}"
        case "union_tag_not_found":
            return f"{path}: give the section a name, for example {{name: c3a}}"
        case "missing":
            return f"{path}: missing"
        case "literal_error":
            names = [name.strip(" '") for name in problem["ctx"]["expected"].replace(" or ", ", ").split(",")]
            return f"{path} = {value!r}: expected {problem['ctx']['expected']}{closest(str(value), names)}"
        case "string_type" if value is None:
            return f"{path}: nothing there; put a text that begins with # in quotes, YAML takes it for a comment"
        case "string_type":
            return f"{path} = {value!r}: must be a text; {_as_text(value)}"
        case "value_error":
            reason = str(problem["ctx"]["error"])
            return f"{path}: {reason}" if path else reason
        case _:
            return f"{path} = {value!r}: {inside_a_line(problem)}"


def _as_text(value: Any) -> str:
    return "give one" if isinstance(value, list | dict) else "put it in quotes"


def _locate(loc: tuple[int | str, ...], root: type[Section]) -> tuple[str, list[str]]:
    """The dotted name a user would write for `loc`, and the keys known in the section that holds it."""
    names: list[str] = []
    known: list[str] = []
    here: list[type[Section]] = [root]
    for part in loc:
        tagged = [cls for cls in here if _tag(cls) == part]
        if tagged and len(here) > 1:
            here = tagged
            continue
        names.append(str(part))
        if isinstance(part, int):  # an element of a list of sections
            continue
        known = [key for cls in here for key in cls.model_fields]
        here = [c for cls in here if part in cls.model_fields for c in _sections(_annotation(cls, str(part)))]
    return ".".join(names), list(dict.fromkeys(known))


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, Section) else []
    return [section for part in getattr(annotation, "__args__", ()) for section in _sections(part)]


def _tag(cls: type[Section]) -> str | None:
    field = cls.model_fields.get("name")
    return field.default if field is not None else None


def closest(word: str, known: list[str]) -> str:
    """`" (did you mean 'x'?)"`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
