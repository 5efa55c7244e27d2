"""Sums along the diagonals of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

SCAN_ROWS = 16
"""Rows that are summed at once, by a product with a triangle of ones."""


def running_sums(steps: Tensor) -> Tensor:
    """W[i, j] = W[i − 1, j − 1] + steps[i, j], with W[i − 2, N − 1] before W[i, 0]: (…, M, N) to (…, M, N).

    Read in rows that are one longer, a matrix has its diagonals in columns, one after the other, and sums down the
    columns add them all up: within groups of SCAN_ROWS rows, and what comes from the groups above. The adjoint is the
    same with the matrix turned by 180° before and after.

    Examples:
        >>> running_sums(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]))
        tensor([[ 1.,  2.,  3.],
                [ 4.,  6.,  8.],
                [10., 12., 15.]])
    """
    rows, cols = steps.shape[-2:]
    length = rows * cols
    upright = pad(steps.flatten(-2), (0, -length % (SCAN_ROWS * (cols + 1)))).unflatten(-1, (-1, SCAN_ROWS, cols + 1))
    totals = upright.sum(dim=-2)
    above = (totals.cumsum(dim=-2) - totals).unsqueeze(-2)
    triangle = torch.ones(SCAN_ROWS, SCAN_ROWS, dtype=steps.dtype, device=steps.device).tril()
    groups = upright.shape[:-2].numel()
    sums = torch.baddbmm(
        above.flatten(0, -3).expand(-1, SCAN_ROWS, -1), triangle.expand(groups, -1, -1), upright.flatten(0, -3)
    )
    return sums.view_as(upright).flatten(-3)[..., :length].unflatten(-1, (rows, cols))
