"""A convolution as a family hands it to the products: which kernel entries meet which inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Convolution:
    """y_i = Σ_j kernel[i + offset − j] x_j for 0 ≤ i < rows, 0 ≤ j < cols.

    Kernel indices are taken modulo `period`, with a factor `wrap` for each period that they are off; without a period
    the kernel reads zero outside.

    Args:
        kernel: (…, K) kernels; K = period when there is one.
        rows: M, outputs kept.
        cols: N, inputs.
        offset: index of the full convolution at which the outputs start.
        period: the cyclic period, or None for a plain convolution.
        reverse: whether x is read backwards, j → N − 1 − j (this makes Hankel forms).
        wrap: 1 for cyclic convolutions, −1 for negacyclic ones (skew-circulant matrices).
    """

    kernel: Tensor
    rows: int
    cols: int
    offset: int = 0
    period: int | None = None
    reverse: bool = False
    wrap: int = 1

    def unrolled(self) -> Convolution:
        """The same map without a period: the kernel written out over the indices offset − (N − 1) … offset + M − 1."""
        if self.period is None:
            return self
        first = self.offset - (self.cols - 1)
        index = torch.arange(first, first + self.rows + self.cols - 1, device=self.kernel.device)
        kernel = self.kernel[..., index % self.period]
        if self.wrap == -1:
            turns = index.div(self.period, rounding_mode="floor")
            kernel = kernel * (1 - 2 * (turns % 2)).to(kernel.dtype)
        return replace(self, kernel=kernel, offset=self.cols - 1, period=None)

    def lookup(self, block_row: Tensor, row: Tensor) -> Tensor:
        """Rows of a grid of such matrices, gathered from the kernels: see `Structure.lookup`."""
        plain = self.unrolled()
        col = torch.arange(self.cols, device=row.device)
        index = row.unsqueeze(-1) + plain.offset - (col.flip(0) if self.reverse else col)
        inside = (index >= 0) & (index < plain.kernel.shape[-1])
        block_col = torch.arange(plain.kernel.shape[-2], device=row.device)
        gathered = plain.kernel[block_row[:, None, None], block_col[:, None], (index * inside)[:, None]]
        return gathered * inside[:, None]
