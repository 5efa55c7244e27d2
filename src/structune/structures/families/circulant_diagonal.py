"""Circulant-diagonal: products of diagonal and circulant matrices, one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.numerics.cyclic import cyclic_product
from structune.numerics.recomputed import recomputed
from structune.structures.base import Structure
from structune.structures.convolution import Convolution
from structune.structures.families.circulant import Circulant
from structune.structures.generator import Generator, uniform, zeros
from structune.structures.registry import register


@register
@dataclass(frozen=True)
class CirculantDiagonal(Structure):
    """W = diag(d_m) C(c_m) … diag(d_1) C(c_1) diag(d_0), n×n with n = max(M, N), cropped to M×N.

    d_0 = (1, 2), c_1 = (1, 3), d_1 = (1, 10) gives  |  1  6 |
                                                     | 30 20 |

    d_0 (N,), d_m (M,), all others (n,); C is the circulant with that first column. With one circulant W[i, j] =
    d_1[i] c_1[(i − j) mod n] d_0[j]; 2n − 1 factors give any n×n matrix (Huhtanen & Perämäki 2015). Training starts at
    c_m = 0, with diagonals between 1/2 and 3/2.
    Source: CDVFT (arXiv 2505.00580, section 3), one circulant; there rectangles are cut into squares, here cropped.

    Args:
        circulants: m, circulants in the product; there is one diagonal more.
    """

    circulants: int = 1

    name: ClassVar[str] = "circulant_diagonal"
    num_splits: ClassVar[int] = 1
    marker: ClassVar[str] = "H"

    @classmethod
    def growth(cls, n: float) -> float:
        return n * math.log2(n)

    @property
    def order(self) -> int:
        """n = max(M, N), the size of the square matrix that is cropped."""
        return max(self.rows, self.cols)

    def generators(self) -> dict[str, Generator]:
        n, m = self.order, self.circulants
        factors = {"d0": uniform(self.cols)}
        for step in range(1, m + 1):
            factors[f"c{step}"] = uniform(n) if step < m else zeros(n)
            factors[f"d{step}"] = uniform(n if step < m else self.rows)
        return factors

    @property
    def numel(self) -> int:
        """As of the shapes, without a list of them, which is as long as `circulants` says, whoever says it."""
        return self.cols + self.rows + (2 * self.circulants - 1) * self.order

    def entries(self, **generators: Tensor) -> Tensor:
        return self.strip(0, self.rows, **generators)

    def strip(self, start: int, stop: int, **generators: Tensor) -> Tensor:
        last = generators[f"c{self.circulants}"]
        rows = self._circulant.strip(start, stop, last)
        return self._through(rows * generators[f"d{self.circulants}"][..., start:stop, None], generators)

    def pullback(self, grad: Tensor, start: int = 0, **generators: Tensor) -> dict[str, Tensor]:
        if self.circulants > 1:
            return super().pullback(grad, start, **generators)
        stop = start + grad.shape[-2]
        c, left, right = generators["c1"], generators["d1"][..., start:stop, None], generators["d0"][..., None, :]
        of_product = grad * self._circulant.strip(start, stop, c)
        return {
            "d0": (of_product * left).sum(dim=-2),
            "c1": self._circulant.pullback(grad * left * right, start, c=c)["c"],
            "d1": pad((of_product * right).sum(dim=-1), (start, self.rows - stop)),
        }

    def multiply(self, x_TQN: Tensor, **generators: Tensor) -> Tensor:
        """Diagonals entry by entry, circulants by a real transform forward and one back, which are not kept."""
        return recomputed(self._factor_by_factor, x_TQN, *(generators[name] for name in self.generators()))

    def _factor_by_factor(self, x_TQN: Tensor, *vectors: Tensor) -> Tensor:
        first, *others = (vector.to(torch.promote_types(x_TQN.dtype, torch.float32)) for vector in vectors)
        y_TPQn = x_TQN.unsqueeze(1) * first
        for c, diagonal in zip(others[::2], others[1::2], strict=True):
            y_TPQn = cyclic_product(y_TPQn, c, self.order)[..., : diagonal.shape[-1]] * diagonal
        return y_TPQn.sum(dim=2).to(x_TQN.dtype)

    def multiplications(self, num_block_rows: int, num_block_cols: int) -> int:
        transforms = 2 * self.order * math.ceil(math.log2(self.order + 1))
        return num_block_rows * num_block_cols * self.circulants * (transforms + 2 * self.order)

    def moved(self, num_block_rows: int, num_block_cols: int) -> int:
        """Before and after each diagonal, each transform and each product of spectra."""
        return num_block_rows * num_block_cols * self.circulants * 6 * self.order

    def lookup(self, block_row: Tensor, row: Tensor, **generators: Tensor) -> Tensor:
        top = f"c{self.circulants}", f"d{self.circulants}"
        circulant = self._circulant
        rows_TQn = Convolution(generators[top[0]], circulant.rows, circulant.cols, period=self.order).lookup(
            block_row, row
        )
        below = {name: numbers[block_row] for name, numbers in generators.items() if name not in top}
        diagonal = generators[top[1]][block_row, :, row].unsqueeze(-1)
        return self._through((rows_TQn * diagonal).unsqueeze(-2), below).squeeze(-2)

    def from_raw(self, **raw: Tensor) -> dict[str, Tensor]:
        """Diagonals 1 + raw / 2, circulants times √(3 / n), which keeps sizes; the last times 1 / √m."""
        scale = self._scale_of_circulants
        return {name: v * scale[name] if name in scale else 1 + v / 2 for name, v in raw.items()}

    def to_raw(self, **generators: Tensor) -> dict[str, Tensor]:
        scale = self._scale_of_circulants
        return {name: v / scale[name] if name in scale else 2 * (v - 1) for name, v in generators.items()}

    @property
    def _scale_of_circulants(self) -> dict[str, float]:
        m = self.circulants
        return {f"c{step}": math.sqrt(3 / self.order if step < m else 1 / m) for step in range(1, m + 1)}

    @property
    def _circulant(self) -> Circulant:
        """The last circulant, cropped to the rows and columns that are used of it."""
        return Circulant(self.rows, self.cols if self.circulants == 1 else self.order)

    def _through(self, rows: Tensor, generators: dict[str, Tensor]) -> Tensor:
        """Rows (…, B, n) times all factors but the last two: (…, B, N)."""
        around = partial(cyclic_product, period=self.order)
        for step in range(self.circulants - 1, 0, -1):
            rows = rows * generators[f"d{step}"].unsqueeze(-2)
            turned = recomputed(around, rows, generators[f"c{step}"].unsqueeze(-2).flip(-1).roll(1, -1))
            rows = turned.to(rows.dtype)
        return rows[..., : self.cols] * generators["d0"].unsqueeze(-2)
