"""Lines of a study's figure: methods that differ in size alone are one, and each can be told from the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from structune.methods.any_peft import AnyPeft
from structune.methods.c3a import C3A
from structune.methods.hydra import Hydra
from structune.study.report.line_looks import line_looks
from structune.study.study_file import Study

STUDIES = sorted((Path(__file__).parents[3] / "studies").glob("*.yaml"))


def plan(*labels: str) -> Study:
    methods = [{"label": label, "method": {"name": "hydra", "pool_size": 13}} for label in labels]
    data = {"embedded": "tweets"}
    return Study.model_validate(
        {"name": "x", "seeds": [0], "rates": [1e-3], "tasks": {"a": {"data": data}}, "methods": methods}
    )


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["LoRA r=1", "LoRA r=8"], ["LoRA", "LoRA"]),
        (["C3A, 4 splits", "C3A, 8 splits"], ["C3A", "C3A"]),
        (["pool, 13 for the model", "pool, 13 a layer"], ["pool for the model", "pool a layer"]),
        (["pool index, 13 a layer", "pool signed, 100 a layer"], ["pool index", "pool signed"]),
        (["VB-LoRA 16x64", "(IA)3", "UniLoRA 1000"], ["VB-LoRA", "(IA)3", "UniLoRA"]),
        (["toeplitz P=96 frozen 0.5", "toeplitz P=12 frozen 0.25"], ["toeplitz frozen", "toeplitz frozen"]),
        (["PEFT's C3A b=96", "C3A b=96"], ["PEFT's C3A", "C3A"]),
    ],
)
def test_names_leave_out_sizes(labels: list[str], names: list[str]) -> None:
    looks = line_looks(plan(*labels))
    assert [looks[label].name for label in labels] == names


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_no_two_lines_look_alike(study: Path) -> None:
    lines = set(line_looks(Study.load(study)).values())
    assert len({line.name for line in lines}) == len(lines)
    assert len({(line.colour, line.marker, line.dash, line.face) for line in lines}) == len(lines)


def test_a_method_of_peft_looks_like_none_of_ours() -> None:
    methods = [
        {"label": "ours", "method": {"name": "c3a"}},
        {"label": "PEFT's C3A", "method": {"name": "peft", "type": "C3A", "block_size": 8}},
        {"label": "MiSS", "method": {"name": "peft", "type": "MISS", "r": 2}},
    ]
    study = plan("a").model_dump() | {"methods": methods}
    ours, *others = line_looks(Study.model_validate(study)).values()
    assert {(one.colour, one.marker) for one in others} == {(AnyPeft.colour, AnyPeft.marker)}
    assert (ours.colour, ours.marker) == (C3A.colour, C3A.marker)


def test_many_lines_of_one_kind_have_colours_of_their_own() -> None:
    few, many = (
        set(line_looks(plan(*(f"pool {what} P={size}" for size in (1, 2) for what in kinds))).values())
        for kinds in ("abc", "abcd")
    )
    assert len(few) == 3
    assert len({line.colour for line in few}) == 1
    assert len(many) == len({line.colour for line in many}) == 4
    beside = [{"label": "LoRA", "method": {"name": "lora"}}]
    mixed = Study.model_validate(plan(*(f"pool {what}" for what in "abcd")).model_dump() | {
        "methods": [*plan(*(f"pool {what}" for what in "abcd")).model_dump()["methods"], *beside]
    })  # fmt: skip
    *pools, lora = line_looks(mixed).values()
    assert {line.colour for line in pools} == {Hydra.colour} != {lora.colour}
