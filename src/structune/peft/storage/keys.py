"""How PEFT names tensors in an adapter's file."""

from __future__ import annotations

PREFIX = "base_model.model."
"""What stands before a module's name in the model that is adapted."""


def bare(key: str) -> str:
    """The name in the model that is adapted, of a name with or without PEFT's prefix."""
    return key.removeprefix(PREFIX)
