"""How cost grows with a size: the exponent that was measured, beside that of the theory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from structune.bench.lines import Line, lines
from structune.bench.results import Results


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
    """The exponent that HyDRA's Table 1 promises over the same sizes, for the product with one vector of n numbers.

    n for low rank, n log n for circulant, Toeplitz and Hankel blocks, n log² n for Vandermonde and Cauchy blocks (times
    the rank for the "-like" ones), n² for a dense matrix; fitted like the measurements, so that log n counts.
    """
    growth = _growth(kind)
    return None if growth is None else exponent(sizes, [growth(size) for size in sizes])


def _growth(kind: str) -> Callable[[float], float] | None:
    if kind in ("frozen", "full"):
        return lambda n: n * n
    family = kind.partition("-")[2].removesuffix("-like")
    if kind == "lora" or family == "low-rank":
        return lambda n: n
    if kind == "c3a" or family in ("circulant", "toeplitz", "hankel"):
        return lambda n: n * math.log2(n)
    if family in ("vandermonde", "cauchy"):
        return lambda n: n * math.log2(n) ** 2
    return None
