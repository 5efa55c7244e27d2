"""Figures: colours that can be told from paper, one drawing for page and file, diagrams true to scale."""

from __future__ import annotations

import io
import re

import pytest
from matplotlib.figure import Figure
from PIL import Image

from structune.palette import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from structune.study.report.figures.axes import task_looks
from structune.study.report.figures.contrast import contrast, readable
from structune.study.report.figures.critical_difference import draw_critical_difference
from structune.study.report.figures.scores import draw_scores, score_panel
from structune.study.report.line_looks import Line
from structune.study.report.page import DARK, LIGHT
from structune.study.report.ranks import Ranks
from structune.tasks.task import Metric


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("#000000", "#ffffff", 21.0),
        ("#ffffff", "#ffffff", 1.0),
        ("#777777", "#ffffff", 4.48),
        ("#ff0000", "#ffffff", 4.0),
    ],
)
def test_contrast_is_wcag_s(one: str, other: str, ratio: float) -> None:
    """#777777 on white is the well-known grey that just fails 4.5; red has 0.2126 of white's luminance."""
    assert contrast(one, other) == pytest.approx(ratio, abs=0.01)
    assert contrast(other, one) == contrast(one, other)


@pytest.mark.parametrize("paper", [LIGHT, DARK])
@pytest.mark.parametrize("colour", [BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY])
def test_lines_are_told_from_the_paper(paper: str, colour: str) -> None:
    shown = readable(colour, paper, 3.0)
    assert contrast(shown, paper) >= 3.0
    if contrast(colour, paper) >= 3.0:
        assert shown == colour.lower()


def test_a_diagram_s_ranks_lie_to_scale() -> None:
    labels = ["best", "<second>", "third", "last"]
    drawn = draw_critical_difference(
        Ranks(labels, [1.25, 2.0, 2.75, 4.0], ["t"], [], 1.5, [(0, 2), (2, 3)], ""), "cd", ""
    )
    bars = [
        (float(one), float(other))
        for one, other in re.findall(r'd="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \n"[^>]*stroke-width: 3.5', drawn.svg)
    ]
    assert len(bars) == 2
    scale = re.search(r'd="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ \n"[^>]*stroke-width: 1.6', drawn.svg)
    unit = (float(scale[2]) - float(scale[1])) / 1.5
    lengths = [(end - begin) / unit for begin, end in bars]
    assert lengths == pytest.approx([2.75 - 1.25 + 0.08, 4.0 - 2.75 + 0.08], abs=0.01)
    assert (bars[0][0] - float(scale[1])) / unit == pytest.approx(0.25 - 0.04, abs=0.01)
    assert "&lt;second&gt;  2.00" in drawn.svg
    with Image.open(io.BytesIO(drawn.png)) as picture:
        width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn.svg).groups())
        assert picture.width / picture.height == pytest.approx(width / height, rel=0.01)


def test_what_trains_no_number_and_what_is_to_be_beaten_are_level_lines() -> None:
    """A logarithmic axis has no place for zero numbers."""
    rows = [
        {"method": "head", "numbers": 0, "test": [0.5, 0.6]},
        {"method": "LoRA", "numbers": 100, "test": [0.7, 0.8]},
        {"method": "pool", "numbers": 10_000, "test": [0.9]},
    ]
    looks = {
        row["method"]: Line(row["method"], colour, "o", "-", colour)
        for row, colour in zip(rows, (SKY, GREEN, BLUE), strict=True)
    }
    svg = draw_scores(rows, Metric("accuracy", "accuracy", range=(0, 1)), looks, "LoRA", "scores", "").svg
    assert {"head, no adapter", "to beat: LoRA, 75.0", "LoRA", "pool"} <= set(
        re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    )
    levels = [
        float(one)
        for one, other in re.findall(r'd="M [\d.]+ ([\d.]+) \nL [\d.]+ ([\d.]+) \n"[^>]*stroke-dasharray', svg)
        if one == other and float(one) < 300  # above the legend
    ]
    ticks = {
        float(label): float(y) for y, label in re.findall(r'y="([\d.]+)"[^>]*>(\d\d)</text>', svg) if float(y) < 300
    }
    (low, at_low), *_, (high, at_high) = sorted(ticks.items())
    heights = [low + (at - at_low) / (at_high - at_low) * (high - low) for at in levels]
    assert sorted(heights) == pytest.approx([55.0, 75.0], abs=1.0)


@pytest.mark.parametrize(
    ("tests", "shown"),
    [
        ((0.801, 0.803), (78.2, 82.2)),  # two tenths of a point are no mountain
        ((0.5, 0.9), (48.0, 92.0)),
    ],
)
def test_small_differences_look_small(tests: tuple[float, float], shown: tuple[float, float]) -> None:
    rows = [{"method": m, "numbers": 100, "test": [test]} for m, test in zip("ab", tests, strict=True)]
    looks = {m: Line(m, BLUE, "o", "-", BLUE) for m in "ab"}
    axes = Figure().subplots()
    score_panel(axes, rows, Metric("accuracy", "accuracy", percent=True, range=(0, 1)), looks)
    assert axes.get_ylim() == pytest.approx(shown, abs=0.01)
    axes = Figure().subplots()
    score_panel(axes, rows, Metric("loss", "loss", greater_is_better=False, range=(0, None)), looks)
    low, high = axes.get_ylim()
    assert high - low < 1.2 * (tests[1] - tests[0])  # a loss has no scale of its own


def test_many_tasks_are_told_apart() -> None:
    assert len(set(task_looks([str(n) for n in range(42)]).values())) == 42
