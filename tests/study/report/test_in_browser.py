"""The page as Chromium shows it: quiet, alone, sortable, narrow enough for a phone, readable in the dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from structune.study.report.page import write_report

from .conftest import HOSTILE, MadeUp

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on the PATH, such as Debian's package of that name"
)

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def window(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page, opened once."""
    with playwright.sync_playwright() as driver:
        profile = tmp_path_factory.mktemp("profile")
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=FLAGS, viewport={"width": 1200, "height": 900}
        )
        yield opened(context.pages[0], report / "report.html")
        context.close()


def opened(page: Any, path: Path) -> Any:
    """A report in a page of the browser; `said` and `asked` are its console and its requests."""
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.set_default_timeout(5000)
    page.goto(path.as_uri())
    return page


def too_faint(page: Any) -> list[Any]:
    """What has less contrast than WCAG AA asks for; what is no text needs less."""
    return [one for one in page.evaluate(CONTRASTS) if one[2] < (3 if one[0] == "sign" else 4.5)]


def column(window: Any, number: int) -> list[str]:
    """The visible entries of a column of the large table."""
    script = "number => [...document.querySelectorAll('#whole tbody tr')].filter(row => !row.hidden)"
    return window.evaluate(f"{script}.map(row => row.cells[number].textContent)", number)


def heading(window: Any, text: str) -> int:
    """The number of a column."""
    titles = window.locator("#whole thead th").all_text_contents()
    return next(number for number, title in enumerate(titles) if title.startswith(text))


def test_nothing_is_asked_for_and_nothing_goes_wrong(window: Any, report: Path) -> None:
    window.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert window.said == []
    assert [url for url in window.asked if not url.startswith("data:")] == [(report / "report.html").as_uri()]


@pytest.mark.parametrize("title", ["trained numbers", "test score", "against LoRA r=8"])
def test_a_click_sorts_numbers_as_numbers_both_ways(window: Any, title: str) -> None:
    number = heading(window, title)
    button = window.locator("#whole thead th").nth(number).locator("button")
    before = [text for text in column(window, number) if text != "–"]
    values = [float(text.replace(",", "").replace("−", "-")) for text in before]
    assert sorted(before) != [text for _, text in sorted(zip(values, before, strict=True))] or title == "test score"
    for state, downwards in (("ascending", False), ("descending", True)):
        button.press("Enter") if downwards else button.click()
        after = column(window, number)
        shown = [float(text.replace(",", "").replace("−", "-")) for text in after if text != "–"]
        assert shown == sorted(values, reverse=downwards)
        assert set(after[len(shown) :]) <= {"–"}  # what has none is last, both ways
        assert window.locator("#whole thead th").nth(number).get_attribute("aria-sort") == state
    assert window.locator("#whole thead th[aria-sort]").count() == 1


def test_text_sorts_as_text(window: Any) -> None:
    window.locator("#whole thead th button").first.click()
    names = column(window, 0)
    assert names[:2] == [HOSTILE] * 2 and names[-4:] == ["pool 13"] * 2 + ["pool 100"] * 2


