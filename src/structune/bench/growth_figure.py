"""Cost against size on logarithmic axes, with fitted exponents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from structune import structures
from structune.bench.growth import Curve, curves, exponent, theory
from structune.bench.method import FROZEN
from structune.bench.results import Results
from structune.figure_style import family_of, method_style, save, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = {"width": "d of a d×d layer", "tokens": "tokens"}


def draw_growth(results: Results, path: Path) -> None:
    """Draw the whole time and the time beyond the frozen layer, against d and against tokens.

    A colour is a line of the theory; one block is a hollow marker; families with options, such as a rank, are dashed.
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
            linestyle="--" if curve.method == FROZEN or _has_options(curve.kind) else "-",
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


def _has_options(kind: str) -> bool:
    family = family_of(kind)
    return family is not None and bool(structures.get(family).own_options())


def _colour(kind: str) -> str:
    """That of the method; families have one for each line of the theory: for n, up to n log n, and up to n log² n."""
    family = family_of(kind)
    if family is None:
        return method_style(kind)[0]
    times = structures.get(family).growth(1024) / 1024
    return method_style("lora" if times <= 1 else "hydra" if times <= 10 else "vera" if times <= 100 else "full")[0]
