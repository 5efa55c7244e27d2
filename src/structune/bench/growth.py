"""How cost grows with a size: the exponent that was measured, beside that of the theory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from structune import structures
from structune.bench.lines import Line, lines
from structune.bench.results import Results
from structune.figure_style import family_of


@dataclass(frozen=True)
class Curve:
    """One method's cost against one growing size.

    Attributes:
        method, kind: as in the rows.
        sizes: d of a d×d layer, or tokens, ascending.
        ms: median milliseconds at each.
        extra_ms: beyond the frozen layer.
    """

    method: str
    kind: str
    sizes: list[float]
    ms: list[float]
    extra_ms: list[float]


def is_growth(results: Results) -> bool:
    """Whether the cases of a suite form series."""
    return any(case.get("series") for case in results.suite["cases"])


def curves(results: Results, series: str) -> list[Curve]:
    """The methods' costs along a series, `width` or `tokens`; methods never measured are left out."""
    points: dict[str, list[tuple[float, Line]]] = {}
    for content, case in zip(results.suite["cases"], results.cases, strict=True):
        if content.get("series") == series:
            size = float(content["weight"][1] if series == "width" else content["tokens"])
            for line in lines(results, case):
                if line.ms is not None:
                    points.setdefault(line.row.method, []).append((size, line))
    found = []
    for method, measured in points.items():
        measured.sort(key=lambda point: point[0])
        found.append(
            Curve(
                method,
                measured[0][1].row.kind,
                [size for size, _ in measured],
                [line.ms.median for _, line in measured if line.ms],
                [line.extra_ms or 0.0 for _, line in measured],
            )
        )
    return found


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """a of the least-squares fit value ∝ sizeᵃ on logarithms, over the upper half of the sizes (geometrically).

    Values that are not positive are left out; None when fewer than three are left.
    """
    middle = math.sqrt(min(sizes) * max(sizes))
    kept = [(size, value) for size, value in zip(sizes, values, strict=True) if size >= middle and value > 0]
    if len(kept) < 3:
        return None
    logs = np.log(kept)
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def theory(kind: str, sizes: Sequence[float]) -> float | None:
    """The exponent that theory promises over the same sizes, for the product with one vector of n numbers.

    That of the method's family (`Structure.growth`, HyDRA's Table 1), or n² for a dense matrix; fitted like the
    measurements, so that log n counts.
    """
    found = growth(kind)
    return None if found is None else exponent(sizes, [found(size) for size in sizes])


def growth(kind: str) -> Callable[[float], float] | None:
    """How the cost of a kind of method grows with n; None where nothing is promised."""
    if kind in ("frozen", "full"):
        return lambda n: n**2
    family = {"lora": "low_rank", "c3a": "circulant"}.get(kind) or family_of(kind)
    return None if family is None else structures.get(family).growth
