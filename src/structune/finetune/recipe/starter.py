"""A recipe to begin with: every key that a task's recipe takes, with its default and what it means.

It is made of the sections' fields and docstrings, so that it says what is so. `# ` begins a remark, and `#key:` a key
with its default: the sign taken away, it is set.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from structune.data.section import DataSection
from structune.finetune.recipe import yaml_file
from structune.finetune.recipe.recipe import Recipe, TrainSection
from structune.finetune.recipe.shipped import first_sentence
from structune.methods.c3a import C3A
from structune.methods.registry import preset_names
from structune.options import OPTIONS
from structune.section import Section
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.task import Task

_WIDTH = 110


def starter(task: type[Task]) -> str:
    """The recipe as YAML text; what has to be filled in is the name of the file to train on, and mostly the columns."""
    name, data = task.model_fields["name"].default, task.data_section
    columns = {
        key: field.default
        for key, field in data.model_fields.items()
        if key not in DataSection.model_fields and isinstance(field.default, str)
    }
    helps = {name: option.metadata["help"] for name, option in OPTIONS.items()}
    parts = [
        [
            f"# A recipe for {name}. Keys with a # right before them have these values as they are.",
            "#",
            "#   structune train THIS.yaml --check   # reads the data, builds the model, tells the time it will take",
            "#   structune train THIS.yaml",
        ],
        _section("task", task, {"name": name}),
        _section("model", ModelSection, {"name": task.starter_model}),
        _section("data", data, {"train": task.starter_data, **columns}),
        _section("method", C3A, {"name": "c3a"}, {**helps, "name": f"or {', '.join(preset_names())}"}),
        _section("train", TrainSection, {"epochs": 3}),
        [line for key in ("seed", "output") for line in _field(key, Recipe.model_fields[key], {}, "")],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def summary(section: type[Section]) -> str:
    """The first sentence of its docstring."""
    first = " ".join((inspect.getdoc(section) or "").split("\n\n")[0].split())
    return first_sentence(first.partition("; ")[0])


def _section(key: str, section: type[Section], given: Mapping[str, Any], helps: Mapping[str, str] = {}) -> list[str]:
    """A key with its section: class by class, the section's own first, the docstring and the fields."""
    lines, said = [f"{key}:"], {""}
    left = dict(section.model_fields)
    for cls in section.__mro__:
        own = [
            name for name in left if name in vars(cls).get("__annotations__", {}) or (cls, name) == (section, "name")
        ]
        if own and (doc := inspect.cleandoc(cls.__doc__ or "")) not in said:
            said.add(doc)
            for paragraph in doc.split("\n\n"):
                lines += _remark(" ".join(paragraph.split()))
        for name in sorted(own, key="name".__ne__):
            lines += [f"  {line}" for line in _field(name, left.pop(name), given, helps.get(name, ""))]
    return lines


def _field(name: str, field: FieldInfo, given: Mapping[str, Any], more: str) -> list[str]:
    """Its remark, beside it where there is room; then the key with its value."""
    value = given.get(name, field.get_default(call_default_factory=True))
    shown = "" if value is None else yaml_file.dump_inline(value.model_dump() if isinstance(value, Section) else value)
    line = f"{'' if name in given else '#'}{name}: {shown}".rstrip()
    remark = more or ("" if name == "name" else _words(field))
    if len(line) + len(remark) + 4 <= _WIDTH:
        return [f"{line}  # {remark}" if remark else line]
    return [*(each.strip() for each in _remark(remark)), line]


def _remark(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  # ", subsequent_indent="  # ")


def _words(field: FieldInfo) -> str:
    """What a field takes, in words: of its type and its bounds."""

    class One(Section):
        __annotations__ = {"one": field.annotation}
        one = field

    schema = One.model_json_schema()
    return _kind(schema["properties"]["one"], schema.get("$defs", {}))


def _kind(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        return "with " + ", ".join(definitions[schema["$ref"].rpartition("/")[2]]["properties"])
    if "anyOf" in schema:
        return " or ".join(filter(None, dict.fromkeys(_kind(part, definitions) for part in schema["anyOf"])))
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    bounds = [
        f"{words} {schema[key]:,.12g}"
        for key, words in {
            "minimum": "at least",
            "exclusiveMinimum": "above",
            "maximum": "at most",
            "exclusiveMaximum": "below",
        }.items()
        if key in schema
    ]
    names = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "string": "a text",
        "array": "a list",
        "object": "a section",
    }
    return ", ".join([name for name in [names.get(schema.get("type", ""), "")] if name] + bounds)
