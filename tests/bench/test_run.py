"""Running a suite: what is written, what a stop leaves, who may go on."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from structune.bench import run as module
from structune.bench.results import CaseResult, Results
from structune.bench.run import bench
from structune.errors import UserError

SuiteFile = Callable[..., Path]


def shown(screen: Console) -> str:
    text: str = screen.file.getvalue()  # type: ignore[attr-defined]
    return text


def names(folder: Path) -> set[str]:
    return {re.sub(r"(?<=^tiny-cpu-).*-threads", "HERE", path.name) for path in folder.iterdir()}


def test_results_round_trip(suite_file: SuiteFile, tmp_path: Path, screen: Console) -> None:
    path = bench(suite_file(), out=tmp_path / "out", device="cpu", console=screen)
    assert names(tmp_path / "out") == {"tiny-cpu-HERE.json", "tiny-cpu-HERE.csv"}
    results = Results.load(path)
    again = path.with_name("again.json")
    results.save(again)
    assert again.read_bytes() == path.read_bytes()
    assert [case.name for case in results.cases] == ["16x8, 4 tokens", "8x8, 4 tokens"]
    assert [row.method for row in results.cases[0].rows] == ["frozen", "lora-r8", "toeplitz-k4"]
    assert (results.cases[0].input_bytes, results.cases[0].weight_bytes) == (4 * 4 * 8, 4 * 16 * 8)
    lora, toeplitz = results.cases[0].rows[1:]
    assert (lora.trainable, toeplitz.trainable) == (8 * (16 + 8), 16 * (4 + 2 - 1))
    assert lora.saved == 4 * 4 * 8 + 4 * 4 * 8  # x, and the 8 numbers a token between A and B
    assert lora.saved_inputs == 4 * 4 * 8
    assert results.machine["threads"] == 1
    assert set(results.versions) == {"python", "torch", "peft", "transformers", "structune"}
    assert results.commit is None or re.fullmatch("[0-9a-f]{40}", results.commit["id"])
    for row in json.loads(path.read_text())["cases"][1]["rows"]:
        assert len(row["ms"]) == 2
        assert re.search(rf"^{row['method']} .* [\d.]+ +[\d.]+–[\d.]+", shown(screen), re.MULTILINE)
    assert "toeplitz-k4" in path.with_suffix(".csv").read_text()


def test_narrowed_runs_have_names_of_their_own(suite_file: SuiteFile, tmp_path: Path, screen: Console) -> None:
    out = tmp_path / "out"
    bench(suite_file(), out=out, quick=True, rounds=1, device="cpu", console=screen)
    path = bench(suite_file(), out=out, cases="16x8", methods=["ia3"], device="cpu", console=screen)
    assert {name for name in names(out) if name.endswith(".json")} == {
        "tiny-cpu-HERE-quick.json", "tiny-cpu-HERE-part.json",
    }  # fmt: skip
    results = Results.load(path)
    assert [case.name for case in results.cases] == ["16x8, 4 tokens"]
    assert [row.method for row in results.cases[0].rows] == ["frozen", "ia3"]


Measure = Callable[..., CaseResult]


def stopping_at(case_name: str) -> Measure:
    measure: Measure = module.measure_case

    def stopped(suite: Any, case: Any, *rest: Any) -> CaseResult:
        if case.name == case_name:
            raise KeyboardInterrupt
        return measure(suite, case, *rest)

    return stopped


@pytest.fixture
def stopped(suite_file: SuiteFile, tmp_path: Path, screen: Console, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a run was stopped in its second case."""
    out = tmp_path / "a folder"
    with monkeypatch.context() as patch:
        patch.setattr(module, "measure_case", stopping_at("8x8, 4 tokens"))
        with pytest.raises(KeyboardInterrupt):
            bench(suite_file(), out=out, rounds=3, device="cpu", console=screen)
    return out


def test_a_stop_keeps_finished_cases_and_says_how_to_go_on(
    stopped: Path, suite_file: SuiteFile, screen: Console
) -> None:
    assert names(stopped) == {"tiny-cpu-HERE.partial.json"}
    line = next(line for line in shown(screen).splitlines() if line.startswith("continue with: "))
    expected = ["structune", "bench", str(suite_file()), "--out", str(stopped), "--rounds", "3", "--device", "cpu"]
    assert shlex.split(line.removeprefix("continue with: ")) == [*expected, "--resume"]


def test_resume_goes_on(stopped: Path, suite_file: SuiteFile, screen: Console) -> None:
    (partial,) = stopped.iterdir()
    before = Results.load(partial)
    path = bench(suite_file(), out=stopped, rounds=3, device="cpu", resume=True, console=screen)
    results = Results.load(path)
    assert results.cases[0] == before.cases[0]  # not measured again
    assert [case.name for case in results.cases] == ["16x8, 4 tokens", "8x8, 4 tokens"]
    assert results.date == before.date
    assert names(stopped) == {"tiny-cpu-HERE.json", "tiny-cpu-HERE.csv"}


