"""What an evaluation says and draws besides the scores, where each example has one of several classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from structune.tasks.parts.classes.calibration import calibration_error, draw_reliability, reliability
from structune.tasks.parts.classes.classes import CLASS_FIGURES
from structune.tasks.parts.classes.confusion import confusion, per_class, probabilities
from structune.tasks.parts.classes.confusion_figure import draw_confusion


def class_details(logits: NDArray[Any], labels: NDArray[Any], names: Sequence[str]) -> dict[str, Any]:
    """A table by class, the expected calibration error, and the bins that it comes from.

    Args:
        logits: (examples, classes).
        labels: (examples,) numbers of the true classes.
        names: of the classes.
    """
    counts = confusion(logits.argmax(-1), labels, len(names))
    rows = _reliability(logits, labels)
    return {
        "classes": dict(zip(names, per_class(counts), strict=True)),
        "expected_calibration_error": calibration_error(rows),
        "calibration": rows,
    }


def draw_classes(logits: NDArray[Any], labels: NDArray[Any], names: Sequence[str], folder: Path) -> list[Path]:
    """Draw what is taken for what, and whether probabilities mean what they say; the files, `CLASS_FIGURES`."""
    matrix, diagram = (folder / name for name in CLASS_FIGURES)
    counts = confusion(logits.argmax(-1), labels, len(names))
    return [draw_confusion(counts, names, matrix), draw_reliability(_reliability(logits, labels), diagram)]


def _reliability(logits: NDArray[Any], labels: NDArray[Any]) -> list[dict[str, float]]:
    return reliability(probabilities(logits).max(-1), logits.argmax(-1) == labels)
