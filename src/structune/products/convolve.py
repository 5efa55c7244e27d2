"""The trilinear form ⟨g, kernel ∗ x⟩ of a grid of convolutions, and its three derivatives as operators.

    convolve(x, kernel)   y   = ∂/∂g        Y = Σ_q K X   per frequency        reversed: K X*
    adjoint(g, kernel)    x̄   = ∂/∂x        X̄ = Σ_p K* G                                 K G*
    correlate(g, x)       k̄   = ∂/∂kernel   K̄ = Σ_t X* G                                 X G

Each is bilinear, and the derivatives of each are the other two: so all orders of derivatives follow. Every one goes
through the tokens in chunks, sums over tokens while still in the frequency domain, keeps x and kernel as they are for
the backward pass and nothing else.

Shapes: T tokens, B independent groups, P×Q grid within a group, M×N blocks, K kernel length, L transform length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from structune.products.chunks import Padding, chunk_size, chunks
from structune.products.frequency_domain import FrequencyDomain
from structune.products.geometry import Geometry
from structune.products.operator import operator
from structune.products.precision import working_dtype


def convolve(x_TBQN: Tensor, kernel_BPQK: Tensor, geometry: Geometry, transform: str) -> Tensor:
    """y[t, b, p] = Σ_q kernel[b, p, q] ∗ x[t, b, q]: (T, B, P, M) in x's dtype.

    Args:
        x_TBQN: inputs.
        kernel_BPQK: kernels.
        geometry: lengths, and which outputs are kept.
        transform: a name in `TRANSFORMS`.
    """
    return _convolve_operator(x_TBQN, kernel_BPQK, geometry.numbers(), transform)


def adjoint(grad_TBPM: Tensor, kernel_BPQK: Tensor, geometry: Geometry, transform: str) -> Tensor:
    """x̄, the gradient of ⟨grad, convolve(x, kernel)⟩ with respect to x: (T, B, Q, N) in grad's dtype."""
    return _adjoint_operator(grad_TBPM, kernel_BPQK, geometry.numbers(), transform)


def correlate(grad_TBPM: Tensor, x_TBQN: Tensor, geometry: Geometry, transform: str) -> Tensor:
    """k̄, the gradient of ⟨grad, convolve(x, kernel)⟩ with respect to the kernel: (B, P, Q, K) in at least fp32."""
    return _correlate_operator(grad_TBPM, x_TBQN, geometry.numbers(), transform)


@dataclass(frozen=True)
class PreparedConvolution:
    """`convolve` with kernels transformed once and for all, not differentiable.

    Args:
        domain: where the kernels are.
        spectrum: theirs.
        num_outputs: P.
        chunk: tokens that are transformed at once.
    """

    domain: FrequencyDomain
    spectrum: Tensor
    num_outputs: int
    chunk: int

    @classmethod
    def of(cls, kernel_BPQK: Tensor, domain: FrequencyDomain) -> PreparedConvolution:
        """Of kernels."""
        B, P, Q, _ = kernel_BPQK.shape
        return cls(domain, domain.kernels(kernel_BPQK), P, _chunk(domain, B * max(P, Q), kernel_BPQK.device))

    def multiply(self, x_TBQN: Tensor) -> Tensor:
        """y[t, b, p] = Σ_q kernel[b, p, q] ∗ x[t, b, q]: (T, B, P, M) in x's dtype, in any layout."""
        T, B = x_TBQN.shape[:2]
        domain = self.domain
        padding = Padding(domain.geometry.length, domain.dtype)
        if 0 < T <= self.chunk:
            return domain.outputs(domain.inputs(padding(x_TBQN)), self.spectrum).to(x_TBQN.dtype)
        y_TBPM = x_TBQN.new_empty(T, B, self.num_outputs, domain.geometry.rows)
        for part in chunks(T, self.chunk):
            y_TBPM[part] = domain.outputs(domain.inputs(padding(x_TBQN[part])), self.spectrum)
        return y_TBPM


def _convolve(x_TBQN: Tensor, kernel_BPQK: Tensor, geometry: Sequence[int], transform: str) -> Tensor:
    domain = FrequencyDomain(Geometry.read(geometry), transform, working_dtype(x_TBQN, kernel_BPQK))
    return PreparedConvolution.of(kernel_BPQK, domain).multiply(x_TBQN).contiguous()


