"""Which verifiers there are, and their short forms in a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from structune.tasks.parts.verifiers.exact_match import ExactMatch
from structune.tasks.parts.verifiers.function import Function
from structune.tasks.parts.verifiers.length import Length
from structune.tasks.parts.verifiers.regular_expression import RegularExpression

_Known = Annotated[ExactMatch | RegularExpression | Length | Function, Field(discriminator="name")]


def _section(given: Any) -> Any:
    """`exact-match` stands for that section, and `rewards.py:score` for the function."""
    if not isinstance(given, str):
        return given
    return {"name": "function", "function": given} if ":" in given else {"name": given}


AnyVerifier = Annotated[_Known, BeforeValidator(_section, json_schema_input_type=_Known | str)]
"""A verifier's section, its name where it needs nothing else, or `file.py:function`."""
