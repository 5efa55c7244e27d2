"""The spectra of an adapter's updates as a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structune.figure_style import save, tidy
from structune.inspection.spectrum import Spectrum
from structune.palette import GREY, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCE_RANK = 8  # of a usual LoRA
_FLOOR = 1e-3  # of σ₁; the little that is below is not shown
_LINES = ["-", "--", ":", "-."]
_MARKERS = "osD^v<>P"


@dataclass(frozen=True)
class _Curve:
    """A layer in the picture: its kind gives line and marker, its depth in the model the colour."""

    spectrum: Spectrum
    kind: str
    depth: int
    colour: str
    line: Any
    marker: str


def draw_spectra(modules: Sequence[str], spectra: Sequence[Spectrum], title: str, path: Path) -> None:
    """Draw each layer's singular values, relative to its largest, and its effective rank, to a PNG (2000 × 880 pixels).

    A colour is a depth in the model; a line style and marker are a kind of layer. Both panels mark rank 8, a usual
    LoRA's, and run to the largest rank that the layers allow, so that figures of several adapters can be laid side by
    side.

    Args:
        modules: dotted names of the layers, in the model's order.
        spectra: one each.
        title: of the figure.
        path: the file.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    curves = _curves(modules, spectra)
    figure = Figure(figsize=(10, 4.4), dpi=200, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _draw_values(left, curves)
    _draw_ranks(right, curves)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", parse_math=False)
    save(figure, path)


def _curves(modules: Sequence[str], spectra: Sequence[Spectrum]) -> list[_Curve]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    depths, names = _depths(modules), [module.rpartition(".")[2] for module in modules]
    kinds = list(dict.fromkeys(names))
    deepest = max(*depths, 1)
    return [
        _Curve(
            spectrum,
            name,
            depth,
            colour=to_hex(colormaps["viridis"](0.9 * depth / deepest)),
            line=_LINES[kinds.index(name) % len(_LINES)],
            marker=_MARKERS[kinds.index(name) % len(_MARKERS)],
        )
        for spectrum, name, depth in zip(spectra, names, depths, strict=True)
    ]


def _depths(modules: Sequence[str]) -> list[int]:
    """The first number in each name; where one has none, the places in the list."""
    numbers = [re.search(r"\.(\d+)\.", f".{module}.") for module in modules]
    found = [int(number[1]) for number in numbers if number]
    return found if len(found) == len(modules) else list(range(len(modules)))


def _draw_values(axes: Axes, curves: Sequence[_Curve]) -> None:
    from matplotlib.lines import Line2D

    for curve in curves:
        if curve.spectrum.spectral > 0:
            values = curve.spectrum.values / curve.spectrum.spectral
            axes.plot(range(1, len(values) + 1), values, color=curve.colour, linestyle=curve.line, linewidth=1.3)
    axes.set(xscale="log", yscale="log", ylim=(_FLOOR, 1.5), xlabel="index i", ylabel="σᵢ / σ₁")
    axes.set_title("singular values of ΔW", loc="left", fontsize=10)
    tidy(axes)
    _count_ranks(axes.xaxis, curves)
    axes.axvline(REFERENCE_RANK, color=GREY, linewidth=1, linestyle=(0, (1, 2)))
    axes.annotate(
        f"rank {REFERENCE_RANK}", (REFERENCE_RANK, _FLOOR), (4, 5), textcoords="offset points", color=INK, fontsize=9,
        annotation_clip=True,
    )  # fmt: skip
    kinds = {curve.kind: curve for curve in curves}
    ends = {depth: curve for curve in curves if (depth := curve.depth) in (curves[0].depth, curves[-1].depth)}
    handles = [
        Line2D([], [], color=GREY, linestyle=curve.line, marker=curve.marker, label=kind)
        for kind, curve in kinds.items()
    ] + [Line2D([], [], color=curve.colour, linewidth=3, label=f"layer {depth}") for depth, curve in ends.items()]
    axes.legend(handles=handles, fontsize=9, frameon=False, loc="lower left")


def _draw_ranks(axes: Axes, curves: Sequence[_Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    shown = [curve for curve in curves if curve.spectrum.spectral > 0]
    for kind in dict.fromkeys(curve.kind for curve in shown):
        alike = [curve for curve in shown if curve.kind == kind]
        ranks = [curve.spectrum.effective_rank for curve in alike]
        axes.plot([curve.depth for curve in alike], ranks, linestyle=alike[0].line, color=GREY, zorder=2)
        for curve, rank in zip(alike, ranks, strict=True):
            axes.plot(
                curve.depth, rank, color=curve.colour, marker=curve.marker, markersize=8, markeredgecolor="white",
                clip_on=False, zorder=3,
            )  # fmt: skip
    axes.set(yscale="log", xlabel="layer (depth in the model)")
    full = max(len(curve.spectrum.values) for curve in curves)
    axes.set_title(f"effective rank of ΔW, at most {full}", loc="left", fontsize=10)
    axes.set_xlim(min(curve.depth for curve in curves) - 0.3, max(curve.depth for curve in curves) + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)
    _count_ranks(axes.yaxis, curves)
    axes.axhline(REFERENCE_RANK, color=GREY, linewidth=1, linestyle=(0, (1, 2)))
    axes.annotate(
        f"rank {REFERENCE_RANK}", (1, REFERENCE_RANK), (-2, 4), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", color=INK, fontsize=9, annotation_clip=True,
    )  # fmt: skip


def _count_ranks(axis: Any, curves: Sequence[_Curve]) -> None:
    """A logarithmic axis from 1 to the largest rank possible, with powers of two as ticks."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    full = max(len(curve.spectrum.values) for curve in curves)
    axis.set_major_locator(FixedLocator([2**n for n in range(full.bit_length()) if 2**n <= full / 1.6] + [full]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_view_interval(1, max(full, 2), ignore=True)