def test_the_filter_filters(window: Any) -> None:
    form = window.locator("form.controls")
    form.locator("input").fill("POOL two")
    assert set(zip(column(window, 0), column(window, 1), strict=True)) == {("pool 13", "two"), ("pool 100", "two")}
    assert form.locator(".count").text_content() == "2 of 8 rows"
    form.locator("input").fill("")
    form.locator("select[name=task]").select_option("one")
    form.locator("select[name=kind]").select_option("LoRA")
    assert list(zip(column(window, 0), column(window, 1), strict=True)) == [("LoRA r=8", "one")]
    form.locator("select[name=task]").select_option("")
    form.locator("select[name=kind]").select_option("")
    form.locator("input").fill('<b>&"')
    assert column(window, 0) == [HOSTILE] * 2
    form.locator("input").fill("")
    assert len(column(window, 0)) == 8


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_no_width_makes_the_page_scroll_sideways_or_lies_over_itself(window: Any, width: int) -> None:
    window.set_viewport_size({"width": width, "height": 800})
    assert window.evaluate("document.documentElement.scrollWidth") == width
    assert window.evaluate(OVERLAPS) == []
    boxes = window.evaluate(
        "[...document.querySelectorAll('.box, .wide')].map(box => [box.clientWidth, box.scrollWidth])"
    )
    assert all(shown <= width for shown, _ in boxes)
    assert (width > 400) or any(inside > shown for shown, inside in boxes)  # what is wider scrolls in its own box


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_of_wcag_aa(window: Any, scheme: str) -> None:
    window.emulate_media(color_scheme=scheme)
    window.set_viewport_size({"width": 1200, "height": 900})
    found = window.evaluate(CONTRASTS)
    assert len(found) > 200
    assert {kind for kind, *_ in found} >= {"text", "th", "td", "p", "a", "h2", "button", "sign"}
    assert too_faint(window) == []
    paper = window.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_a_printed_page_is_light_and_shows_whole_tables(window: Any) -> None:
    window.emulate_media(media="print", color_scheme="dark")
    assert window.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert [one for one in window.evaluate(CONTRASTS) if one[2] < 4.5 and one[0] != "sign"] == []
    clipped = (
        "[...document.querySelectorAll('.box')].filter(box => getComputedStyle(box).overflowY !== 'visible').length"
    )
    assert window.evaluate(clipped) == 0
    window.emulate_media(media="screen", color_scheme="light")


def test_the_critical_difference_is_seen(window: Any, tmp_path: Path) -> None:
    tasks = {name: {"data": {"embedded": "tweets"}} for name in ("one", "two", "three", "four", "five", "six")}
    study = MadeUp(tmp_path, tasks=tasks)
    for number, task in enumerate(tasks):
        for rank, label in enumerate(("LoRA r=8", HOSTILE, "pool 100", "pool 13")):
            study.add(task, label, 0.004, 0, 0.8, 0.9 - 0.1 * rank - 0.01 * number)
    path = write_report(study.plan, study.results, tmp_path / "out", "the command")
    page = opened(window.context.new_page(), path)
    diagram = page.locator("figure", has=page.locator("svg[aria-label*=Nemenyi]"))
    assert diagram.count() == 1 and diagram.is_visible()
    assert {"LoRA r=8 1.00", "3.00 pool 100", "4.00 pool 13"} <= {
        " ".join(text.split()) for text in diagram.locator("text").all_text_contents()
    }
    for width in (360, 1200):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(OVERLAPS) == []
    page.emulate_media(color_scheme="dark")
    assert too_faint(page) == []
    assert page.said == []
    page.close()


CONTRASTS = """
() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).slice(0, 3).map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((channels(colour)[3] ?? 1) === 1) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || ["SCRIPT", "STYLE", "OPTION"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    const [one, other] = [luminance(colour), luminance(behind(element))].sort((a, b) => b - a);
    const kind = element.ariaHidden === "true" ? "sign" : element.tagName.toLowerCase();
    found.push([kind, element.textContent.slice(0, 30), (one + 0.05) / (other + 0.05)]);
  }
  return found;
}
"""

OVERLAPS = """
() => {
  const shared = (one, other) =>
    Math.max(0, Math.min(one.right, other.right) - Math.max(one.left, other.left)) *
    Math.max(0, Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top));
  const area = (box) => box.width * box.height;
  const groups = [
    [...document.querySelectorAll("header > *, section > *, .pair > *, .panels > *")],
    ...[...document.querySelectorAll("svg")].map((svg) => [...svg.querySelectorAll("text")]),
  ];
  const found = [];
  for (const group of groups) {
    const all = group.map((element) => [element, element.getBoundingClientRect()]);
    const boxes = all.filter((pair) => area(pair[1]) > 0);
    boxes.forEach(([element, box], number) => {
      for (const [other, its] of boxes.slice(number + 1)) {
        const nested = element.contains(other) || other.contains(element);
        if (!nested && shared(box, its) > 0.2 * Math.min(area(box), area(its)))
          found.push([element.textContent.slice(0, 40), other.textContent.slice(0, 40)]);
      }
    });
  }
  return found;
}
"""
