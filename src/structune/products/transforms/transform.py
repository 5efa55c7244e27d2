"""What a transform must offer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Transform(Protocol):
    """Real vectors of length L to spectra and back, and the products of spectra that convolutions are made of.

    A spectrum's layout is the transform's own business: spectra are only handed from one method to another, and a
    method may work in place on the spectrum of tokens that comes first.
    Shapes: T tokens, B independent groups, C = P or Q vectors of a group.
    """

    def forward(self, x_TBCL: Tensor, conjugate: bool) -> Tensor:
        """The spectra of tokens, or their complex conjugates."""

    def kernel(self, kernel_BPQL: Tensor, conjugate: bool) -> Tensor:
        """The spectra of kernels, or their complex conjugates."""

    def apply(self, X: Tensor, K: Tensor) -> Tensor:
        """Y_p = Σ_q K_pq X_q per frequency."""

    def apply_transposed(self, G: Tensor, K: Tensor) -> Tensor:
        """X_q = Σ_p K_pq G_p per frequency."""

    def reduce(self, G: Tensor, X: Tensor, total: Tensor | None) -> Tensor:
        """Add Σ_t G_p X_q per frequency to a running total, which is begun where there is none."""

    def inverse(self, Y: Tensor, length: int) -> Tensor:
        """Spectra of tokens back to vectors (T, B, C, L)."""

    def inverse_total(self, total: Tensor, length: int) -> Tensor:
        """A running total of `reduce` back to kernels (B, P, Q, L)."""
