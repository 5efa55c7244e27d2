"""What a transform must offer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Transform(Protocol):
    """Real vectors of length L to spectra and back, and the products of spectra that convolutions are made of.

    Frequencies are f / L for cyclic convolutions, wrap = 1, and (f + ½) / L for negacyclic ones, wrap = −1.

    A spectrum's layout is the transform's own business: spectra are only handed from one method to another.
    Shapes: T tokens, B independent groups, C = P or Q vectors of a group.
    """

    def forward(self, x_TBCL: Tensor, wrap: int) -> Tensor:
        """The spectra of tokens."""

    def kernel(self, kernel_BPQL: Tensor, wrap: int) -> Tensor:
        """The spectra of kernels."""

    def conjugate(self, X: Tensor) -> Tensor:
        """The complex conjugate of spectra of tokens. May overwrite them."""

    def apply(self, X: Tensor, K: Tensor) -> Tensor:
        """Y_p = Σ_q K_pq X_q per frequency."""

    def apply_adjoint(self, G: Tensor, K: Tensor) -> Tensor:
        """X_q = Σ_p conj(K_pq) G_p per frequency."""

    def reduce(self, G: Tensor, X: Tensor, total: Tensor | None) -> Tensor:
        """Add Σ_t G_p conj(X_q) per frequency to a running total, begun where there is none. May overwrite X."""

    def inverse(self, Y: Tensor, length: int, wrap: int) -> Tensor:
        """Spectra of tokens back to vectors (T, B, C, L)."""

    def inverse_total(self, total: Tensor, length: int, wrap: int) -> Tensor:
        """A running total of `reduce` back to kernels (B, P, Q, L)."""
