"""Taking ΔW out of a merged weight again, bit by bit."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from structune.delta import StructuredDelta
from structune.surroundings import plain

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Undo:
    """What it takes to have W back from W + ΔW, rounded to W's dtype.

    Taking ΔW from the sum gives W, but where the sum was rounded more coarsely than W is. These entries are kept with
    their places: a few in a hundred where ΔW is small beside W, and all of W where that takes less memory.

    Args:
        weight: W.
        merged: W + ΔW in W's dtype.
        delta: ΔW, in at least fp32.
    """

    def __init__(self, weight: Tensor, merged: Tensor, delta: Tensor) -> None:
        self.places: Tensor | None = None
        self.values = weight
        if not plain(weight):
            return
        lost = _bits(plus(merged, delta, -1)) != _bits(weight)
        size = weight.element_size()
        if int(lost.sum()) * (8 + size) < weight.numel() * size:
            self.places = lost.flatten().nonzero().flatten()
            self.values = weight[torch.unravel_index(self.places, weight.shape)]

    def original(self, merged: Tensor, delta: Tensor) -> Tensor:
        """W, from the same sum and ΔW; where the sum has been cast in the meantime, W up to its rounding."""
        back = plus(merged, delta, -1)
        if merged.dtype == self.values.dtype:
            values = self.values.to(merged.device)
            if self.places is None:
                return values
            back[torch.unravel_index(self.places.to(merged.device), merged.shape)] = values
        return back


def plus(weight: Tensor, delta: Tensor, sign: int = 1) -> Tensor:
    """W ± ΔW, summed in the wider of their dtypes and rounded once to W's."""
    wide = torch.promote_types(weight.dtype, delta.dtype)
    return (weight.to(wide) + sign * delta.to(weight.device, wide)).to(weight.dtype)


def as_it_is(delta: StructuredDelta) -> StructuredDelta:
    """A ΔW with numbers and strength of its own, whatever becomes of this one."""
    again = copy.copy(delta)
    vars(again).pop("pool", None)  # FSDP's view of the numbers
    vars(again)["_parameters"] = {"pool": nn.Parameter(delta.pool.detach().clone(), requires_grad=False)}
    vars(again)["_buffers"] = delta._buffers.copy()
    if delta.shared_pool is not None:
        delta.shared_pool.leave(again)
        vars(again)["shared_pool"] = None
    return again


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(INTEGERS[tensor.element_size()])
