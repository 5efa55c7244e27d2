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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from structune.products.chunks import Padded, chunk_size, chunks
from structune.products.geometry import Geometry
from structune.products.operator import operator
from structune.products.precision import working_dtype
from structune.products.transforms import TRANSFORMS


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
        spectrum: of the kernels (B, P, Q, K) in their place.
        outputs: P.
        geometry: lengths, and which outputs are kept.
        transform: its name.
        chunk: tokens that are transformed at once.
    """

    spectrum: Tensor
    outputs: int
    geometry: Geometry
    transform: str
    chunk: int

    @classmethod
    def of(cls, kernel_BPQK: Tensor, geometry: Geometry, transform: str, dtype: torch.dtype) -> PreparedConvolution:
        """Of kernels, for products worked out in `dtype`."""
        B, P, Q, _ = kernel_BPQK.shape
        spectrum = TRANSFORMS[transform].kernel(_placed(kernel_BPQK, geometry, dtype), conjugate=False)
        chunk = chunk_size(B * max(P, Q) * geometry.length, dtype.itemsize, kernel_BPQK.device.type)
        return cls(spectrum, P, geometry, transform, chunk)

    def multiply(self, x_TBQN: Tensor, dtype: torch.dtype) -> Tensor:
        """y[t, b, p] = Σ_q kernel[b, p, q] ∗ x[t, b, q]: (T, B, P, M) in x's dtype, in any layout."""
        T, B = x_TBQN.shape[:2]
        inputs = Padded(x_TBQN, self.geometry.length, dtype)
        if 0 < T <= self.chunk:
            return self._outputs(inputs[:]).to(x_TBQN.dtype)
        y_TBPM = x_TBQN.new_empty(T, B, self.outputs, self.geometry.rows)
        for part in chunks(T, self.chunk):
            y_TBPM[part] = self._outputs(inputs[part])
        return y_TBPM

    def _outputs(self, x_TBQL: Tensor) -> Tensor:
        spectra, sizes = TRANSFORMS[self.transform], self.geometry
        Y = spectra.apply(spectra.forward(x_TBQL, conjugate=sizes.reverse), self.spectrum)
        y = spectra.inverse(Y, sizes.length)
        return y if sizes.rows == sizes.length else y[..., : sizes.rows]


def _convolve(x_TBQN: Tensor, kernel_BPQK: Tensor, geometry: Sequence[int], transform: str) -> Tensor:
    dtype = working_dtype(x_TBQN, kernel_BPQK)
    prepared = PreparedConvolution.of(kernel_BPQK, Geometry.read(geometry), transform, dtype)
    return prepared.multiply(x_TBQN, dtype).contiguous()


def _adjoint(grad_TBPM: Tensor, kernel_BPQK: Tensor, geometry: Sequence[int], transform: str) -> Tensor:
    sizes, spectra = Geometry.read(geometry), TRANSFORMS[transform]
    dtype = working_dtype(grad_TBPM, kernel_BPQK)
    T, B, P, _ = grad_TBPM.shape
    Q = kernel_BPQK.shape[2]
    K = spectra.kernel(_placed(kernel_BPQK, sizes, dtype), conjugate=not sizes.reverse)
    x_TBQN = grad_TBPM.new_empty(T, B, Q, sizes.cols)
    outputs = Padded(grad_TBPM, sizes.length, dtype)
    for part in _token_chunks(grad_TBPM, B * max(P, Q), sizes, dtype):
        X = spectra.apply_transposed(spectra.forward(outputs[part], conjugate=sizes.reverse), K)
        x_TBQN[part] = spectra.inverse(X, sizes.length)[..., : sizes.cols]
    return x_TBQN


def _correlate(grad_TBPM: Tensor, x_TBQN: Tensor, geometry: Sequence[int], transform: str) -> Tensor:
    sizes, spectra = Geometry.read(geometry), TRANSFORMS[transform]
    dtype = working_dtype(grad_TBPM, x_TBQN)
    _, B, P, _ = grad_TBPM.shape
    Q = x_TBQN.shape[2]
    total = None
    outputs, inputs = Padded(grad_TBPM, sizes.length, dtype), Padded(x_TBQN, sizes.length, dtype)
    for part in _token_chunks(x_TBQN, B * max(P, Q), sizes, dtype):
        G = spectra.forward(outputs[part], conjugate=False)
        X = spectra.forward(inputs[part], conjugate=not sizes.reverse)
        total = spectra.reduce(G, X, total)
    if total is None:
        return grad_TBPM.new_zeros(B, P, Q, sizes.kernel_length, dtype=dtype)
    return _taken(spectra.inverse_total(total, sizes.length), sizes)


def _placed(kernel_BPQK: Tensor, sizes: Geometry, dtype: torch.dtype) -> Tensor:
    """The kernels (B, P, Q, L) rolled so that outputs start at index 0: y_i = Σ_j placed[i ∓ j] x_j."""
    return pad(kernel_BPQK.to(dtype), (0, sizes.length - sizes.kernel_length)).roll(-sizes.first, -1)


def _taken(placed_BPQL: Tensor, sizes: Geometry) -> Tensor:
    """The reverse of `_placed`."""
    return placed_BPQL.roll(sizes.first, -1)[..., : sizes.kernel_length].contiguous()


def _token_chunks(x: Tensor, vectors: int, sizes: Geometry, dtype: torch.dtype) -> Iterator[slice]:
    return chunks(x.shape[0], chunk_size(vectors * sizes.length, dtype.itemsize, x.device.type))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    first, second, ctx.geometry, ctx.transform = inputs
    ctx.save_for_backward(first, second)


def _convolve_backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, k = ctx.saved_tensors
    how = (ctx.geometry, ctx.transform)
    x_grad = _adjoint_operator(g, k, *how) if ctx.needs_input_grad[0] else None
    k_grad = _correlate_operator(g, x, *how).to(k.dtype) if ctx.needs_input_grad[1] else None
    return x_grad, k_grad, None, None


def _adjoint_backward(ctx: Any, x: Tensor) -> tuple[Any, ...]:
    g, k = ctx.saved_tensors
    how = (ctx.geometry, ctx.transform)
    g_grad = _convolve_operator(x, k, *how) if ctx.needs_input_grad[0] else None
    k_grad = _correlate_operator(g, x, *how).to(k.dtype) if ctx.needs_input_grad[1] else None
    return g_grad, k_grad, None, None


def _correlate_backward(ctx: Any, k: Tensor) -> tuple[Any, ...]:
    g, x = ctx.saved_tensors
    how = (ctx.geometry, ctx.transform)
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


_convolve_operator = operator("convolve", _convolve, _convolve_fake, _save, _convolve_backward)
_adjoint_operator = operator("adjoint", _adjoint, _adjoint_fake, _save, _adjoint_backward)
_correlate_operator = operator("correlate", _correlate, _correlate_fake, _save, _correlate_backward)
