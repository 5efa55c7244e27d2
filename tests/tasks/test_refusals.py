"""A mistake in the data of each task: one message that names it, before training, exit code 2, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from structune import cli

from .test_conformance import TASKS, content_of


def changed(data: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """The seventh row is another."""
    path = Path(data["train"])
    lines = path.read_text().splitlines()
    lines[6] = json.dumps(change(json.loads(lines[6])))
    path.write_text("\n".join(lines) + "\n")
    return data


def damaged(data: dict[str, Any]) -> dict[str, Any]:
    (Path(data["train"]) / "left" / "06.png").write_bytes(b"no image")
    return data


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], list[str]]] = {
    "text-classification": (lambda data: {**data, "label": "lable"}, ["data.label", "'lable'"]),
    "text-regression": (
        lambda data: changed(data, lambda row: {**row, "label": "good"}),
        ["rows.jsonl", "7", "'good'"],
    ),
    "multi-label-classification": (lambda data: {**data, "label": "lables"}, ["data.label", "'lables'"]),
    "token-classification": (
        lambda data: changed(data, lambda row: {**row, "tags": row["tags"][:-1]}),
        ["rows.jsonl", "7"],
    ),
    "image-classification": (damaged, ["left/06.png"]),
}


@pytest.mark.filterwarnings("ignore::structune.doubt.DataWarning")
@pytest.mark.parametrize("name", MISTAKES)
def test_it_is_told_once_and_nothing_is_written(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model, make, options = TASKS[name]
    wrong, words = MISTAKES[name]
    content = content_of({"name": name, **options}, str(request.getfixturevalue(model)), wrong(make(tmp_path)))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**content, "output": str(tmp_path / "run")}))
    before = sorted(tmp_path.rglob("*"))
    ended = CliRunner().invoke(cli.app, ["train", str(tmp_path / "recipe.yaml")])
    assert ended.exit_code == 2, ended.output
    told = " ".join(ended.output.split())
    assert told.count("error:") == 1
    assert all(word in told for word in words), told
    assert sorted(tmp_path.rglob("*")) == before
