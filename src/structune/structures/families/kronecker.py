"""Kronecker: every entry of a small matrix times another small matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.numerics.recomputed import recomputed
from structune.structures.families.low_rank import LowRank
from structune.structures.generator import Generator, uniform, zeros
from structune.structures.partition import nearly_square
from structune.structures.registry import register
from structune.structures.terms import TermsStructure

NEARLY_SQUARE = 2**30
"""More rows or columns than any block has: A gets as many as `nearly_square` says."""


@register
@dataclass(frozen=True)
class Kronecker(TermsStructure):
    """W = Σ_l A_l ⊗ B_l with A (m, a, c), B (m, b, d), cropped: Σ_l A_l[i div b, j div d] B_l[i mod b, j mod d].

    A = (1 2), B = | 1 3 | gives  | 1 3 2 6 |
                   | 2 4 |        | 2 4 4 8 |

    One term of nearly square factors is LoKr's without a rank (arXiv 2309.14859, section 3.2) and KronA's (arXiv
    2212.10650, section 3): a c + b d numbers, and rank A · rank B as rank. Several are a sum of as many updates.

    Args:
        terms: m, Kronecker products added up.
        left_rows: a, rows of A; then b = ⌈M / a⌉. With more than M, as by default, both are about √M.
        left_cols: c, columns of A; then d = ⌈N / c⌉. With more than N, as by default, both are about √N.
    """

    left_rows: int = NEARLY_SQUARE
    left_cols: int = NEARLY_SQUARE

    name: ClassVar[str] = "kronecker"
    pair: ClassVar[tuple[str, str]] = "A", "B"
    num_splits: ClassVar[int] = 1
    marker: ClassVar[str] = "<"

    @classmethod
    def growth(cls, n: float) -> float:
        return n**1.5

    @property
    def left(self) -> tuple[int, int]:
        """(a, c), the size of A."""
        return (
            self.left_rows if self.left_rows <= self.rows else nearly_square(self.rows),
            self.left_cols if self.left_cols <= self.cols else nearly_square(self.cols),
        )

    @property
    def right(self) -> tuple[int, int]:
        """(b, d), the size of B: the smallest with which A ⊗ B has M rows and N columns."""
        a, c = self.left
        return -(-self.rows // a), -(-self.cols // c)

    def generators(self) -> dict[str, Generator]:
        return {"A": zeros(self.terms, *self.left), "B": uniform(self.terms, *self.right)}

    def entries(self, A: Tensor, B: Tensor) -> Tensor:
        return self.strip(0, self.rows, A, B)

    def strip(self, start: int, stop: int, A: Tensor, B: Tensor) -> Tensor:
        first, last = self._rows_of_left(start, stop)
        products = A[..., first:last, None, :, None] * B[..., None, :, None, :]
        products = products.sum(dim=-5) if self.terms > 1 else products.squeeze(-5)
        offset = first * self.right[0]
        return products.flatten(-2).flatten(-3, -2)[..., start - offset : stop - offset, : self.cols]

    def pullback(self, grad: Tensor, start: int = 0, *, A: Tensor, B: Tensor) -> dict[str, Tensor]:
        (a, c), (b, d) = self.left, self.right
        stop = start + grad.shape[-2]
        first, last = self._rows_of_left(start, stop)
        whole = pad(grad, (0, c * d - self.cols, start - first * b, last * b - stop))
        by_entry_of_A = whole.unflatten(-2, (last - first, b)).unflatten(-1, (c, d)).transpose(-3, -2)
        pieces = by_entry_of_A.flatten(-2).flatten(-3, -2)
        used = A[..., first:last, :]
        of_left = B.flatten(-2) @ pieces.mT
        of_right = used.flatten(-2) @ pieces
        return {
            "A": pad(of_left.unflatten(-1, (last - first, c)), (0, 0, first, a - last)),
            "B": of_right.unflatten(-1, (b, d)),
        }

    def multiply(self, x_TQN: Tensor, A: Tensor, B: Tensor) -> Tensor:
        """A X Bᵀ with x read as the rows of X (c, d), the cheaper product first; what lies between is not kept."""
        return recomputed(self._one_side_after_the_other, x_TQN, A, B)

    def _one_side_after_the_other(self, x_TQN: Tensor, A: Tensor, B: Tensor) -> Tensor:
        (_, c), (_, d) = self.left, self.right
        A, B = A.to(x_TQN.dtype), B.to(x_TQN.dtype)
        x_TQcd = pad(x_TQN, (0, c * d - self.cols)).unflatten(-1, (c, d))
        if self._left_first:
            inner_TPQlad = torch.einsum("pqlac,tqcd->tpqlad", A, x_TQcd)
            y_TPab = torch.einsum("pqlbd,tpqlad->tpab", B, inner_TPQlad)
        else:
            inner_TPQlcb = torch.einsum("pqlbd,tqcd->tpqlcb", B, x_TQcd)
            y_TPab = torch.einsum("pqlac,tpqlcb->tpab", A, inner_TPQlcb)
        return y_TPab.flatten(-2)[..., : self.rows]

    def multiplications(self, num_block_rows: int, num_block_cols: int) -> int:
        (a, c), (b, d) = self.left, self.right
        return num_block_rows * num_block_cols * self.terms * min(a * d * (b + c), b * c * (a + d))

    def moved(self, num_block_rows: int, num_block_cols: int) -> int:
        """What lies between, once more in another layout, and the result in another."""
        (a, c), (b, d) = self.left, self.right
        between = num_block_cols * self.terms * (a * d if self._left_first else b * c)
        return num_block_rows * (2 * between + self.rows)

    @property
    def _left_first(self) -> bool:
        (a, c), (b, d) = self.left, self.right
        return a * d * (b + c) < b * c * (a + d)

    def lookup(self, block_row: Tensor, row: Tensor, A: Tensor, B: Tensor) -> Tensor:
        b = self.right[0]
        rows_of_A_TQlc = A[block_row, :, :, row.div(b, rounding_mode="floor")]
        rows_of_B_TQld = B[block_row, :, :, row.remainder(b)]
        return torch.einsum("tqlc,tqld->tqcd", rows_of_A_TQlc, rows_of_B_TQld).flatten(-2)[..., : self.cols]

    def nearest(self, matrix: Tensor) -> dict[str, Tensor] | None:
        """Where nothing is cropped: the truncated singular value decomposition of entries laid out as vec A × vec B.

        Source: Van Loan & Pitsianis 1993, Approximation with Kronecker products.
        """
        (a, c), (b, d) = self.left, self.right
        if (a * b, c * d) != (self.rows, self.cols):
            return None
        places = matrix.unflatten(-2, (a, b)).unflatten(-1, (c, d)).transpose(-3, -2).flatten(-2).flatten(-3, -2)
        factors = LowRank(a * c, b * d, self.terms).nearest(places)
        return {"A": factors["G"].mT.unflatten(-1, (a, c)), "B": factors["H"].unflatten(-1, (b, d))}

    def _rows_of_left(self, start: int, stop: int) -> tuple[int, int]:
        """The first row of A that rows start … stop − 1 of W come from, and the one after the last."""
        b = self.right[0]
        return start // b, -(-stop // b)
