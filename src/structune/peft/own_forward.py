"""Base layers of classes of their own: whether ΔW has an output of its own beside theirs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from structune.delta import FLOATS

CODE = ("__call__", "forward", "_conv_forward")
"""What a subclass may redefine of how a layer of PyTorch uses its weight."""


def redefines(base: nn.Module, parent: type[nn.Module]) -> bool:
    """Whether a layer of a subclass of `parent` runs code of its own when it is called."""
    return any(getattr(type(base), name, None) is not getattr(parent, name, None) for name in CODE)


@torch.no_grad()
def adds_up(base: nn.Module, like: Callable[[Any, Tensor], Tensor], example: Callable[[], Tensor]) -> bool:
    """Whether a layer with code of its own gives what `like` gives: a copy on the CPU is tried on random numbers.

    Where it cannot be tried, because it takes other arguments or something else has replaced its forward, it is not.

    Args:
        base: the layer, with a matrix `weight` of plain floats; it is not changed, and its weight not copied.
        like: from a layer and x to the output of the plain layer.
        example: makes an input.

    Raises:
        TypeError: its output does not depend on its weight.
    """
    weight: Any = base.weight
    if "forward" in vars(base):
        return False
    trial: Any = copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters(recurse=False)})
    for hooks in (trial._forward_hooks, trial._forward_pre_hooks):
        hooks.clear()
    with torch.random.fork_rng([]):
        for module in trial.modules():
            for tensors, wrap in ((module._parameters, _frozen), (module._buffers, torch.Tensor.clone)):
                for name, tensor in tensors.items():
                    if tensor is not None and tensor.dtype in FLOATS:
                        tensors[name] = wrap(_random(tensor))
        try:
            x = example()
            trial.to("cpu")
            same = all(_close(like(trial, x), trial.train(mode)(x)) for mode in (True, False))
            first = trial(x)
            trial.weight = _frozen(_random(weight))
            second = trial(x)
        except Exception:  # noqa: BLE001  a stranger's code, called in a way that it may not know
            return False
    if isinstance(first, Tensor) and isinstance(second, Tensor) and first.equal(second):
        raise TypeError(
            f"what {type(base).__name__} gives does not depend on its weight, or on a copy of it made before: an "
            "adapter of the weight would do nothing"
        )
    return same


def _random(like: Tensor) -> Tensor:
    """Random numbers of that shape; a matrix has equal anti-diagonals and takes no more memory than its edges."""
    if like.ndim != 2:
        return torch.randn(like.shape, dtype=like.dtype)
    rows, cols = like.shape
    return torch.randn(rows + cols, dtype=like.dtype).as_strided((rows, cols), (1, 1))


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def _close(expected: Tensor, found: Any) -> bool:
    """Equal up to rounding."""
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    bound = max(1e-3, 8 * torch.finfo(expected.dtype).eps)
    found, expected = found.double(), expected.double()
    return bool(torch.linalg.norm(found - expected) <= bound * torch.linalg.norm(expected))
