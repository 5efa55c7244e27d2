"""What may be said about where adapters go."""

from __future__ import annotations

import re
from typing import Any


def check_names(argument: str, value: Any, *, expression: bool = False, single: bool = False) -> None:
    """Raise ValueError unless a value is None or a collection of module names.

    Args:
        argument: its name, for the message.
        value: what was given.
        expression: whether one string, a regular expression, will do too.
        single: whether one string, a name, will do too.
    """
    if value is None or (isinstance(value, str) and single):
        return
    if isinstance(value, str) and expression:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(
                f"{argument}={value!r} is no regular expression ({error}): give a list of names"
            ) from error
        return
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(name, str) for name in value):
        return
    forms = (
        "a list of names" + (" or one regular expression" if expression else "") + (" or one name" if single else "")
    )
    raise ValueError(f"{argument}={value!r} must be {forms}, or None")


def check_adapter_name(name: str) -> None:
    """Raise ValueError unless a name can be a module's and a folder's: no dots, slashes or control characters."""
    if not isinstance(name, str) or not re.fullmatch(r"[^./\\\x00-\x1f]+", name):
        raise ValueError(f"adapter_name={name!r} must be a plain name, without dots, slashes and control characters")


def check_layer_numbers(value: Any) -> None:
    """Raise ValueError unless layers_to_transform is None, a number or a list of numbers, from 0."""
    numbers = [] if value is None else value if isinstance(value, (list, tuple, set, range)) else [value]
    if any(isinstance(number, bool) or not isinstance(number, int) or number < 0 for number in numbers):
        raise ValueError(f"layers_to_transform={value!r} must be a layer's number or a list of them, counted from 0")


def check_tokens(value: Any) -> None:
    """Raise ValueError unless trainable_token_indices is None, a list of token numbers, or one for each embedding."""
    lists = [] if value is None else list(value.values()) if isinstance(value, dict) else [value]
    names = list(value) if isinstance(value, dict) else []
    for numbers in lists:
        whole = isinstance(numbers, (list, tuple)) and all(type(number) is int and number >= 0 for number in numbers)
        if not whole or not numbers or len(set(numbers)) < len(numbers) or not all(isinstance(n, str) for n in names):
            raise ValueError(
                f"trainable_token_indices={value!r} must be a list of the tokens' numbers, each once and counted from "
                "0, or a dictionary with one for each embedding's name"
            )
