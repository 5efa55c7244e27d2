"""Recipes as YAML text: reading with plain numbers, dotted overrides, writing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from structune.doubt import say
from structune.errors import UserError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but `1e-3` is a float (as in YAML 1.2), and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


_COMMENT_AS_VALUE = re.compile(r"^( *)\w+:[ \t]+#\w.*$(?!(?:[ \t]*\n)+\1 +\S)", re.MULTILINE)  # and no section begins
_NULL = ("null", "Null", "NULL", "~")


def read(path: Path, what: str = "recipe", such_as: str = "'model:' and 'data:'") -> dict[str, Any]:
    """The mapping in a YAML file. Messages say `what` it is, and name some of its sections.

    Raises:
        UserError: no such file, not UTF-8, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = sorted(str(p) for p in path.parent.glob("*.yaml"))[:8]
        hint = f"; {what}s there: {', '.join(near)}" if near else ""
        raise UserError(f"{what} {str(path)!r}: no such file{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {str(path)!r}: cannot be read as UTF-8 text ({error})") from None
    content = _parse(text, f"{what} {str(path)!r}")
    say(
        f"{what} {str(path)!r}: {comment[0].strip()!r} sets nothing: # begins a comment; for a text put it in quotes"
        for comment in _COMMENT_AS_VALUE.finditer(text)
    )
    if not isinstance(content, dict):
        raise UserError(f"{what} {str(path)!r}: expected sections such as {such_as}, found {_short(content)}")
    return content


def apply_override(
    content: dict[str, Any], override: str, kinds: Callable[[Sequence[str]], set[Any]] = lambda keys: set()
) -> None:
    """Set one value in place: `"train.learning_rate=1e-3"`. Missing sections are made.

    A value is read as YAML, but where `kinds` says that a key takes text it is taken as it stands: `#`, `: `,
    `*` and the like mean nothing there. Quotes around the whole of it, and spaces around it, are left out.

    Raises:
        UserError: no `=`, an empty key, a value that is not YAML, or a path through something that is no section.
    """
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"--set {override!r}: write it as section.key=value, for example train.learning_rate=1e-3")
    section = content
    for depth, part in enumerate(parts[:-1]):
        if section.get(part) is None:  # a section whose keys are all commented out is there, with nothing in it
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            raise UserError(
                f"--set {override!r}: {'.'.join(parts[: depth + 1])} is {section!r}, not a section; "
                f"set it whole, or give it as a section in the recipe"
            )
    section[parts[-1]] = _value(value, kinds(parts), f"--set {override!r}")


def _value(value: str, kinds: set[Any], where: str) -> Any:
    plain = value.strip()
    if str not in kinds or (list in kinds and plain.startswith("[")):
        return _parse(value, where)
    if NoneType in kinds and (value == "" or plain in _NULL):
        return None
    if len(plain) > 1 and plain[0] in "'\"" and plain[-1] == plain[0]:
        try:
            return str(_parse(plain, where))
        except UserError:  # quotes that do not enclose the whole
            pass
    return plain or value


def dump(content: dict[str, Any]) -> str:
    """YAML text, keys in the order given."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


def dump_inline(value: Any) -> str:
    """A value as YAML on one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).strip().removesuffix("\n...")
    )


def _short(content: Any) -> str:
    shown = repr(content)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{where}{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {error}") from None
