"""A function whose backward pass keeps its arguments and nothing that lies between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from structune.surroundings import natively


def recomputed(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """function(*tensors), worked out once more for its gradients; plainly where compilers or transforms are at work.

    Args:
        function: made of differentiable operations, the same each time, with no other tensors in it.
        tensors: its arguments.
    """
    if natively() or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return function(*tensors)
    result: Tensor = _Recomputed.apply(function, *tensors)  # type: ignore[no-untyped-call]
    return result


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        twice = torch.is_grad_enabled()  # derivatives of these derivatives are wanted
        needed = ctx.needs_input_grad[1:]
        with torch.enable_grad():
            arguments = [
                tensor if twice else tensor.detach().requires_grad_(wanted)
                for tensor, wanted in zip(ctx.saved_tensors, needed, strict=True)
            ]
            result = ctx.function(*arguments)
            wanted = [tensor for tensor, needs in zip(arguments, needed, strict=True) if needs]
            found = iter(torch.autograd.grad(result, wanted, grad, create_graph=twice))
        return None, *(next(found) if needs else None for needs in needed)
