"""How figures look and are saved. The colours are those of Okabe and Ito, which colour-blind readers tell apart."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from structune import structures
from structune.errors import UserError
from structune.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY = "#333333", "#8a8a8a"
_GRID = "#e6e6e6"
_BLUE, _VERMILION, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
_ORANGE, _SKY, _BLACK = "#E69F00", "#56B4E9", "#000000"

_COLOURS = {
    "c3a": _BLUE,
    "peft-c3a": _SKY,
    "hydra": _VERMILION,
    "structune": _ORANGE,
    "lora": _GREEN,
    "vera": _PURPLE,
    "boft": _PURPLE,
    "ia3": _PURPLE,
    "tinylora": _SKY,
    "unilora": _PURPLE,
    "vblora": _BLACK,
    "bitfit": _BLACK,
    "full": _BLACK,
    "head": GREY,
}
_MARKERS = {"boft": "s", "ia3": "^", "tinylora": "v", "unilora": "D", "vblora": "P", "full": "D"}


def method_style(method: str) -> tuple[str, str]:
    """(colour, marker) of a method by its short name: the same in every figure, a colour a kind, a marker a family."""
    kind = method if method in _COLOURS else method.partition("-")[0]
    family = family_of(method)
    marker = _MARKERS.get(kind, "o") if family is None else structures.declared(family, "marker")
    return _COLOURS.get(kind, _BLACK), marker


def family_of(method: str) -> str | None:
    """The family in the short name of a method, as hydra-toeplitz has it; None where there is none that is known."""
    kind, _, family = method.partition("-")
    family = family.replace("-", "_")
    return family if kind in ("hydra", "structune") and family in structures.names() else None


def tidy(axes: Axes, grid: str = "both") -> None:
    """Quiet axes: no box, a pale grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=GREY, labelcolor=INK, which="both")
    axes.grid(axis=grid, color=_GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        UserError: it cannot be written there.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    try:
        write_bytes(path, picture.getvalue())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name a folder with --out") from None
