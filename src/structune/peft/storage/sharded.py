"""Models that FSDP has wrapped: modules and state dicts name the same things differently there."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

WRAPPER = "_fsdp_wrapped_module"


class StateDictNames:
    """A model's modules under the names that its state dict gives them.

    PEFT 0.21 takes FSDP's part out of a name only where the name begins with it: of a model whose blocks are wrapped
    too, it would save nothing.

    Args:
        model: the model, wrapped or not.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """All modules, without FSDP's parts in their names."""
        for name, module in self.model.named_modules():
            yield ".".join(part for part in name.split(".") if part != WRAPPER), module


def check_unwrapped(model: nn.Module) -> None:
    """Raise RuntimeError if FSDP has wrapped the model: PEFT 0.21 would load nothing into it, without a word."""
    if any(WRAPPER in name.split(".") for name, _ in model.named_modules()):
        raise RuntimeError(
            "an adapter cannot be loaded into a model that FSDP has wrapped: load it before the model is wrapped, "
            "or use FSDP2 (fsdp_version=2 in Accelerate)"
        )
