"""Whether a value of a recipe is of the type that a dataclass says."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

from pydantic import JsonValue, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from structune.section import inside_a_line


def unlike_annotation(config: type[Any], name: str, value: JsonValue) -> str | None:
    """Why a field of a dataclass does not take a value, by its annotation; None: it does, as far as that says.

    Annotations of PEFT's are narrower than what it takes in two ways, which are let pass: texts that are written out
    stand for others (`pissa_niter_[number of iters]`), and whole numbers are any numbers (`lora_alpha`).
    """
    try:
        annotated = TypeAdapter(get_type_hints(config)[name])
    except (NameError, PydanticSchemaGenerationError):  # of what only a type checker imports, or pydantic does not know
        return None
    try:
        # As JSON, where a list is taken for a tuple and a text for an enum's member, and else nothing is turned.
        annotated.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        problems = error.errors()
        if not any(_let_pass(problem) for problem in problems):
            return "; or ".join(dict.fromkeys(map(inside_a_line, problems)))
    return None


def _let_pass(problem: ErrorDetails) -> bool:
    kinds = {"literal_error": str, "int_type": float}
    return isinstance(problem["input"], kinds.get(problem["type"], ()))
