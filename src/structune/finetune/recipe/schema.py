"""A JSON schema of recipes, by which editors complete keys and underline mistakes. Nothing heavy is imported."""

from __future__ import annotations

from typing import Any

from structune.finetune.recipe.recipe import Recipe
from structune.tasks import registry


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe of any task: what `task` and `data` may hold follows from the task that it names."""
    definitions: dict[str, Any] = {}
    cases = []
    names = registry.names()
    for name in names:
        whole = Recipe.of_task(name).model_json_schema()
        for key, definition in whole.pop("$defs").items():
            if definitions.setdefault(key, definition) != definition:
                raise ValueError(f"two sections are called {key}, and differ: rename one")
        definitions[f"recipe of {name}"] = whole
        section = {"type": "object", "properties": {"name": {"const": name}}, "required": ["name"]}
        named: dict[str, Any] = {"properties": {"task": {"anyOf": [{"const": name}, section]}}, "required": ["task"]}
        is_it = {"anyOf": [named, _without_name()]} if name == registry.DEFAULT else named
        cases.append({"if": is_it, "then": {"$ref": f"#/$defs/recipe of {name}"}})
    section_of_one = {"type": "object", "properties": {"name": {"enum": names}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "structune recipe",
        "type": "object",
        "properties": {"task": {"anyOf": [{"enum": [*names, None]}, section_of_one]}},
        "allOf": cases,
        "$defs": definitions,
    }


def _without_name() -> dict[str, Any]:
    """A recipe that does not say its task, or says only its options."""
    unnamed = {"anyOf": [{"type": "null"}, {"type": "object", "not": {"required": ["name"]}}]}
    return {"anyOf": [{"not": {"required": ["task"]}}, {"properties": {"task": unnamed}}]}
