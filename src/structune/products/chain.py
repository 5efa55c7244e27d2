"""The product of a family that is one convolution or a chain of two, and the gradient of its kernels.

A grid of convolutions needs Q forward and P inverse transforms, not P·Q. Chains (Toeplitz-like, Hankel-like) pass
through P·Q·R intermediate vectors, x ↦ z = inner kernels ∗ x ↦ y = Σ outer kernels ∗ z: the inner link is Q groups of
one input and P·R outputs each, the outer one P groups of Q·R inputs and one output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from structune.products.chunks import Padding, chunk_size, chunks
from structune.products.convolve import PreparedConvolution, convolve, correlate
from structune.products.frequency_domain import FrequencyDomain
from structune.products.geometry import Geometry, transformable
from structune.products.precision import working_dtype
from structune.structures import Structure


@dataclass(frozen=True)
class Chain:
    """One or two links, first applied first: kernels (groups, outputs, inputs, K) and their geometries."""

    kernels: Sequence[Tensor]
    geometries: Sequence[Geometry]

    @classmethod
    def of(cls, structure: Structure, generators: Mapping[str, Tensor]) -> Chain:
        """The links of a family of convolutions with generators (P, Q, …)."""
        links = structure.convolutions(**generators)
        if len(links) == 1:  # one group: every input meets every output
            grouped = [replace(links[0], kernel=links[0].kernel.unsqueeze(0))]
        else:
            inner, outer = links
            grouped = [  # kernels (P, Q, R, K) to (Q, P·R, 1, K) and to (P, 1, Q·R, K)
                replace(inner, kernel=inner.kernel.transpose(0, 1).flatten(1, 2).unsqueeze(2)),
                replace(outer, kernel=outer.kernel.flatten(1, 2).unsqueeze(1)),
            ]
        grouped = [transformable(link) for link in grouped]
        return cls([link.kernel for link in grouped], [Geometry.of(link) for link in grouped])

    def transformed(self) -> int:
        """How many numbers of a token `kernel_gradients` transforms: between two links vectors go back as well."""
        between = self.kernels[0].shape[:2].numel() if len(self.kernels) == 2 else 0
        return sum(
            (kernel.shape[0] * (kernel.shape[1] + kernel.shape[2]) + between) * geometry.length
            for kernel, geometry in zip(self.kernels, self.geometries, strict=True)
        )

    def entries(self) -> int:
        """P·M·Q·N, those of the matrix."""
        groups_in, _, inputs = self.kernels[0].shape[:3]
        groups_out, outputs = self.kernels[-1].shape[:2]
        return groups_in * inputs * self.geometries[0].cols * groups_out * outputs * self.geometries[-1].rows

    def multiply(self, x_TQN: Tensor, transform: str) -> Tensor:
        """y[t, p] = Σ_q W[p, q] x[t, q], differentiable. Returns (T, P, M) in x's dtype."""
        if len(self.kernels) == 1:
            return convolve(x_TQN.unsqueeze(1), self.kernels[0], self.geometries[0], transform).squeeze(1)
        (inner, outer), (inner_sizes, outer_sizes) = self.kernels, self.geometries
        z_TQCn = convolve(x_TQN.unsqueeze(2), inner, inner_sizes, transform)
        return convolve(_by_outputs(z_TQCn, outer.shape[0]), outer, outer_sizes, transform).squeeze(2)

    def prepared(self, transform: str, dtype: torch.dtype, scale: float) -> PreparedChain:
        """`scale` times the chain, its kernels transformed once and for all for products worked out in `dtype`."""
        first, *others = (kernel.detach().to(dtype) for kernel in self.kernels)
        domains = [FrequencyDomain(geometry, transform, dtype) for geometry in self.geometries]
        links = [
            PreparedConvolution.of(kernel, domain)
            for kernel, domain in zip((first * scale, *others), domains, strict=True)
        ]
        return PreparedChain(links, self.kernels[-1].shape[0])

    def kernel_gradients(self, grad_TPM: Tensor, x_TQN: Tensor, transform: str) -> list[Tensor]:
        """The gradients of ⟨g, W x⟩ with respect to the kernels, in at least fp32; not differentiable."""
        if len(self.kernels) == 1:
            return [correlate(grad_TPM.unsqueeze(1), x_TQN.unsqueeze(1), self.geometries[0], transform)]
        dtype = working_dtype(grad_TPM, x_TQN, *self.kernels)
        inner, outer = (FrequencyDomain(geometry, transform, dtype) for geometry in self.geometries)
        K_inner, K_outer = inner.kernels(self.kernels[0]), outer.kernels(self.kernels[1])
        Q, P = self.kernels[0].shape[0], self.kernels[1].shape[0]
        of_x, of_z, of_grad, of_z_grad = (
            Padding(domain.geometry.length, dtype) for domain in (inner, outer, outer, inner)
        )
        inner_total = outer_total = None
        per_token = max(
            kernel.shape[0] * max(kernel.shape[1:3]) * geometry.length
            for kernel, geometry in zip(self.kernels, self.geometries, strict=True)
        )
        for part in chunks(x_TQN.shape[0], chunk_size(per_token, dtype.itemsize, x_TQN.device.type)):
            X = inner.inputs(of_x(x_TQN[part].unsqueeze(2)))
            Z = outer.inputs(of_z(_by_outputs(inner.outputs(X, K_inner), P)))
            G = outer.output_gradients(of_grad(grad_TPM[part].unsqueeze(2)))
            # Before the totals: to add to one may overwrite the second spectrum, X or Z.
            Z_grad = inner.output_gradients(of_z_grad(_by_inputs(outer.input_gradients(G, K_outer), Q)))
            outer_total = outer.add_kernel_gradients(outer_total, G, Z)
            inner_total = inner.add_kernel_gradients(inner_total, Z_grad, X)
        if inner_total is None or outer_total is None:
            return [torch.zeros_like(kernel, dtype=dtype) for kernel in self.kernels]
        return [inner.kernel_gradients(inner_total), outer.kernel_gradients(outer_total)]


@dataclass(frozen=True)
class PreparedChain:
    """The links with their spectra, and the groups of the last one."""

    links: Sequence[PreparedConvolution]
    last_groups: int

    @property
    def dtype(self) -> torch.dtype:
        """In which products are worked out."""
        return self.links[0].domain.dtype

    def multiply(self, x_TQN: Tensor) -> Tensor:
        """`Chain.multiply`, not differentiable, in any layout."""
        if len(self.links) == 1:
            return self.links[0].multiply(x_TQN.unsqueeze(1)).squeeze(1)
        inner, outer = self.links
        z_TQCn = inner.multiply(x_TQN.unsqueeze(2))
        return outer.multiply(_by_outputs(z_TQCn, self.last_groups)).squeeze(2)


def _by_outputs(z_TQCn: Tensor, P: int) -> Tensor:
    """(T, Q, P·R, n) to (T, P, Q·R, n)."""
    return z_TQCn.unflatten(2, (P, -1)).transpose(1, 2).flatten(2, 3)


def _by_inputs(z_TPCn: Tensor, Q: int) -> Tensor:
    """(T, P, Q·R, n) to (T, Q, P·R, n)."""
    return _by_outputs(z_TPCn, Q)