def _adjoint(grad_TBPM: Tensor, kernel_BPQK: Tensor, geometry: Sequence[int], transform: str) -> Tensor:
    domain = FrequencyDomain(Geometry.read(geometry), transform, working_dtype(grad_TBPM, kernel_BPQK))
    T, B, P, _ = grad_TBPM.shape
    Q = kernel_BPQK.shape[2]
    K = domain.kernels(kernel_BPQK)
    x_TBQN = grad_TBPM.new_empty(T, B, Q, domain.geometry.cols)
    padding = Padding(domain.geometry.length, domain.dtype)
    for part in chunks(T, _chunk(domain, B * max(P, Q), grad_TBPM.device)):
        x_TBQN[part] = domain.input_gradients(domain.output_gradients(padding(grad_TBPM[part])), K)
    return x_TBQN


def _correlate(grad_TBPM: Tensor, x_TBQN: Tensor, geometry: Sequence[int], transform: str) -> Tensor:
    domain = FrequencyDomain(Geometry.read(geometry), transform, working_dtype(grad_TBPM, x_TBQN))
    T, B, P, _ = grad_TBPM.shape
    Q = x_TBQN.shape[2]
    total = None
    of_grad, of_x = (Padding(domain.geometry.length, domain.dtype) for _ in range(2))
    for part in chunks(T, _chunk(domain, B * max(P, Q), x_TBQN.device)):
        G, X = domain.output_gradients(of_grad(grad_TBPM[part])), domain.inputs(of_x(x_TBQN[part]))
        total = domain.add_kernel_gradients(total, G, X)
    if total is None:
        return grad_TBPM.new_zeros(B, P, Q, domain.geometry.kernel_length, dtype=domain.dtype)
    return domain.kernel_gradients(total)


def _chunk(domain: FrequencyDomain, vectors: int, device: torch.device) -> int:
    return chunk_size(vectors * domain.geometry.length, domain.dtype.itemsize, device.type)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    first, second, *ctx.how = inputs
    ctx.save_for_backward(first, second)
    ctx.save_for_forward(first, second)  # for forward-mode derivatives: see `bilinear`


def _convolve_backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, k = ctx.saved_tensors
    how = ctx.how
    x_grad = _adjoint_operator(g, k, *how) if ctx.needs_input_grad[0] else None
    k_grad = _correlate_operator(g, x, *how).to(k.dtype) if ctx.needs_input_grad[1] else None
    return x_grad, k_grad, None, None


def _adjoint_backward(ctx: Any, x: Tensor) -> tuple[Any, ...]:
    g, k = ctx.saved_tensors
    how = ctx.how
    g_grad = _convolve_operator(x, k, *how) if ctx.needs_input_grad[0] else None
    k_grad = _correlate_operator(g, x, *how).to(k.dtype) if ctx.needs_input_grad[1] else None
    return g_grad, k_grad, None, None


def _correlate_backward(ctx: Any, k: Tensor) -> tuple[Any, ...]:
    g, x = ctx.saved_tensors
    how = ctx.how
    g_grad = _convolve_operator(x, k, *how) if ctx.needs_input_grad[0] else None
    x_grad = _adjoint_operator(g, k, *how) if ctx.needs_input_grad[1] else None
    return g_grad, x_grad, None, None


def _convolve_fake(x: Tensor, kernel: Tensor, geometry: Sequence[int], transform: str) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], kernel.shape[1], Geometry.read(geometry).rows)


def _adjoint_fake(grad: Tensor, kernel: Tensor, geometry: Sequence[int], transform: str) -> Tensor:
    return grad.new_empty(grad.shape[0], grad.shape[1], kernel.shape[2], Geometry.read(geometry).cols)


def _correlate_fake(grad: Tensor, x: Tensor, geometry: Sequence[int], transform: str) -> Tensor:
    shape = (grad.shape[1], grad.shape[2], x.shape[2], Geometry.read(geometry).kernel_length)
    return grad.new_empty(shape, dtype=working_dtype(grad, x))


_convolve_operator = operator("convolve", _convolve, _convolve_fake, _save, _convolve_backward, ("tbq", "bpq", "tbp"))
_adjoint_operator = operator("adjoint", _adjoint, _adjoint_fake, _save, _adjoint_backward, ("tbp", "bpq", "tbq"))
_correlate_operator = operator(
    "correlate", _correlate, _correlate_fake, _save, _correlate_backward, ("tbp", "tbq", "bpq")
)
