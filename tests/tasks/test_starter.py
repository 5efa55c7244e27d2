"""Recipes to begin with: what they say is so, they train as they are, and the schema takes what recipes take."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from structune import cli
from structune.errors import UserError
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.recipe.schema import recipe_schema
from structune.finetune.recipe.shipped import find_recipe, recipe_names
from structune.finetune.recipe.starter import starter, summary
from structune.finetune.training import train
from structune.tasks import registry

TASKS = list(registry.PLACES)
TEXTS = [("good", "fine film"), ("bad", "dull story"), ("good", "great music"), ("bad", "weak end")]


def text_of(task: str) -> str:
    """What `structune recipe TASK` prints."""
    done = CliRunner().invoke(cli.app, ["recipe", task])
    assert done.exit_code == 0
    assert done.stdout == starter(registry.get(task))
    return done.stdout


@pytest.mark.parametrize("task", TASKS)
def test_a_key_after_a_sign_has_the_default_that_it_shows(task: str) -> None:
    """Set or not, it is the same recipe, and there is every key of every section."""
    text = text_of(task)
    assert max(map(len, text.splitlines())) <= 120
    as_it_is = yaml.safe_load(text)
    given = Recipe.parse(as_it_is)
    all_set = yaml.safe_load(re.sub(r"^( *)#(\w+: *[^ #].*)$", r"\1\2", text, flags=re.MULTILINE))
    assert len(yaml.safe_dump(all_set)) > 2 * len(yaml.safe_dump(as_it_is))
    assert Recipe.parse(all_set) == given
    least = {"task": task, "model": as_it_is["model"], "data": {"train": given.data.train}, "train": {"epochs": 3}}
    assert Recipe.parse(least) == given
    keys = set(re.findall(r"^ *#?(\w+):", text, re.MULTILINE))
    for section in (given, given.task, given.model, given.data, given.method, given.train):
        assert set(type(section).model_fields) - {"name"} <= keys


def write_texts(labels: dict[str, Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        rows = [{"text": f"{text} {number}", "label": labels[name]} for number in range(12) for name, text in TEXTS]
        path = folder / "mine.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


DATA: dict[str, Callable[[Path], Path]] = {
    "text-classification": write_texts({"good": "yes", "bad": "no"}),
    "text-regression": write_texts({"good": 0.75, "bad": -1.5}),
    "multi-label-classification": write_texts({"good": ["a", "b"], "bad": ["b"]}),
}


@pytest.mark.parametrize("task", [*DATA, "image-classification"])
def test_it_trains_as_it_is_once_the_names_are_filled_in(
    task: str, tmp_path: Path, tiny_model: Path, tiny_vit: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of the default are larger than the tiny layers: a key after a sign is set by taking it away."""
    monkeypatch.chdir(tmp_path)
    images = task == "image-classification"
    chosen = registry.get(task)
    text = text_of(task).replace(f"name: {chosen.starter_model}", f"name: {tiny_vit if images else tiny_model}")
    text = text.replace(f"train: {chosen.starter_data} ", f"train: {photos if images else DATA[task](tmp_path)} ")
    text = text.replace("#block_size: 64", "block_size: 8").replace("epochs: 3", "epochs: 1")
    text = text.replace("#batch_size: 32", "batch_size: 16")
    (tmp_path / "mine.yaml").write_text(text)
    run = train(Recipe.load(tmp_path / "mine.yaml"))
    assert run.metrics()["steps"] >= 2
    assert run.folder == tmp_path / "runs" / "mine-c3a" or run.folder == Path("runs/mine-c3a")


def test_tasks_and_recipes_are_listed() -> None:
    shown = " ".join(CliRunner().invoke(cli.app, ["recipe"]).stdout.split())
    for name in TASKS:
        assert f"{name} {summary(registry.get(name))}" in shown
    assert all(name in shown for name in recipe_names())
    wrong = CliRunner().invoke(cli.app, ["recipe", "text-clasification"])
    assert wrong.exit_code == 2 and "did you mean 'text-classification'?" in wrong.stderr


