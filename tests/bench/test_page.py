"""The page and its figures are made from the results, and say what those say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from structune.bench.figures import draw
from structune.bench.folder import SUITES
from structune.bench.markdown import to_markdown
from structune.bench.page import page_text, whole_results, write_page
from structune.bench.results import Results, Row
from structune.bench.suite import load_suite
from structune.errors import UserError

ROOT = Path(__file__).parents[2]
Invent = Callable[..., Results]
SuiteFile = Callable[..., Path]


def test_the_page_of_this_checkout_is_that_of_its_results() -> None:
    assert page_text(ROOT) == (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"), (
        "run structune bench --docs"
    )
    figures = {f"bench-{path.stem}.png" for path in whole_results(ROOT / "benchmarks" / "results")}
    assert figures == {path.name for path in (ROOT / "docs" / "assets").glob("bench-*.png")}


def test_results_of_this_checkout_can_be_read() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        results = Results.load(path)
        assert path.with_suffix(".csv").is_file(), path.name
        assert len(results.cases) == len(results.suite["cases"])


def times(invent: Invent, **more: list[float]) -> Results:
    return invent({"frozen": [2.0, 2.0], "lora-r8": [2.8, 2.8], "toeplitz-k4": [2.4, 2.6], **more}, saved=10, peak=20)


def test_table_of_times(invent: Invent) -> None:
    text = to_markdown(times(invent), "assets/x.png")
    assert "| method | 16x8, 4 tokens | 8x8, 4 tokens |" in text
    medians, spread, targets = folded(text)
    assert "| frozen | 2 ms | 2 ms |" in medians
    assert "| lora-r8 | 1.40 | 1.40 |" in medians
    assert "| toeplitz-k4 | 1.25 ✓ | 1.25 ✓ |" in medians
    assert "| lora-r8 | 1.40–1.40 | 1.40–1.40 |" in spread
    assert "| toeplitz-k4 | 1.22–1.28 | 1.22–1.28 |" in spread
    assert "| toeplitz-k4 | ✓ ≤ 1.50, ✓ ≤ lora-r8 | ✓ ≤ 1.50, ✓ ≤ lora-r8 |" in targets
    assert "lora-r8 |" not in targets.replace("≤ lora-r8 |", "")  # only methods with targets
    assert "Some CPU, 2 threads, float32, 2 rounds, 2026-01-02" in text
    assert "commit 0123456789." in text
    assert text.startswith("[![Tiny layers](assets/x.png)](assets/x.png)")


def folded(text: str) -> list[str]:
    """What opens with a click, one after the other; nothing of it is seen before."""
    assert "|" not in re.sub("<details.*?</details>", "", text, flags=re.DOTALL)
    return re.findall("<details markdown.*?</details>", text, re.DOTALL)


def test_tables_are_narrow(invent: Invent) -> None:
    """Many cases are several tables of at most six, none of one or two."""
    results = times(invent)
    cases = [results.cases[0].model_copy(update={"name": f"case {n}"}) for n in range(13)]
    medians, spread, _ = folded(to_markdown(results.model_copy(update={"cases": cases}), "x.png"))
    for text in (medians, spread):
        headers = re.findall(r"^\| method \|(.*)\|$", text, re.MULTILINE)
        counts = [header.count("case") for header in headers]
        assert sum(counts) == 13
        assert max(counts) <= 6
        assert min(counts) >= 4


def test_a_missed_target_is_seen(invent: Invent) -> None:
    text = to_markdown(times(invent, **{"toeplitz-k4": [3.2, 3.2]}), "x.png")
    medians, _, targets = folded(text)
    assert "| toeplitz-k4 | 1.60 ✗ |" in medians
    assert "| toeplitz-k4 | ✗ ≤ 1.50, ✗ ≤ lora-r8 |" in targets


def test_what_was_left_out_says_why_once(invent: Invent) -> None:
    results = times(invent)
    note = Row(method="boft", kind="boft", note="does not fit")
    cases = [case.model_copy(update={"rows": [*case.rows, note]}) for case in results.cases]
    text = to_markdown(results.model_copy(update={"cases": cases}), "x.png")
    assert "| boft | – | – |" in text
    assert text.count("does not fit") == 1
    assert "- boft (16x8, 4 tokens; 8x8, 4 tokens): does not fit" in text


def test_table_of_memory(invent: Invent, suite_file: SuiteFile) -> None:
    suite = load_suite(suite_file(measure=["memory"]))
    results = invent({"frozen": [1.0], "lora-r8": [1.0], "toeplitz-k4": [1.0]}, suite, saved=10, peak=2_500_000)
    frozen = results.cases[0].rows[0].model_copy(update={"saved": 0, "peak": 0})
    cases = [case.model_copy(update={"rows": [frozen, *case.rows[1:]]}) for case in results.cases]
    text = to_markdown(results.model_copy(update={"cases": cases}), "x.png")
    saved, peak = folded(text)
    assert "Saved for backward, MB; target ≤ x" in saved
    assert "Peak, MB; target ≤ W" in peak
    assert "| method | 16x8, 4 tokens |" in saved
    assert "| lora-r8 | 0.0 |" in saved
    assert "| lora-r8 | 2.5 |" in peak
    assert "| toeplitz-k4 | 0.0 ✓ |" in saved
    assert "| toeplitz-k4 | 2.5 ✗ |" in peak


def growth(invent: Invent, suite_file: SuiteFile) -> Results:
    """Four widths; toeplitz-k4 costs d beyond the frozen layer's d²."""
    cases = [{"series": "width", "weight": [d, d], "tokens": 2} for d in (8, 16, 32, 64, 128)]
    suite = load_suite(suite_file(cases=cases, targets=None, quick=None))
    results = invent({"frozen": [1.0], "lora-r8": [1.0], "toeplitz-k4": [1.0]}, suite)
    measured = []
    for case, content in zip(results.cases, cases, strict=True):
        d = float(content["weight"][0])  # type: ignore[index]
        ms = {"frozen": d * d, "lora-r8": 2 * d * d, "toeplitz-k4": d * d + 5 * d}
        rows = [row.model_copy(update={"ms": [ms[row.method]]}) for row in case.rows]
        measured.append(case.model_copy(update={"rows": rows}))
    return results.model_copy(update={"cases": measured})


