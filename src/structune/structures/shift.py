"""The operators behind the families: the unit-f-circulant shift Z_f and its Krylov matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def shift(n: int, f: float) -> Tensor:
    """Z_f, n×n fp64: Z_f e_j = e_{j+1} and Z_f e_{n−1} = f e_0 (TR2024-157, equation 2).

    Examples:
        >>> shift(3, -1.0)
        tensor([[ 0.,  0., -1.],
                [ 1.,  0.,  0.],
                [ 0.,  1.,  0.]], dtype=torch.float64)
    """
    z = torch.diag(torch.ones(n - 1, dtype=torch.float64), -1)
    z[0, n - 1] += f
    return z


def krylov_diagonals(v: Tensor, f: float) -> Tensor:
    """The diagonals (…, 2n−1) of K(Z_f, v) = [v, Z_f v, Z_f² v, …], a Toeplitz matrix, lowest index top right.

    Entry (i, j) of K is v[i−j] on and below the diagonal and f·v[n+i−j] above it, so that
    t[i−j+n−1] with t = (f·v_1, …, f·v_{n−1}, v_0, …, v_{n−1}) gives it.

    Args:
        v: (…, n), the first column.
        f: the wrap-around factor: 1 circulant, −1 skew-circulant, 0 lower triangular.
    """
    return torch.cat((f * v[..., 1:], v), dim=-1)
