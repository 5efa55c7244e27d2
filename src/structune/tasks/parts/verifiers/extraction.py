"""What of a longer text is its answer: the number behind `####`, a choice's letter, the last number, all of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import AfterValidator

from structune.section import closest, wrong_text

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_GSM8K = re.compile(rf"####\s*\$?\s*({_NUMBER.pattern})")
_CHOICE = re.compile(r"(?<![A-Za-z])\(?([A-Z])\)?(?![A-Za-z'])")


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    """The last match of the pattern: its group where it has one."""
    found = None
    for match in pattern.finditer(text):
        found = match
    return None if found is None else found[found.re.groups]


RULES: dict[str, Callable[[str], str | None]] = {
    "whole": lambda text: text.strip() or None,
    "number": lambda text: _last(_NUMBER, text),
    "gsm8k": lambda text: _last(_GSM8K, text),
    "choice": lambda text: _last(_CHOICE, text),
}
"""By name: all of the text, its last number, the last number behind `####`, its last single capital letter."""


def extract(rule: str, text: str) -> str | None:
    """The answer in a text; None where there is none.

    Args:
        rule: one of `RULES`, or a regular expression with one group, whose last match counts.
        text: what is looked at.
    """
    return RULES[rule](text) if rule in RULES else _last(re.compile(rule, re.DOTALL), text)


def same(one: str, other: str) -> bool:
    """Whether two answers are the same: as numbers where both are some (1,234.0 and 1234), else but for case."""
    first, second = _as_number(one), _as_number(other)
    if first is not None and second is not None:
        return first == second
    return " ".join(one.casefold().split()) == " ".join(other.casefold().split())


def _as_number(text: str) -> Decimal | None:
    """The number that the whole text is, with a sign of currency or percent or without."""
    plain = text.strip().lstrip("$€£").rstrip("%.").replace(",", "")
    try:
        return Decimal(plain) if _NUMBER.fullmatch(plain) else None
    except InvalidOperation:
        return None


def _checked(rule: str) -> str:
    if rule in RULES:
        return rule
    try:
        groups = re.compile(rule, re.DOTALL).groups
    except re.error as error:
        raise wrong_text(f"is no regular expression ({error})") from None
    if groups != 1:
        raise wrong_text(
            f"is none of {', '.join(RULES)}{closest(rule, list(RULES))}, and as a regular expression it has {groups} "
            f"groups; put one pair of ( ) around what the answer is"
        )
    return rule


Rule = Annotated[str, AfterValidator(_checked)]
"""In a recipe: a name out of `RULES`, or a regular expression with one group."""
