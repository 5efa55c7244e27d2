"""Monarch: two block-diagonal matrices and the shuffle between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.structures.families.low_rank import LowRank
from structune.structures.generator import Generator, uniform, zeros
from structune.structures.partition import Cut
from structune.structures.registry import register
from structune.structures.terms import TermsStructure

THIN = 64
"""Up to so many numbers in the middle, dense factors with zeros are multiplied in less time than their blocks."""


@register
@dataclass(frozen=True)
class Monarch(TermsStructure):
    """W = Σ_l S diag(L_l) S diag(R_l) with L (m, k, ⌈M / k⌉, r), R (m, k, r, ⌈N / k⌉), cropped to M×N.

    diag puts k blocks on a diagonal, and the shuffles S deal like cards: number f of the k r in the middle goes to
    place f div k of block f mod k of L, and row σ of block λ of L is row σ k + λ of W. Where column π of the κ-th piece
    of N columns meets it, W has Σ_ρ L[λ, σ, (κ r + ρ) div k] R[κ, ρ, π] over the ρ < r with (κ r + ρ) mod k = λ.

    L = (1 2)ᵀ, (3 4)ᵀ, R = (5 6), (7 8), r = 1 gives  |  5  6  0  0 |
                                                       |  0  0 21 24 |
                                                       | 10 12  0  0 |
                                                       |  0  0 28 32 |

    Rank up to k r with the r (M + N) numbers of a low-rank matrix of rank r; with k blocks of rank N / k it is Dao's
    Monarch matrix (arXiv 2204.00595, definition 3.1 for k = √N), with fewer MoRe's (arXiv 2408.17383, section 3).
    From r = k on no entry is zero.

    Args:
        num_blocks: k of each factor; no more than rows or columns.
        rank: r, of each block.
        terms: m, Monarch matrices added up.
    """

    num_blocks: int = 4
    rank: int = 4

    name: ClassVar[str] = "monarch"
    pair: ClassVar[tuple[str, str]] = "L", "R"
    num_splits: ClassVar[int] = 1
    marker: ClassVar[str] = ">"

    @classmethod
    def growth(cls, n: float) -> float:
        return n

    @property
    def blocks(self) -> int:
        """k."""
        return min(self.num_blocks, self.rows, self.cols)

    def generators(self) -> dict[str, Generator]:
        k, r = self.blocks, self.rank
        return {
            "L": zeros(self.terms, k, -(-self.rows // k), r),
            "R": uniform(self.terms, k, r, self._cols.longest),
        }

    def entries(self, L: Tensor, R: Tensor) -> Tensor:
        return self.strip(0, self.rows, L, R)

    def strip(self, start: int, stop: int, L: Tensor, R: Tensor) -> Tensor:
        k = self.blocks
        first, last = start // k, -(-stop // k)
        W_kMp = torch.einsum("...mkri,...mkrp->...kip", self._widened(L[..., first:last, :]), R)
        return self._cols.join(W_kMp.transpose(-3, -2))[..., start - first * k : stop - first * k, :]

    def multiply(self, x_TQN: Tensor, L: Tensor, R: Tensor) -> Tensor:
        """As thin dense factors with zeros in them where they are thin, else block by block; as W where W is less."""
        if self._multiplications >= self.rows * self.cols:
            wide = torch.promote_types(L.dtype, torch.float32)  # what is rounded is W, and not what it is made of
            W_PQMN = self.entries(L.to(wide), R.to(wide)).to(x_TQN.dtype)
            return torch.einsum("pqmn,tqn->tpm", W_PQMN, x_TQN)
        L, R = L.to(x_TQN.dtype), R.to(x_TQN.dtype)
        if self._is_thin:
            structure, factors = self.as_low_rank(L, R)
            return structure.multiply(x_TQN, **factors)
        middle_TPQmkr = torch.einsum("pqmkri,tqki->qktpmr", R, self._cols.split(x_TQN)).permute(2, 3, 0, 4, 1, 5)
        shuffled_TPQmrk = middle_TPQmkr.flatten(-2).unflatten(-1, (self.rank, self.blocks))
        y_PkTs = torch.einsum("pqmkir,tpqmrk->pkti", L, shuffled_TPQmrk)
        return y_PkTs.permute(2, 0, 3, 1).flatten(-2)[..., : self.rows]

    def multiplications(self, num_block_rows: int, num_block_cols: int) -> int:
        return num_block_rows * num_block_cols * min(self._multiplications, self.rows * self.cols)

    @property
    def _multiplications(self) -> int:
        return self.terms * self.blocks * self.rank * (self.rows + self.cols) if self._is_thin else self.numel

    def moved(self, num_block_rows: int, num_block_cols: int) -> int:
        if self._is_thin:
            return 0
        middle = num_block_rows * num_block_cols * self.terms * self.blocks * self.rank
        return middle + num_block_rows * self.rows

    @property
    def _is_thin(self) -> bool:
        return self.terms * self.blocks * self.rank <= THIN

    def lookup(self, block_row: Tensor, row: Tensor, L: Tensor, R: Tensor) -> Tensor:
        k, r = self.blocks, self.rank
        block, place = row.remainder(k), row.div(k, rounding_mode="floor")
        rows_of_L_TQmr = L[block_row, :, :, block, place]
        own_block = torch.eye(k, dtype=L.dtype, device=L.device)[block][:, None, None, None, :]
        middle_TQmkr = (rows_of_L_TQmr.unsqueeze(-1) * own_block).flatten(-2).unflatten(-1, (k, r))
        return self._cols.join(torch.einsum("tqmkr,tqmkrp->tqkp", middle_TQmkr, R[block_row]))

    @property
    def fan(self) -> float:
        return self.terms * self.rank / self.blocks

    def nearest(self, matrix: Tensor) -> dict[str, Tensor]:
        """The truncated singular value decomposition of every piece: the rows of a block of L, the columns of one of R.

        No two pieces share a number. Source: arXiv 2204.00595, section 3.3, for blocks of any rank.
        """
        k, r, m = self.blocks, self.rank, self.terms
        rows = pad(matrix, (0, 0, 0, -self.rows % k)).unflatten(-2, (-1, k))
        pieces_lksp = self._cols.split(rows).movedim((-3, -2), (-4, -3))
        of_piece = -(-r // k) * m  # how many numbers in the middle a piece has at most
        s, p = pieces_lksp.shape[-2:]
        left, right = LowRank(s, p, of_piece).nearest(pieces_lksp).values()
        f = torch.arange(k * r, device=matrix.device)
        number = (f % r).div(k, rounding_mode="floor") * m + torch.arange(m, device=matrix.device)[:, None]
        of_left, of_right = f % k, f.div(r, rounding_mode="floor")
        L, R = (factor[..., of_left, of_right, number, :] for factor in (left.mT, right))
        return {"L": L.unflatten(-2, (r, k)).movedim(-3, -1), "R": R.unflatten(-2, (k, r))}

    def thin_factors(self, L: Tensor, R: Tensor) -> tuple[Tensor, Tensor] | None:
        structure, factors = self.as_low_rank(L, R)
        return (factors["G"], factors["H"]) if structure.rank <= min(self.rows, self.cols) else None

    def as_low_rank(self, L: Tensor, R: Tensor) -> tuple[LowRank, dict[str, Tensor]]:
        """W as G H of rank m k r: column of G and row of H for each number in the middle, zero outside its blocks."""
        k, middle = self.blocks, self.terms * self.blocks * self.rank
        own_block = torch.eye(k, dtype=R.dtype, device=R.device)[:, None, :, None]
        H = self._cols.join(R.unsqueeze(-2) * own_block).flatten(-4, -2)
        G = self._widened(L)[..., : self.rows].flatten(-4, -2).mT
        return LowRank(self.rows, self.cols, middle), {"G": G, "H": H}

    @property
    def _cols(self) -> Cut:
        return Cut(self.cols, self.blocks)

    def _widened(self, L: Tensor) -> Tensor:
        """L (…, k, s, r) as dense rows for each number in the middle: (…, k, r, s k)."""
        by_number = L.movedim(-1, -3).flatten(-3, -2)  # (…, r k, s): block f mod k, place f div k
        return (by_number.unsqueeze(-1) * self._places(L).unsqueeze(-2)).flatten(-2).unflatten(-2, (self.blocks, -1))

    def _places(self, like: Tensor) -> Tensor:
        """(r k, k): 1 where number f of the middle belongs to block f mod k."""
        return torch.eye(self.blocks, dtype=like.dtype, device=like.device).repeat(self.rank, 1)
