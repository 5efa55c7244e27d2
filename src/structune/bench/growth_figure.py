"""Cost against size on logarithmic axes, with fitted exponents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from structune.bench.growth import Curve, curves, exponent, theory
from structune.bench.method import FROZEN
from structune.bench.results import Results
from structune.study.style import method_style, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = {"width": "d of a d×d layer", "tokens": "tokens"}


def draw_growth(results: Results, path: Path) -> None:
    """Draw the whole time and the time beyond the frozen layer, against d and against tokens.

    A colour is a kind of structure; one block is a hollow marker, "-like" families are dashed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), dpi=150, layout="constrained")
    grid = figure.subplots(2, 2, squeeze=False)
    for column, (series, label) in enumerate(SERIES.items()):
        found = curves(results, series)
        for row, whole in enumerate((True, False)):
            axes = grid[row][column]
            _draw_curves(axes, found, series, whole)
            axes.set_xlabel(label, fontsize=9)
            axes.set_ylabel("ms" if whole else "ms beyond the frozen layer", fontsize=9)
    figure.suptitle(results.suite["title"], x=0.01, ha="left", fontsize=12, fontweight="bold")
    save(figure, path)


def _draw_curves(axes: Axes, found: Sequence[Curve], series: str, whole: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for curve in found:
        if curve.method == FROZEN and not whole:
            continue
        _, marker = method_style(curve.kind)
        values = curve.ms if whole else [value if value > 0 else float("nan") for value in curve.extra_ms]
        axes.plot(
            curve.sizes, values, marker=marker, color=_colour(curve.kind), markersize=5, linewidth=1.1,
            linestyle="--" if curve.kind.endswith("-like") or curve.method == FROZEN else "-",
            fillstyle="none" if "-k1" in curve.method else "full", label=_label(curve, series, whole),
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=4 if series == "tokens" else 2))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value / 1024:g}k" if value >= 1024 else f"{value:g}")
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    tidy(axes)
    axes.tick_params(labelsize=8)
    if found:
        axes.legend(fontsize=7, title="exponent", title_fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5),
                    frameon=False)  # fmt: skip


def _label(curve: Curve, series: str, whole: bool) -> str:
    fitted = exponent(curve.sizes, curve.ms if whole else curve.extra_ms)
    label = f"{curve.method}  {'–' if fitted is None else f'{fitted:.2f}'}"
    expected = theory(curve.kind, curve.sizes) if series == "width" and not whole else None
    return label if expected is None else f"{label} (theory {expected:.2f})"


def _colour(kind: str) -> str:
    """One for each line of the theory: its own for convolutions, for Vandermonde and Cauchy, for low rank."""
    family = kind.partition("-")[2].removesuffix("-like")
    group = {"low-rank": "lora", "vandermonde": "vera", "cauchy": "vera"}.get(family)
    if group is None:
        group = "hydra" if family in ("circulant", "toeplitz", "hankel") else kind
    return method_style(group)[0]
