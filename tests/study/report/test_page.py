"""Reports: what is written, what is said of half a study, and that labels stay text."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow.parquet as parquet
import pytest
from PIL import Image
from typer.testing import CliRunner

from structune import cli
from structune.errors import UserError
from structune.study.report import page as report_page
from structune.study.report.cells import cells
from structune.study.report.figures.drawn import Drawn
from structune.study.report.figures.small import Limits
from structune.study.report.page import write_report
from structune.study.report.runs_table import write_runs

from .conftest import HOSTILE, MadeUp


def page(study: MadeUp, **options: str) -> str:
    """The page as text."""
    return write_report(study.plan, study.results, study.folder / "out", "the command", **options).read_text("utf-8")


def words(text: str) -> str:
    """What a reader sees of a page."""
    return " ".join(html.unescape(re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", text, flags=re.DOTALL)).split())


def test_everything_is_written(report: Path) -> None:
    assert sorted(path.name for path in report.iterdir()) == ["figures", "report.html", "runs.parquet", "tables.md"]
    figures = sorted(path.name for path in (report / "figures").iterdir())
    assert len(figures) == (report / "report.html").read_text("utf-8").count("<svg ") == 2 + 4 + 4 + 1
    for figure in figures:
        with Image.open(report / "figures" / figure) as drawn:
            assert len(drawn.convert("RGB").getcolors(1 << 24)) > 10
    tables = (report / "tables.md").read_text("utf-8")
    assert re.search(r"^- LoRA r=8: .*[0-9.]+ is best, inside the rates that were tried\.", tables, re.MULTILINE)
    assert "| LoRA r=8 | one | done | 80.1 | 79.9 to 80.3 |" in re.sub(" +", " ", tables)


def test_runs_are_in_the_parquet_file(report: Path) -> None:
    rows = parquet.read_table(report / "runs.parquet").to_pylist()
    files = [json.loads(path.read_text()) for path in (report.parent / "results").glob("made-up/*/*.json")]
    assert len(rows) == len(files) == 41
    for one in files:
        (row,) = [r for r in rows if all(r[key] == one[key] for key in ("task", "method", "rate", "seed"))]
        assert row["validation_accuracy"] == (one["validation"] or {}).get("accuracy")
        assert row["test_accuracy"] == (one["test"] or {}).get("accuracy")
        assert row["chosen"] == (one["test"] is not None)
        assert json.loads(row["settings"]) == one["settings"]
        assert list(zip(row["curve_step"] or [], row["curve_loss"] or [], strict=True)) == [
            tuple(point) for point in one.get("curve", [])
        ]
        for key, values in one.get("validation_curve", {}).items():
            assert row[f"validation_curve_{key}"] == values


@pytest.mark.parametrize("tried", [[{}, {}], [{"method.alpha": 8}, {"method.alpha": "x"}], [{"method.alpha": 8}, {}]])
def test_whatever_was_searched_has_a_place_in_the_parquet_file(
    made_up: MadeUp, tmp_path: Path, tried: list[dict[str, Any]]
) -> None:
    for number, each in enumerate(tried):
        made_up.add("one", "LoRA r=8", 0.001 * (1 + number), 0, 0.5, **{"try": number, "tried": each})
    write_runs(list(cells(made_up.plan, made_up.results)), tmp_path / "runs.parquet")
    rows = parquet.read_table(tmp_path / "runs.parquet").to_pylist()
    assert sorted(row["tried"] for row in rows) == sorted(map(json.dumps, tried))


def test_the_page_is_whole_and_asks_for_nothing(report: Path) -> None:
    text = (report / "report.html").read_text("utf-8")
    assert not re.findall(r"""(?:src|href|srcset|action|data|poster)\s*=\s*["'](?!#|data:)""", text)
    assert not re.findall(r"@import|url\((?!#)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert wanted <= set(ids)
    svgs = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    for svg in svgs:
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
        assert not re.search(r'style="[^"]*#[0-9a-f]{6}', svg)  # every colour is the page's
    declared = set(re.findall(r"(--[\w-]+):", text))
    assert set(re.findall(r"var\((--[\w-]+)\)", "".join(svgs))) <= declared


def test_labels_are_text(report: Path) -> None:
    text = (report / "report.html").read_text("utf-8")
    assert "<b>" not in text
    assert f"Validation score of {HOSTILE} by learning rate." in html.unescape(text)
    drawn = {html.unescape(found) for found in re.findall(r"<text [^>]*>([^<]*)</text>", text)}
    assert HOSTILE in drawn  # neither a formula nor a tag
    assert words(text).count("7*7") > 5


def test_what_statistics_show_and_what_not_is_said(report: Path) -> None:
    seen = words((report / "report.html").read_text("utf-8"))
    assert "All of the study is done: 40 runs." in seen
    assert "1 result is of seeds, rates or tries that the study's file does not ask for" in seen
    assert "left out: pool 13 on one at 0.064, seed 0." in seen
    assert "Against LoRA r=8 over all tasks: 0 of 3 ahead, 1 behind, for 2 no difference shown" in seen
    assert "“No difference shown” is not “no difference”" in seen
    assert "in 24 of 24 runs, the validation loss more than 5 % above its lowest in 0 of 24" in seen
    assert "A bootstrap of 3 seeds never leaves the lowest and the highest score" in seen
    assert "at most 75 times in 100" in seen
    assert "Too few tasks: by Nemenyi's test mean ranks of 4 methods on 2 tasks" in seen
    assert "one score has a standard error of up to 1.5 on one, 1.4 on two" in seen  # √(0.6 · 0.4 / 1000), √(0.7 · 0.3)


@pytest.mark.usefixtures("without_figures")
def test_a_validation_loss_that_rises_again_is_told(made_up: MadeUp) -> None:
    risen = {"step": [10, 20, 30], "loss": [0.5, 0.4, 0.43], "accuracy": [0.7, 0.8, 0.8]}
    for seed, loss in enumerate([0.41, 0.43, 0.39]):
        curve = risen | {"loss": [0.5, 0.4, loss]}
        made_up.add("one", "LoRA r=8", 0.004, seed, 0.8, 0.8, validation_curve=curve)
    once = {"step": [30], "loss": [0.4], "accuracy": [0.8]}  # one score is no curve
    made_up.add("two", "LoRA r=8", 0.004, 0, 0.8, 0.8, validation_curve=once)
    assert "the validation loss more than 5 % above its lowest in 1 of 3" in words(page(made_up))


@pytest.mark.usefixtures("without_figures")
def test_no_validation_loss_is_drawn_outside_the_panel(made_up: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    heights: list[Limits] = []
    drawn = Drawn("none", "<svg></svg>", b"", frozenset())
    monkeypatch.setattr(report_page, "draw_curves", lambda *given: heights.append(given[3]) or drawn)
    curve = {"step": [10, 20], "loss": [0.1, 3.0], "accuracy": [0.7, 0.8]}
    made_up.add("one", "LoRA r=8", 0.004, 0, 0.8, 0.8, validation_curve=curve)
    page(made_up)
    ((low, high),) = heights
    assert low < 0.1 and high > 3.0


@pytest.mark.usefixtures("without_figures")
def test_the_reference_may_be_named(whole: MadeUp) -> None:
    assert "Against pool 100 over all tasks" in words(page(whole, reference="pool 100"))
    with pytest.raises(UserError, match="did you mean 'pool 100'"):
        page(whole, reference="pool 10O")


@pytest.mark.usefixtures("without_figures")
def test_without_a_lora_nothing_is_compared(tmp_path: Path) -> None:
    study = MadeUp(tmp_path, methods=[{"label": "pool", "method": {"name": "hydra", "pool_size": 13}}])
    study.fill({("one", "pool"): [0.5, 0.6]})
    assert "The study has no LoRA; name another method with --reference LABEL" in words(page(study))


@pytest.mark.usefixtures("without_figures")
def test_half_a_study_is_told_as_one(made_up: MadeUp) -> None:
    made_up.fill({("one", "LoRA r=8"): [0.80, 0.82], ("one", "pool 13"): [0.61]})
    made_up.add("one", "pool 100", 0.001, 0, 0.7)
    seen = words(page(made_up))
    assert "Not finished: 8 runs done, at least" in seen
    assert "test scores: 2 of 8" in seen
    assert "Test scores rest on different numbers of seeds: 1 on 1 seed, 1 on 2 seeds." in seen
    assert "two: no test score yet" in seen
    assert "not tested: one seed in common" in seen
    assert "Only 0.001 was tried so far." in seen
    assert "Nothing to test: two methods have test scores on the same tasks, and it takes three." in seen
    tables = (made_up.folder / "out" / "tables.md").read_text("utf-8")
    assert re.search(r"\| pool 100 \| one \| 1 of 3 rates tried \| – \|", tables)
    assert re.search(r"\| pool 100 \| two \| not begun \| – \|", tables)
    assert re.search(r"\| pool 13 \| one \| 1 of 3 seeds scored \| 61.0 \| one seed \|", tables)


@pytest.mark.usefixtures("without_figures")
def test_no_score_at_all_is_a_report_of_rates(made_up: MadeUp) -> None:
    made_up.add("one", "LoRA r=8", 0.001, 0, None)
    seen = words(page(made_up))
    assert "one: no test score yet" in seen
    assert "Numbers ran away at every rate that was tried." in seen
    assert "No run has a record of its time and memory." in seen


def test_nothing_is_no_report(made_up: MadeUp) -> None:
    with pytest.raises(UserError, match=r"no run of the study 'made-up' has a result there; run `structune study`"):
        page(made_up)
    assert not (made_up.folder / "out").exists()


NOT_A_NUMBER = """{"task": "one", "method": "LoRA r=8", "rate": 0.001, "seed": 0, "test": null,
                   "validation": {"accuracy": NaN}}"""


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"task": "one"}', NOT_A_NUMBER])
def test_a_damaged_result_is_named(made_up: MadeUp, content: str) -> None:
    made_up.add("one", "LoRA r=8", 0.001, 0, 0.5)
    (made_up.results.folder / "one" / "half.json").write_text(content)
    with pytest.raises(UserError, match=r"half\.json: not a result of a study"):
        page(made_up)


@pytest.mark.usefixtures("without_figures")
def test_what_does_not_belong_together_is_said(whole: MadeUp) -> None:
    assert "doubt" not in re.sub(r"<style.*?</style>", "", page(whole), flags=re.DOTALL)
    settings = {
        "data": ["other"],
        "train": {"batch_size": 8, "learning_rate": 0.1},
        "method": {"name": "lora", "rank": 4},
    }
    whole.add("one", "LoRA r=8", 0.004, 2, 0.8, 0.8, settings=settings)
    stray = whole.results.folder / "one" / "gone.json"
    stray.write_text(
        json.dumps({"task": "one", "method": "gone", "rate": 1, "seed": 0, "validation": None, "test": None})
    )
    seen = words(page(whole))
    assert "one: runs differ in data, so that their scores are no comparison of methods alone." in seen
    assert "LoRA r=8: some runs have another rank than the study's file has now." in seen
    assert "1 results are of methods or tasks that the study's file does not name" in seen
    assert "gone on one" in seen


@pytest.mark.usefixtures("without_figures")
def test_the_command_writes_it(whole: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["report", "made-up.yaml"])
    assert done.exit_code == 0
    assert done.output.strip() == str(Path("runs/made-up-report/report.html"))
    assert Path("runs/made-up-report/report.html").is_file()
    other = CliRunner().invoke(cli.app, ["report", "made-up.yaml", "--results", "nowhere"])
    assert other.exit_code == 2
    assert "no run of the study 'made-up' has a result there" in " ".join(other.output.split())
    moved = Path("results/made-up").rename("elsewhere")
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(
        cli.app, ["report", "made-up.yaml", "--results", "empty", "--results", str(moved), "--out", "there"]
    )
    assert done.exit_code == 0
    assert "All of the study is done" in Path("there/report.html").read_text("utf-8")


@pytest.mark.usefixtures("without_figures")
def test_where_and_when_runs_were_made_is_said(made_up: MadeUp) -> None:
    gpu = {"device": "cuda", "versions": {"torch": "2.11.0", "gpu": "NVIDIA H200", "cpu_threads": "8"}}
    for seed, date in ((0, "2026-11-25"), (1, "2026-11-27"), (2, "2026-11-26")):
        made_up.add("one", "LoRA r=8", 0.004, seed, 0.8, 0.8, date=date, train_seconds=3600.0, **gpu)
    made_up.add("one", "LoRA r=8", 0.001, 0, 0.7)
    made_up.add("one", "LoRA r=8", 0.016, 0, None)
    page(made_up)
    tables = (made_up.folder / "out" / "tables.md").read_text("utf-8")
    assert "| NVIDIA H200 | 3 | 3.0 h | 2026-11-25 to 2026-11-27 | torch 2.11.0 |" in tables
    assert "| CPU x86_64, 2 threads | 1 | 30 s | not recorded | torch 2.13.0 |" in tables
    assert "| not recorded | 1 | 0 s | not recorded | not recorded |" in tables
