"""How figures look and are saved."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from structune import structures
from structune.errors import UserError
from structune.files import write_bytes
from structune.methods.registry import look
from structune.palette import BLACK, GREY, GRID, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from structune.methods.method import Method


def method_style(method: str) -> tuple[str, str]:
    """(colour, marker) of a method by its short name: the same in every figure, a colour a kind, a marker a family."""
    colour, marker = look(method) or (BLACK, "o")
    return colour, _marker_of(method, marker)


def style_of(method: Method) -> tuple[str, str]:
    """`method_style` of a method's settings, whatever its short name is."""
    return method.colour, _marker_of(method.label, method.marker)


def _marker_of(method: str, otherwise: str) -> str:
    """A method's family's, by its short name."""
    family = family_of(method)
    return otherwise if family is None else str(structures.declared(family, "marker"))


def family_of(method: str) -> str | None:
    """The family in the short name of a method, as hydra-toeplitz has it; None where there is none that is known."""
    kind, _, family = method.partition("-")
    family = family.replace("-", "_")
    return family if kind in ("hydra", "structune") and family in structures.names() else None


def tidy(axes: Axes, grid: str = "both") -> None:
    """Quiet axes: no box, a pale grid behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=GREY, labelcolor=INK, which="both")
    axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
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
