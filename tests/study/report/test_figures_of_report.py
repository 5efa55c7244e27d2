"""Figures: colours that can be told from paper, one drawing for page and file, diagrams true to scale."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from structune.palette import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from structune.study.report.figures.contrast import contrast, readable
from structune.study.report.figures.critical_difference import draw_critical_difference
from structune.study.report.page import DARK, LIGHT
from structune.study.report.ranks import Ranks


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
