"""The suites that come with structune, and what is said about mistakes in one's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from structune.bench.folder import SUITES, benchmarks_folder
from structune.bench.measure import measure_case
from structune.bench.method import Methods
from structune.bench.suite import LayerCase, load_suite
from structune.errors import UserError

SuiteFile = Callable[..., Path]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", SUITES)
def test_every_method_of_every_suite_is_measured(name: str) -> None:
    suite = load_suite(name, quick=True).model_copy(update={"rounds": 1, "least_ms": 0.0})
    shares: list[float] = []
    case = measure_case(suite, suite.all_cases[-1], suite.rows(), "cpu", {}, shares.append)
    assert [row.method for row in case.rows] == [method.label for method in suite.rows()]
    if name != "compiled":  # its quick part has fewer methods, as compiling takes long
        assert len(suite.rows()) == len(load_suite(name).rows())
    assert {row.method: row.note for row in case.rows if row.note} == {}
    for row in case.rows:
        assert (row.ms is not None) == ("time" in suite.measure)
        assert row.ms is None or (len(row.ms) == 1 and row.ms[0] > 0)
        assert ((row.peak or 0) > 0) == ("memory" in suite.measure)
        assert (row.trainable == 0) == (row.method == "frozen")
        assert (row.algorithm is not None) == any(row.method == m.label and m.structured for m in suite.rows())
    assert sum(shares) == pytest.approx(1 if "time" in suite.measure else 0.2)


def test_shipped_suites_are_those_of_the_command_and_the_package() -> None:
    files = sorted(path.name for path in benchmarks_folder().glob("*.yaml"))
    assert files == sorted(["methods.yaml", *(f"{name}.yaml" for name in SUITES)])
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r"\[tool.hatch.build.targets.wheel\]\nonly-include = .*\"benchmarks\"", project)
    assert '"benchmarks" = "structune/bench/suites"' in project


def test_the_targets_of_the_layer_suite() -> None:
    """A look at the data itself: every time target of the goals is there, in every shape."""
    suite = load_suite("layer")
    bounds = {
        (case.name.partition(",")[0], method.label): [
            bound for t in suite.targets if t.applies(method.label, case.name, "cpu") for bound in t.time
        ]
        for case in suite.all_cases
        for method in suite.rows()
    }
    assert bounds["768x768", "c3a-d"] == [1.12, "lora-r8"]
    assert bounds["2048x2048", "c3a-d/6-or-8"] == [1.15, "lora-r8"]
    assert bounds["768x3072", "hankel-k4-pool384"] == [1.25, "lora-r8"]
    assert bounds["3072x768", "toeplitz-like-r2-k1"] == [1.35]
    assert bounds["768x768", "cauchy-k4"] == [1.65]
    assert bounds["768x768", "frozen"] == bounds["768x768", "vera"] == []


def test_quick_replaces_what_it_names(suite_file: SuiteFile) -> None:
    whole, quick = load_suite(suite_file()), load_suite(suite_file(), quick=True)
    assert [case.name for case in whole.all_cases] == ["16x8, 4 tokens", "8x8, 4 tokens"]
    assert [case.name for case in quick.all_cases] == ["8x8, 1 token"]
    assert (quick.rounds, quick.methods) == (whole.rounds, whole.methods)


def labels(suite_file: SuiteFile, **changes: Any) -> list[str]:
    return [method.label for method in load_suite(suite_file(targets=None, **changes)).rows()]


def test_rows(suite_file: SuiteFile) -> None:
    assert labels(suite_file, methods=["lora-r8", "frozen"]) == ["frozen", "lora-r8"]
    group = labels(suite_file, methods=["c3a"])
    assert group == ["frozen", "c3a-d", "c3a-d/6-or-8"]
    assert labels(suite_file, methods=["ia3", "toeplitz-k4@dense"]) == ["frozen", "ia3", "toeplitz-k4@dense"]
    # dense multiplies everything, factored only thin factors.
    assert labels(suite_file, methods=["ia3", "toeplitz-k4", "low-rank-r8"], algorithms=["dense", "factored"]) == [
        "frozen", "ia3", "toeplitz-k4@dense", "low-rank-r8@dense", "low-rank-r8@factored",
    ]  # fmt: skip
    assert labels(suite_file, compiled=True) == ["frozen", "lora-r8", "toeplitz-k4", "toeplitz-k4 compiled"]
    own = {"mine": {"peft": "LORA", "options": {"r": 3}}}
    assert labels(suite_file, define=own, methods=["mine"]) == ["frozen", "mine"]


@pytest.mark.parametrize(
    ("features", "expected"),
    [([(768, 768)], 128), ([(2048, 2048)], 256), ([(3072, 768), (768, 3072)], 128), ([(192, 96)], 16)],
)
def test_block_sizes_that_follow_the_layer(features: list[tuple[int, int]], expected: int) -> None:
    methods = Methods()
    for prefix in ("", "peft-"):
        assert methods[f"{prefix}c3a-d/6-or-8"].config(features, ["layer"]).block_size == expected  # type: ignore[attr-defined]
    widths = {min(pair) for pair in features}
    assert methods["c3a-d"].config(features, ["layer"]).block_size in widths  # type: ignore[attr-defined]


def test_an_algorithm_is_passed_through() -> None:
    method = Methods().select(["hankel-k4@dense"])[1]
    assert method.config([(64, 64)], ["layer"]).algorithm == "dense"  # type: ignore[attr-defined]


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"rouns": 3}, r"tiny.yaml: rouns: unknown key \(did you mean 'rounds'\?\)"),
    ({"rounds": 0}, "tiny.yaml: rounds = 0: .*greater than or equal to 1"),
    ({"title": None}, "tiny.yaml: title: missing"),
    ({"workload": "layers"}, r"workload = 'layers': expected .*did you mean 'layer'"),
    ({"methods": ["lora-r9"]}, r"method 'lora-r9': unknown \(did you mean 'lora-r8'\?\)"),
    ({"methods": ["lora-r8", "lora-r8"]}, "lora-r8 given twice"),
    ({"methods": ["ia3@dense"]}, "ia3 has no choice of algorithm"),
    ({"methods": ["toeplitz-k4@nix"]}, "method 'toeplitz-k4@nix': algorithm='nix'"),
    ({"cases": []}, "cases = .*at least 1 item"),
    ({"cases": [{"weight": [8], "tokens": 4}]}, r"cases\.0\.weight = \[8\]"),
    ({"cases": [{"weight": [8, 8], "token": 4}]}, r"did you mean 'tokens'"),
    ({"cases": [{"weight": [8, 8], "tokens": 4}] * 2}, "8x8, 4 tokens given twice"),
    ({"targets": [{"methods": ["toeplitz-k5"], "time": 1.1}]}, r"targets.0.methods: 'toeplitz-k5' is no method"),
    ({"targets": [{"methods": ["toeplitz-k4"], "case": "9*", "time": 1.1}]}, r"targets.0.case = '9\*'"),
    ({"targets": [{"methods": ["toeplitz-k4"], "time": "lora"}]}, r"targets.0.time = 'lora'"),
    ({"targets": [{"methods": ["toeplitz-k4"]}]}, "targets.0: says nothing"),
    ({"define": {"mine": {"peft": "LORRA"}}}, "peft = 'LORRA': unknown to PEFT"),
    ({"define": {"mine": {"options": {"r": 3}}}}, "name its type with peft"),
    ({"define": {"mine": {"peft": "LORA", "trains": "all"}}}, "give trains or peft, not both"),
    ({"quick": {"rounds": 0}}, "tiny.yaml, quick: rounds = 0"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_mistakes_are_told(changes: dict[str, Any], message: str, suite_file: SuiteFile) -> None:
    with pytest.raises(UserError, match=message):
        load_suite(suite_file(**changes))


def test_mistakes_in_options_are_told_before_anything_is_measured(suite_file: SuiteFile) -> None:
    define = {
        "mine": {"peft": "LORA", "options": {"rank": 3}},
        "odd": {"peft": "C3A", "options": {"block_size": "d/x"}},
    }
    suite = load_suite(suite_file(define=define, methods=["mine", "odd"], targets=None))
    for label, message in (("mine", "LORA takes no such option"), ("odd", "write a number, d, d/6")):
        method = next(method for method in suite.rows() if method.label == label)
        with pytest.raises(UserError, match=message):
            method.config([(8, 8)], ["layer"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("layr", r"suite 'layr': unknown \(did you mean 'layer'\?\)"), ("gone.yaml", "suite 'gone.yaml': no such file")],
)
def test_unknown_suites(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_suite(name)


def test_broken_yaml(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("title: [\n")
    with pytest.raises(UserError, match=r"suite .*broken.yaml', line 2, column 1: not valid YAML"):
        load_suite(path)
    path.write_text("- layer\n")
    with pytest.raises(UserError, match="expected sections such as 'cases:' and 'methods:'"):
        load_suite(path)


def test_names_and_sizes_of_cases() -> None:
    case = LayerCase(weight=[3, 2], tokens=5, dtype="bfloat16")
    assert case.name == "3x2, 5 tokens, bfloat16"
    assert (case.size, case.work) == (6 + 5 * 5, 30.0)
