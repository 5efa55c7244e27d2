"""Studies in small: what is tried, that it works or is told, and that nothing is left of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from structune.errors import UserError
from structune.study import smoke as smoke_module
from structune.study.engine import run_study
from structune.study.results.files import Results
from structune.study.smoke import smoke
from structune.study.study_file import Study

CONTENT: dict[str, Any] = {
    "name": "tiny",
    "seeds": [3, 4],
    "rates": [0.01, 0.04],
    "model": {"name": "somebody/bert-base"},
    "tasks": {
        "one": {"data": {"hub": "somebody/texts"}, "train": {"epochs": 40, "batch_size": 128}},
        "two": {"data": {"hub": "somebody/others"}},
    },
    "methods": [
        {"label": "LoRA r={rank}", "method": {"name": "lora", "rank": [1, 2, 4]}},
        {"label": "C3A", "method": {"name": "peft_c3a", "block_size": 7}},
    ],
}


@pytest.mark.filterwarnings("ignore")
def test_a_study_is_tried_in_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, screen: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Path("tiny.yaml").write_text(yaml.safe_dump(CONTENT))
    wide = Console(file=screen.file, width=200)
    with pytest.raises(UserError, match=r"1 of 4 runs failed in small: one/C3A-.*block size should be a factor"):
        smoke(Study.load(Path("tiny.yaml")), widest=32, console=wide)
    said = screen.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert said.count("nothing here is a result") == 2
    ways = [line.split("  ")[:3] for line in said.splitlines() if line.startswith(("one", "two"))]
    assert [way[:2] for way in ways] == [["one", "LoRA r=1"], ["one", "LoRA r=4"], ["one", "C3A"], ["two", "LoRA r=1"]]
    assert [way[2][:5] for way in ways] == ["works", "works", "faile", "works"]
    assert "768 numbers beside the head" in said  # r = 4 of two layers' query and value, 24 wide
    assert "3 of 4 runs work" in said
    assert capsys.readouterr().out == ""  # runs keep to themselves
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


def refusal(changes: dict[str, Any], **options: Any) -> str:
    content: dict[str, Any] = {**CONTENT, "methods": CONTENT["methods"][:1], **changes}
    with pytest.raises(UserError) as refused:
        smoke(Study.model_validate(content), widest=32, **options)
    return str(refused.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"tasks": {"one": {"data": {"embedded": "tweets", "train_examples": 400}}}},
            "validation_examples = 500: the part to train on has 400 examples, which leaves 0 to train on",
        ),
        ({"model": {"name": "x/bert", "quantisation": "4bit"}}, "goes with tasks that train no head"),
        (
            {"tasks": {"one": {"task": "reward", "data": {"hub": "a/b"}, "train": {"batch_size": 6}}}},
            "train.batch_size = 6: counts completions",
        ),
    ],
)
def test_what_a_real_run_refuses_is_refused_in_small(changes: dict[str, Any], reason: str) -> None:
    assert reason in refusal(changes)


def test_only_is_asked_before_the_ends_are_taken(monkeypatch: pytest.MonkeyPatch, screen: Console) -> None:
    monkeypatch.setattr(smoke_module, "_carried_out", lambda plan, wanted, _: f"tried {wanted.label}")
    plan = Study.model_validate(CONTENT)
    smoke(plan, only="r=2", console=screen)
    said = screen.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert said.count("tried LoRA r=2") == 2
    assert "2 of 2 runs work" in said
    assert "--only '(': no regular expression (" in refusal({}, only="(")
    assert "--only 'r=3': no label of the study has a match of it; there are LoRA r=1, " in refusal({}, only="r=3")


def test_a_study_of_nothing_is_refused(tmp_path: Path) -> None:
    plan = Study.model_validate(CONTENT)
    with pytest.raises(UserError, match="--only 'r=3': no label of the study has a match of it; there are LoRA r=1, "):
        run_study(plan, Results(tmp_path / "results"), tmp_path / "work", only="r=3")
