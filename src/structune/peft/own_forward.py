"""Base layers that run code of their own: whether ΔW has an output of its own beside theirs."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from structune.delta import FLOATS

CODE = ("__call__", "forward", "_conv_forward")
"""What a subclass may redefine of how a layer of PyTorch uses its weight."""


def redefines(base: nn.Module, parent: type[nn.Module]) -> bool:
    """Whether a layer of a subclass of `parent` runs code of its own when it is called."""
    return any(getattr(type(base), name, None) is not getattr(parent, name, None) for name in CODE)


def reads_as(base: nn.Module, parent: type[nn.Module], known: Callable[..., Any]) -> bool:
    """Whether all that a subclass of `parent` redefines is a forward that is `known` word for word.

    What a class computes for all inputs, arguments and switches cannot be tried out, so it must be the same code.
    """
    mro = type(base).__mro__
    own = [(name, vars(kind)[name]) for kind in mro[: mro.index(parent)] for name in CODE if name in vars(kind)]
    return len(own) == 1 and own[0][0] == "forward" and _words(own[0][1]) == _words(known)


def _words(function: Any) -> tuple[Any, ...] | None:
    """What a function is compiled to, whatever its variables are called."""
    if not isinstance(function, FunctionType):
        return None
    code = function.__code__
    return code.co_code, code.co_names, code.co_consts, code.co_argcount, code.co_freevars, function.__defaults__


def replaced(base: nn.Module) -> bool:
    """Whether a forward was put on this one layer; hooks of accelerate and diffusers run the one of its class."""
    forward = vars(base).get("forward")
    if forward is None:
        return False
    inner = inspect.unwrap(forward) if isinstance(forward, functools.partial) else forward
    return getattr(inner, "__func__", None) is not type(base).forward


@torch.no_grad()
def check_read(base: nn.Module, example: Callable[[], Tensor]) -> None:
    """See that a layer with code of its own reads its weight: a copy on the CPU is tried with two random ones.

    Nothing is said where it cannot be tried, because it takes other arguments or something has replaced its forward,
    and where it gives the same for other inputs too: a switch or a gain of 0 may be set later.

    Args:
        base: the layer, with a `weight` of plain floats; it is not changed, and its weight not copied.
        example: makes an input, whose samples differ.

    Raises:
        TypeError: its output depends on its input, but not on its weight.
    """
    weight: Any = base.weight
    if "forward" in vars(base):
        return
    try:
        trial: Any = copy.deepcopy(base, {id(parameter): parameter for parameter in base.parameters(recurse=False)})
        for hooks in (trial._forward_hooks, trial._forward_pre_hooks):
            hooks.clear()
        with torch.random.fork_rng([]):
            for module in trial.modules():
                for tensors, wrap in ((module._parameters, _frozen), (module._buffers, torch.Tensor.clone)):
                    for name, tensor in tensors.items():
                        if tensor is not None and tensor.dtype in FLOATS:
                            tensors[name] = wrap(_random(tensor))
            x = example()
            trial.to("cpu").train()(x)  # where a copy may be made
            first = trial.eval()(x)
            trial.weight = _frozen(_random(weight))
            second = trial(x)
    except Exception:  # noqa: BLE001  a stranger's code, called in a way that it may not know
        return
    if not isinstance(first, Tensor) or not isinstance(second, Tensor) or not first.equal(second):
        return
    if first.ndim and len(first) and not first.equal(first[:1].expand_as(first)):
        raise TypeError(
            f"what {type(base).__name__} gives does not depend on its weight, or on a copy of it made before: an "
            "adapter of the weight would do nothing"
        )


def _random(like: Tensor) -> Tensor:
    """Random numbers of that shape; a matrix has equal anti-diagonals and takes no more memory than its edges."""
    if like.ndim != 2:
        return torch.randn(like.shape, dtype=like.dtype)
    rows, cols = like.shape
    return torch.randn(rows + cols, dtype=like.dtype).as_strided((rows, cols), (1, 1))


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