def test_a_stopped_run_is_not_lost_by_accident(stopped: Path, suite_file: SuiteFile, screen: Console) -> None:
    with pytest.raises(UserError, match="a run that was stopped; use --resume .* or --overwrite"):
        bench(suite_file(), out=stopped, rounds=3, device="cpu", console=screen)
    path = bench(suite_file(), out=stopped, rounds=1, device="cpu", overwrite=True, console=screen)
    assert {len(row.ms or []) for case in Results.load(path).cases for row in case.rows} == {1}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("commit", {"id": "0" * 40, "dirty": False}, "another commit .*0{40}"),
        ("machine", {"cpu": "Z80", "threads": 1}, "another machine .*cpu: Z80 then"),
        ("versions", {"torch": "0.1"}, "another versions .*torch: 0.1 then"),
        ("suite", {"rounds": 4}, "another suite .*rounds: 4 then, 3 now"),
    ],
)
def test_only_the_same_run_may_go_on(
    field: str, value: Any, message: str, stopped: Path, suite_file: SuiteFile, screen: Console
) -> None:
    (partial,) = stopped.iterdir()
    content = json.loads(partial.read_text())
    content[field] = {**(content[field] or {}), **value}
    partial.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        bench(suite_file(), out=stopped, rounds=3, device="cpu", resume=True, console=screen)
    assert list(stopped.iterdir()) == [partial]


def test_what_does_not_fit_has_a_note(suite_file: SuiteFile, tmp_path: Path, screen: Console) -> None:
    """C3A of PEFT cannot pad; the second case is larger than the memory limit allows."""
    path = suite_file(
        methods=["lora-r8", "mine"], targets=None, memory_limit_gib=1e-6,
        define={"mine": {"peft": "C3A", "options": {"block_size": 5}}},
        cases=[{"weight": [8, 8], "tokens": 1}, {"weight": [8, 8], "tokens": 4000}],
    )  # fmt: skip
    first, second = Results.load(bench(path, out=tmp_path / "o", device="cpu", console=screen)).cases
    assert first.rows[1].note is None
    assert first.rows[2].ms is None
    assert "5" in (first.rows[2].note or "")
    assert "left out: would need about" in (second.rows[1].note or "")
    assert second.rows[1].ms is None
    assert "lora-r8, 8x8, 4000 tokens: left out" in shown(screen)
    assert "mine" in path.with_name("o").joinpath(next(n.name for n in (tmp_path / "o").glob("*.csv"))).read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": True}, "does not exist, so there is nothing to go on with"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
        ({"cases": "9x9"}, "--cases '9x9': no such case; they are 16x8, 4 tokens; 8x8, 4 tokens"),
        ({"methods": ["lora"]}, "method 'lora': unknown"),
        ({"rounds": 0}, "--rounds 0: give at least 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    arguments: dict[str, Any], message: str, suite_file: SuiteFile, tmp_path: Path, screen: Console
) -> None:
    with pytest.raises(UserError, match=message):
        bench(suite_file(), out=tmp_path / "out", device=arguments.pop("device", "cpu"), console=screen, **arguments)
    assert not (tmp_path / "out").exists()


def test_no_gpu(suite_file: SuiteFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: PyTorch sees no GPU"):
        bench(suite_file(), out=tmp_path / "out", device="cuda")


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_the_terminal(width: int, suite_file: SuiteFile, tmp_path: Path) -> None:
    import io

    screen = Console(file=io.StringIO(), width=width)
    path = suite_file(methods=["vandermonde-like-r2-k4", "lora-r8", "toeplitz-k4"])
    bench(path, out=tmp_path / "out", device="cpu", console=screen)
    table = [
        line for line in shown(screen).splitlines() if line.startswith(("vandermonde-like-r2-k4 ", "toeplitz-k4 "))
    ]
    assert len(table) == 4
    assert all(len(line) <= width and "…" not in line for line in table)
    assert ("algorithm" in shown(screen)) == (width >= 100)


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}])
@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_files_of_ones_own_are_never_replaced(
    suffix: str, flags: dict[str, bool], suite_file: SuiteFile, tmp_path: Path, screen: Console
) -> None:
    path = bench(suite_file(), out=tmp_path / "out", quick=True, rounds=1, device="cpu", console=screen)
    path.unlink()
    path.with_suffix(".csv").unlink()
    mine = path.with_suffix(suffix)
    mine.write_text('{"mine": 1}')
    with pytest.raises(UserError, match=f"{suffix} there is no result of a benchmark; move it"):
        bench(suite_file(), out=tmp_path / "out", quick=True, rounds=1, device="cpu", console=screen, **flags)
    assert mine.read_text() == '{"mine": 1}'
    with pytest.raises(UserError, match="cannot be written to"):
        bench(suite_file(), out=mine, quick=True, rounds=1, device="cpu", console=screen, **flags)