Schema = Any


def fits(value: Any, schema: Schema, root: Schema) -> bool:
    """Whether a value is what a schema says: the keywords that ours have, and an error for any other."""
    if schema is True:
        return True
    unknown = schema.keys() - {
        "$ref", "anyOf", "oneOf", "allOf", "not", "if", "then", "const", "enum", "type", "properties", "required",
        "additionalProperties", "items", "minItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
        "minLength", "maxLength", "title", "description", "default", "discriminator", "$schema", "$defs",
    }  # fmt: skip
    assert not unknown, unknown

    def holds(part: Schema) -> bool:
        return fits(value, part, root)

    kinds: dict[str, Any] = {
        "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
        "null": type(None),
    }  # fmt: skip
    wanted = schema.get("type", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted and not any(
        isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in wanted
    ):
        return False
    if "$ref" in schema and not holds(root["$defs"][schema["$ref"].removeprefix("#/$defs/")]):
        return False
    if "anyOf" in schema and not any(map(holds, schema["anyOf"])):
        return False
    if "oneOf" in schema and sum(map(holds, schema["oneOf"])) != 1:
        return False
    if not all(map(holds, schema.get("allOf", []))) or ("not" in schema and holds(schema["not"])):
        return False
    if "if" in schema and holds(schema["if"]) and not holds(schema["then"]):
        return False
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return False
    if isinstance(value, dict):
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        for key, part in value.items():
            part_schema = known.get(key, others)
            if part_schema is False or not fits(part, part_schema, root):
                return False
        return all(key in value for key in schema.get("required", []))
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(
            fits(part, schema.get("items", True), root) for part in value
        )
    if isinstance(value, str):
        return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
    return not is_number or (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    )


RECIPES = {name: yaml.load(find_recipe(Path(name)).read_text(), yaml.SafeLoader) for name in recipe_names()}


def test_the_schema_takes_what_recipes_take() -> None:
    schema = json.loads(CliRunner().invoke(cli.app, ["recipe", "--schema"]).stdout)
    assert schema == recipe_schema()
    good: list[dict[str, Any]] = [yaml.safe_load(starter(registry.get(task))) for task in TASKS]
    data = {"train": "x.csv"}
    good += [
        {"data": data},
        {"data": data, "task": None, "model": None, "train": None},
        {"data": data, "method": "hydra-low-rank", "train": {"early_stopping": 3, "report_to": "tensorboard"}},
        {"data": data, "method": {"name": "hydra", "structure": "low_rank", "rank": 3, "rank_pattern": {"query": 2}}},
        {"data": {"train": ["a.csv", "b.csv"]}, "train": {"early_stopping": {"patience": 2}}},
    ]
    for content in good:
        Recipe.parse(content)
        assert fits(content, schema, schema), content
    for name, content in RECIPES.items():  # 1e-3 is a text to PyYAML, and a number to editors and to us
        numbers = json.loads(re.sub(r'"(\d+e-\d+)"', r"\1", json.dumps(content)))
        assert fits(numbers, schema, schema), name


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"data": {"train": "x.csv", "txt": "review"}},
        {"data": {"train": "x.csv"}, "dat": 1},
        {"data": {"train": "x.csv"}, "task": "text-regresion"},
        {"data": {"train": "x.csv", "image": "photo"}},
        {"data": {"train": "x.csv"}, "train": {"batch_size": 0}},
        {"data": {"train": "x.csv"}, "train": {"epochs": "three"}},
        {"data": {"train": "x.csv"}, "train": {"early_stopping": True}},
        {"data": {"train": "x.csv"}, "method": "lorra"},
        {"data": {"train": "x.csv"}, "method": {"name": "lora", "rnk": 2}},
        {"data": {"train": "x.csv"}, "task": {"name": "multi-label-classification", "threshold": 1.5}},
    ],
)
def test_the_schema_takes_no_mistakes(content: dict[str, Any]) -> None:
    schema = recipe_schema()
    with pytest.raises(UserError):
        Recipe.parse(content)
    assert not fits(content, schema, schema)
