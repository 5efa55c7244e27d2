"""Rules by which function transforms and forward-mode derivatives go through a bilinear operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def bilinear(
    forward: Callable[..., Tensor],
    operator: Callable[..., Tensor],
    axes: tuple[str, str, str],
    setup_context: Callable[..., None],
    backward: Callable[..., Any],
) -> type[torch.autograd.Function]:
    """The operator f(a, b, …) as a function that knows what to do with batches and tangents of a and b.

    A batch of arguments needs no loop: it joins the axis that the batched arguments, and only these, share with the
    result, and is cut out of it again. The derivative is f(ȧ, b, …) + f(a, ḃ, …).

    Args:
        forward: f where no transform is at work any more.
        operator: f, wherever it is called.
        axes: of a, of b and of the result, a letter for each, in their order; axes that nothing joins may be left out
            at the end.
        setup_context: as in `torch.autograd.Function`; saves a and b, for both directions.
        backward: likewise.
    """
    of_a, of_b, of_result = axes

    def vmap(info: Any, in_dims: tuple[Any, ...], a: Tensor, b: Tensor, *how: Any) -> tuple[Tensor, int]:
        batched = [dim is not None for dim in in_dims[:2]]
        # The axis that is in the shapes of just those factors that have the batch.
        axis = next(letter for letter in of_result if [letter in of_a, letter in of_b] == batched)
        a, b = _join(a, in_dims[0], of_a.find(axis)), _join(b, in_dims[1], of_b.find(axis))
        result, place = operator(a, b, *how), of_result.index(axis)
        return result.unflatten(place, (info.batch_size, result.shape[place] // info.batch_size)), place

    def jvp(ctx: Any, a_tangent: Tensor | None, b_tangent: Tensor | None, *_: Any) -> Tensor | None:
        a, b = ctx.saved_tensors
        parts = [
            operator(*pair, *ctx.how)
            for pair, tangent in (((a_tangent, b), a_tangent), ((a, b_tangent), b_tangent))
            if tangent is not None
        ]
        return sum(parts[1:], parts[0]) if parts else None

    methods = {"forward": forward, "setup_context": setup_context, "backward": backward, "vmap": vmap, "jvp": jvp}
    return type("Bilinear", (torch.autograd.Function,), {name: staticmethod(f) for name, f in methods.items()})


def _join(t: Tensor, batch: int | None, axis: int) -> Tensor:
    """The batch of a tensor as a part of one of its axes; a tensor without a batch as it is."""
    return t if batch is None else t.movedim(batch, axis).flatten(axis, axis + 1)