def test_table_of_exponents(invent: Invent, suite_file: SuiteFile) -> None:
    text = to_markdown(growth(invent, suite_file), "x.png")
    assert "| frozen | 2.00 | – | 2.00 | – | – |" in text
    assert "| lora-r8 | 2.00 | 2.00 | 1.00 | – | – |" in text
    assert re.search(r"\| toeplitz-k4 \| 1\.9\d \| 1\.00 \| 1\.2\d \| – \| – \|", text)


@pytest.mark.parametrize("kind", ["times", "memory", "growth"])
def test_figures_are_drawn_whole(kind: str, invent: Invent, suite_file: SuiteFile, tmp_path: Path) -> None:
    results = growth(invent, suite_file) if kind == "growth" else times(invent)
    if kind == "memory":
        results = results.model_copy(update={"suite": {**results.suite, "measure": ["memory"]}})
    note = Row(method="boft", kind="boft", note="does not fit")
    cases = [*results.cases[:-1], results.cases[-1].model_copy(update={"rows": [*results.cases[-1].rows, note]})]
    draw(results.model_copy(update={"cases": cases}), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.glob("*.png")] == ["x.png"]


def test_figure_of_times_shows_the_medians_cheapest_first(
    invent: Invent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("structune.bench.panels.save", lambda figure, path: drawn.append(figure))
    results = times(invent)
    note = Row(method="boft", kind="boft", note="does not fit")
    cases = [case.model_copy(update={"rows": [*case.rows, note]}) for case in results.cases]
    draw(results.model_copy(update={"cases": cases}), tmp_path / "x.png")
    first, second = drawn[0].axes
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names == ["frozen", "toeplitz-k4", "lora-r8"]  # nothing of what was not measured
    for axes in (first, second):
        points = {tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xydata()) == 1}
        assert {(round(float(x), 6), float(y)) for x, y in points} >= {(1.0, 0.0), (1.25, 1.0), (1.4, 2.0), (1.5, 1.0)}


