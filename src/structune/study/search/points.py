"""What a search tries: a learning rate, and whatever else its file names a range for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count, product, takewhile
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from structune.methods.method import Method
from structune.section import Section

Value = bool | int | float | str

_DIGITS = 3
"""Significant digits of what is drawn, so that a point has one name and is the same on every machine."""


_LISTED = 1000


class Point(NamedTuple):
    """One try.

    Attributes:
        rate: the learning rate.
        more: other settings by name, `train.KEY` or `method.KEY`.
    """

    rate: float
    more: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Point:
        """Of all values by name, the rate among them as `rate`; in whatever order a file has them."""
        return cls(float(values["rate"]), tuple(sorted((key, value) for key, value in values.items() if key != "rate")))

    @classmethod
    def of_run(cls, run: Mapping[str, Any]) -> Point:
        """What a run was made with, by its result."""
        return cls.of({"rate": run["rate"], **run.get("tried", {})})

    def values(self) -> dict[str, Value]:
        """All values by name."""
        return {"rate": self.rate, **dict(self.more)}

    def words(self) -> list[str]:
        """For a person and for a file's name: `lr=0.004`, `alpha=16`."""
        return [f"lr={self.rate:.3g}", *(f"{key.rpartition('.')[2]}={value}" for key, value in self.more)]

    def inside(self, space: Space) -> bool:
        """Whether it is one of what is searched."""
        values = self.values()
        return values.keys() == space.keys() and all(space[name].has(value) for name, value in values.items())

    def section(self, name: str) -> dict[str, Value]:
        """What belongs into the section `train` or `method` of a recipe, beside the rate."""
        return {key.partition(".")[2]: value for key, value in self.more if key.startswith(f"{name}.")}


class RangeSection(Section):
    """What one setting may be: `choices`, or anything from `low` to `high`.

    Whole numbers stay whole. `log` has ratios count instead of differences; `step` leaves out what is between its
    multiples above `low`. Anything else is drawn with three digits, and so `low` and `high` have no more.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None
    choices: Annotated[list[Value], Field(min_length=1)] | None = None

    @field_validator("low", "high")
    @classmethod
    def _short(cls, value: float | None) -> float | None:
        if isinstance(value, float) and value != _short(value):
            raise ValueError(f"{value} has more than {_DIGITS} digits: give it as {_short(value)}")
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> RangeSection:
        if self.choices is not None:
            if self.model_fields_set - {"choices"}:
                raise ValueError("choices stand alone: leave out low, high, log and step, or choices")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}")
        if self.log and (self.step is not None or self.low <= 0):
            raise ValueError("log goes with a low above 0, and with no step")
        if self.whole and self.step is not None and not float(self.step).is_integer():
            raise ValueError(f"step = {self.step} between whole numbers: give a whole one, or low with a point")
        return self

    @property
    def whole(self) -> bool:
        """Whether it is of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def rounded(self, value: Any) -> Value:
        """A value that was drawn, as it is used and named."""
        if self.choices is not None or self.whole:
            return value
        return float(f"{value:.10g}") if self.step is not None else _short(value)

    def ends(self) -> tuple[int | float, int | float]:
        """The least and the greatest, where there are no choices."""
        assert self.low is not None
        assert self.high is not None
        return self.low, self.high

    def values(self) -> list[Value] | None:
        """Every value that it has; None: it has any between its ends, or too many to be listed."""
        if self.choices is not None:
            return self.choices
        (low, high), step = self.ends(), 1 if self.step is None else self.step
        if high - low > _LISTED * step or (self.step is None and not self.whole):
            return None
        steps = takewhile(lambda value: value <= high * (1 + 1e-12), (low + number * step for number in count()))
        return [int(value) if self.whole else float(f"{value:.10g}") for value in steps]

    def has(self, value: Any) -> bool:
        """Whether a value is one of these."""
        if (values := self.values()) is not None:
            return value in values
        low, high = self.ends()
        return isinstance(value, (int, float)) and low <= value <= high


Space = dict[str, RangeSection]
"""What is searched, by name; the rate is `rate`."""


def listed(space: Space) -> list[Point]:
    """Every point, the last range running fastest; none where a range cannot be listed."""
    values = [each.values() or [] for each in space.values()]
    return [Point.of(dict(zip(space, point, strict=True))) for point in product(*values)]


_NAME = re.compile(r"(train|method)\.\w+")


class SearchSection(Section):
    """A search whose tries are drawn: `trials` of them for every method on every task, on the first seed.

    `sampler` is one of Optuna's (`tpe`, `gp`, `random`), or `grid`: every combination. The rate is between the least
    and the greatest of the method's `rates` on a logarithmic scale, of a grid one of them. `ranges` are of what is
    searched beside it, by name: `train.KEY` for every method, `method.KEY` for those that have the option.
    """

    sampler: Literal["tpe", "gp", "random", "grid"] = "tpe"
    trials: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0
    ranges: dict[str, RangeSection] = Field(default_factory=dict)

    @field_validator("ranges")
    @classmethod
    def _known(cls, ranges: dict[str, RangeSection]) -> dict[str, RangeSection]:
        for name in ranges:
            if name in ("rate", "train.learning_rate", "train.learning_rates"):
                raise ValueError(f"{name}: rates are searched between the ends of `rates`; leave this range out")
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name}: name a setting of a recipe's section, train.KEY or method.KEY")
        return ranges

    def space(self, rates: Sequence[float], method: Method) -> Space:
        """What is searched of one method, whose rates are these."""
        low, high = min(rates), max(rates)
        ends = RangeSection(low=_short(low), high=_short(high), log=True) if low < high else None
        rate = RangeSection(choices=sorted(rates)) if self.sampler == "grid" or ends is None else ends
        own = {
            name: each
            for name, each in sorted(self.ranges.items())
            if name != f"train.{method.searched_rate}" and _has(method, name)
        }
        return {"rate": rate, **own}


def _has(method: Method, name: str) -> bool:
    section, _, key = name.partition(".")
    return section == "train" or key in type(method).model_fields


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
