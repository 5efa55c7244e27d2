"""Whether a value is of the type that a dataclass says."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from pydantic import JsonValue

from structune.annotation import unlike_annotation

if TYPE_CHECKING:
    from collections import OrderedDict


class Unknown:
    """Nothing that pydantic knows."""


@dataclass
class Config:
    size: int = 1
    start: bool | Literal["small", "Wide_[number]"] = True
    pairs: list[tuple[int, int]] | None = None
    unknown: Unknown | None = None


@dataclass
class OfTypeCheckers:
    order: OrderedDict[str, int] | None = None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 3),
        ("size", 0.5),
        ("start", False),
        ("start", "Wide_4"),
        ("pairs", [[0, 1]]),
        ("pairs", None),
        ("unknown", 3),
    ],
)
def test_what_fits(name: str, value: JsonValue) -> None:
    assert unlike_annotation(Config, name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("size", "3", "input should be a valid integer"),
        ("size", True, "input should be a valid integer"),
        ("size", None, "input should be a valid integer"),
        ("start", 1, "input should be a valid boolean; or input should be 'small' or 'Wide_[number]'"),
        ("pairs", [0, 1], "input should be a valid array"),
        ("pairs", {"a": [0, 1]}, "input should be a valid array"),
    ],
)
def test_what_does_not_fit(name: str, value: JsonValue, said: str) -> None:
    assert unlike_annotation(Config, name, value) == said


def test_an_annotation_that_cannot_be_worked_out_says_nothing() -> None:
    assert unlike_annotation(OfTypeCheckers, "order", 3) is None


@pytest.mark.parametrize("config", PEFT_TYPE_TO_CONFIG_MAPPING.values())
def test_peft_s_own_defaults_fit(config: type[Any]) -> None:
    """All but None, which it writes where an annotation has no place for it."""
    for field in fields(config):
        default = field.default
        if isinstance(default, bool | int | float | str):
            assert unlike_annotation(config, field.name, json.loads(json.dumps(default))) is None, field.name