@pytest.mark.parametrize("workload", ["layer", "model"])
def test_figure_of_memory_leaves_out_cases_without_numbers(
    workload: str, invent: Invent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("structune.bench.panels.save", lambda figure, path: drawn.append(figure))
    results = times(invent)
    noted = [Row(method=row.method, kind=row.kind, note="too large") for row in results.cases[1].rows]
    cases = [results.cases[0], results.cases[1].model_copy(update={"rows": noted})]
    suite = {**results.suite, "measure": ["memory"], "workload": workload}
    draw(results.model_copy(update={"suite": suite, "cases": cases}), tmp_path / "x.png")
    (axes,) = drawn[0].axes
    assert axes.get_title(loc="left") == "16x8, 4 tokens"
    assert [text.get_text() for text in axes.texts] == (["x", "W"] if workload == "layer" else [])  # sizes of a layer
    cases = [case.model_copy(update={"rows": noted}) for case in results.cases]
    draw(results.model_copy(update={"suite": suite, "cases": cases}), tmp_path / "x.png")  # nothing to show
    assert len(drawn[1].axes) == 2


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    markers = "\n\n".join(f"{name}:\n\n<!-- bench:{name} -->\nold\n<!-- /bench:{name} -->" for name in SUITES)
    (tmp_path / "docs" / "benchmarks.md").write_text(f"# Page\n\n{markers}\n\nlast words\n")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    return tmp_path


def test_page_without_results_says_so(checkout: Path) -> None:
    assert write_page(checkout) == [checkout / "docs" / "benchmarks.md"]
    text = (checkout / "docs" / "benchmarks.md").read_text()
    assert text.count("Not measured yet.") == 2 * len(SUITES)
    assert text.startswith("# Page\n\nlayer:\n\n<!-- bench:layer -->\n\n### On a CPU\n")
    assert text.endswith(f"<!-- /bench:{SUITES[-1]} -->\n\nlast words\n")
    assert "old" not in text
    assert page_text(checkout) == text  # once more changes nothing


def test_page_with_results(checkout: Path, invent: Invent) -> None:
    results = times(invent)
    named = results.model_copy(update={"suite": {**results.suite, "name": "layer"}})
    folder = checkout / "benchmarks" / "results"
    for stem in ("layer-cpu-a", "layer-cpu-a-quick", "layer-cpu-a-part", "layer-cpu-a.partial"):
        named.save(folder / f"{stem}.json")
    _, picture = write_page(checkout)
    assert picture == checkout / "docs" / "assets" / "bench-layer-cpu-a.png"
    assert picture.is_file()
    text = (checkout / "docs" / "benchmarks.md").read_text()
    layer = text.partition("<!-- bench:layer -->")[2].partition("<!-- /bench:layer -->")[0]
    assert to_markdown(named, "assets/bench-layer-cpu-a.png") in layer
    assert layer.count("| frozen |") == 2  # medians and spread
    assert layer.rstrip().endswith("### On a GPU (CUDA)\n\nNot measured yet.")
    assert text.count("Not measured yet.") == 2 * len(SUITES) - 1


def test_mistakes_of_a_page_are_told(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at the top of a checkout"):
        write_page(tmp_path / "elsewhere")
    (checkout / "benchmarks" / "results" / "layer-cpu.json").write_text("{}")
    with pytest.raises(UserError, match="layer-cpu.json: not the result of a benchmark"):
        write_page(checkout)
    (checkout / "benchmarks" / "results" / "layer-cpu.json").unlink()
    page = checkout / "docs" / "benchmarks.md"
    page.write_text(page.read_text().replace("<!-- /bench:model -->", ""))
    with pytest.raises(UserError, match="expected the lines <!-- bench:model -->"):
        write_page(checkout)


def test_suites_of_the_page_are_those_that_come_along() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert re.findall("<!-- bench:(.*) -->", page) == list(SUITES)
    for name in SUITES:
        assert yaml.safe_load((ROOT / "benchmarks" / f"{name}.yaml").read_text(encoding="utf-8"))["title"]
        assert f"structune bench {name}" in page
