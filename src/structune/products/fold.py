"""`fold`: y = x (W + ΔW)ᵀ + b, one matrix product where y = x Wᵀ + b + ΔW x takes two.

W + ΔW is made a strip of rows at a time, when it is needed, and not kept: for the input gradient it is made again. What
the generators add to the frozen layer's cost is their own gradient, summed over tokens in the cheapest way there is:

- convolutions: transforms of x and of the output gradient, multiplied and summed per frequency (`Chain`);
- everything else, and chains where that is dearer: rows of gᵀ x, pulled back through the family's entries.

Adding ΔW to W rounds it to W's precision: this is for fp32 and fp64. Without W the product is ΔW x in any dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from structune import structures
from structune.products import dense
from structune.products.convolution_chain import Chain, is_chain
from structune.products.geometry import Geometry
from structune.products.operator import operator, recording
from structune.products.precision import working_dtype
from structune.products.strips import pull_back_strip, strip_of_matrix, strips
from structune.structures import Structure
from structune.surroundings import batched, transformed, without_autocast

Generators: TypeAlias = Mapping[str, Tensor]
Tensors: TypeAlias = Sequence[Tensor]
Numbers: TypeAlias = Sequence[int]

TRANSFORM_COST = 64
"""Multiplications of a matrix product that take as long as transforming one number; in a chain of two twice as many."""


def supports(structure: Structure) -> bool:
    """Every registered family: operators know it by its name."""
    return structure.name in structures.names() and structures.get(structure.name) is type(structure)


def multiply(structure: Structure, x_TQN: Tensor, generators: Generators) -> Tensor:
    """y[t, p] = Σ_q W[p, q] x[t, q]. Returns (T, P, M) in x's dtype."""
    return fold(structure, x_TQN.flatten(1), generators).unflatten(1, (-1, structure.rows))


def fold(
    structure: Structure,
    x: Tensor,
    generators: Generators,
    start: Generators | None = None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    out_features: int | None = None,
    scale: float = 1.0,
) -> Tensor:
    """y = x (W + scale · crop(grid of S(generators) − S(start)))ᵀ + b.

    Args:
        structure: the family and size of the blocks; registered.
        x: (T, in), in ≤ Q·N.
        generators: (P, Q, …).
        start: the same shapes, not differentiated; None subtracts nothing.
        weight: W (out, in) in x's dtype; None is zero.
        bias: b (out,) in x's dtype; None is zero.
        out_features: out ≤ P·M; None is P·M.
        scale: factor of the update.

    Returns:
        (T, out) in x's dtype.
    """
    wide = working_dtype(*generators.values())
    generators = {name: generators[name].to(wide) for name in structure.shapes}
    kernels: list[Tensor] = []
    geometry: list[int] = []
    chain = Chain.of(structure, generators) if is_chain(structure) else None
    if chain and gradient_by_transforms(chain):
        kernels, geometry = list(chain.kernels), [n for link in chain.geometries for n in link.numbers()]
        generators = {name: g.detach() for name, g in generators.items()}
    constant: list[Tensor] = []
    if start is not None:
        start = {name: start[name].to(wide) for name in structure.shapes}
        merged = structure.difference(generators, start)
        if merged is None:
            constant = list(start.values())
        else:
            structure, generators = merged
    numbers = list(generators.values())
    sizes = [out_features or numbers[0].shape[0] * structure.rows, *astuple(structure)]
    return _fold_operator(x, weight, bias, numbers, constant, kernels, structure.name, sizes, geometry, scale)


def gradient_by_transforms(chain: Chain) -> bool:
    """Whether transforms give the gradient of the kernels for less than gᵀ x, a multiplication per entry and token."""
    return chain.entries() >= TRANSFORM_COST * len(chain.kernels) * chain.transformed()


def _fold(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    generators: Tensors,
    start: Tensors,
    kernels: Tensors,
    family: str,
    sizes: Numbers,
    geometry: Numbers,
    scale: float,
) -> Tensor:
    y = x.new_empty(x.shape[0], sizes[0])
    with without_autocast(x.device):
        for rows, matrix in _matrix(x, weight, generators, start, family, sizes, scale):
            if bias is None:
                torch.mm(x, matrix.mT, out=y[:, rows])
            else:
                torch.addmm(bias[rows], x, matrix.mT, out=y[:, rows])
            del matrix
    return y


def _input_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    generators: Tensors,
    start: Tensors,
    family: str,
    sizes: Numbers,
    scale: float,
) -> Tensor:
    """x̄ = g (W + ΔW)."""
    total = torch.empty_like(x, memory_format=torch.contiguous_format)
    with without_autocast(x.device):
        for rows, matrix in _matrix(x, weight, generators, start, family, sizes, scale):
            torch.addmm(total, grad[:, rows], matrix, beta=int(rows.start > 0), out=total)
            del matrix
    return total


def _matrix(
    x: Tensor,
    weight: Tensor | None,
    generators: Tensors,
    start: Tensors,
    family: str,
    sizes: Numbers,
    scale: float,
) -> Iterator[tuple[slice, Tensor]]:
    """W + scale · ΔW a strip at a time: its rows, and the strip in x's dtype."""
    structure = structures.get(family)(*sizes[1:])
    numbers, constant = _named(structure, generators), _named(structure, start)
    P, Q = generators[0].shape[:2]
    for strip in strips(P, structure.rows, sizes[0], Q * structure.cols):
        update = strip_of_matrix(structure, numbers, constant, strip)[:, : x.shape[1]]
        if weight is None:
            matrix = (update * scale).to(x.dtype)
        elif _shares_memory(update, generators):
            matrix = torch.add(weight[strip.rows], update.to(x.dtype), alpha=scale)
        else:
            matrix = update.to(x.dtype).mul_(scale).add_(weight[strip.rows])
        del update
        yield strip.rows, matrix
        del matrix  # before the next one is made


def _shares_memory(update: Tensor, generators: Tensors) -> bool:
    """Whether the blocks are a view of their generators, as Hankel blocks are."""
    storages = {g.untyped_storage().data_ptr() for g in generators}
    return update.untyped_storage().data_ptr() in storages


def _gradients(
    grad: Tensor,
    x: Tensor,
    generators: Tensors,
    kernels: Tensors,
    family: str,
    sizes: Numbers,
    geometry: Numbers,
    scale: float,
) -> list[Tensor]:
    """Of the kernels, from transforms of g and x; without kernels, of the generators, from the rows of gᵀ x."""
    structure = structures.get(family)(*sizes[1:])
    P, Q = generators[0].shape[:2]
    with without_autocast(x.device):
        if kernels:
            grad_TPM, x_TQN = _cut(grad, P, structure.rows), _cut(x, Q, structure.cols)
            found = _chain(kernels, geometry).kernel_gradients(grad_TPM, x_TQN, "fft")
            return [gradient.to(kernels[0].dtype).mul_(scale) for gradient in found]
        numbers = _named(structure, generators)
        totals = {name: torch.zeros_like(g, memory_format=torch.contiguous_format) for name, g in numbers.items()}
        for strip in strips(P, structure.rows, sizes[0], Q * structure.cols):
            rows = (grad[:, strip.rows].mT @ x).to(generators[0].dtype).mul_(scale)
            with recording():
                gradients = pull_back_strip(structure, numbers, strip, rows)
            for name, gradient in gradients.items():
                totals[name][strip.blocks] += gradient.detach()
            del rows
    return list(totals.values())


def _named(structure: Structure, tensors: Tensors) -> dict[str, Tensor]:
    return dict(zip(structure.shapes, tensors, strict=True)) if tensors else {}


def _chain(kernels: Tensors, geometry: Numbers) -> Chain:
    step = len(geometry) // len(kernels)
    return Chain(kernels, [Geometry.read(geometry[k : k + step]) for k in range(0, len(geometry), step)])


def _cut(x: Tensor, pieces: int, size: int) -> Tensor:
    """(T, features) to (T, pieces, size), padded where there are fewer features."""
    missing = pieces * size - x.shape[1]
    return (pad(x, (0, missing)) if missing else x).unflatten(1, (pieces, size))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, generators, start, kernels, ctx.family, ctx.sizes, ctx.geometry, ctx.scale = inputs
    ctx.counts = len(generators), len(start), len(kernels)
    ctx.save_for_backward(x, weight, bias, *generators, *start, *kernels)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    saved = iter(ctx.saved_tensors)
    x, weight, bias = (next(saved) for _ in range(3))
    generators, start, kernels = ([next(saved) for _ in range(count)] for count in ctx.counts)
    inputs = [x, weight, bias, *(kernels or generators)]
    wanted = [*ctx.needs_input_grad[:3], *ctx.needs_input_grad[5 if kernels else 3]]
    grads: list[Tensor | None] = [None] * len(inputs)
    if torch.is_grad_enabled() or transformed() or batched():
        with torch.enable_grad():
            y = _definition(ctx, x, weight, bias, generators, start, kernels)
        places = [k for k, needed in enumerate(wanted) if needed]
        found = torch.autograd.grad(y, [inputs[k] for k in places], grad, create_graph=torch.is_grad_enabled())
        for k, gradient in zip(places, found, strict=True):
            grads[k] = gradient
    else:
        if wanted[0]:
            grads[0] = _input_gradient_operator(grad, x, weight, generators, start, ctx.family, ctx.sizes, ctx.scale)
        if wanted[1]:
            grads[1] = grad.mT @ x
        if wanted[2]:
            grads[2] = grad.sum(0)
        if any(wanted[3:]):
            grads[3:] = _gradients_operator(
                grad, x, generators, kernels, ctx.family, ctx.sizes, ctx.geometry, ctx.scale
            )
    trained, constant = grads[3:], [None] * len(generators)
    lists = (constant, [None] * len(start), trained) if kernels else (trained, [None] * len(start), [])
    geometry: list[None] | None = None if ctx.geometry else []  # an empty list is a list of tensors
    return *grads[:3], *lists, None, None, geometry, None


def _definition(
    ctx: Any,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    generators: Tensors,
    start: Tensors,
    kernels: Tensors,
) -> Tensor:
    """The product in differentiable operations, for derivatives of derivatives."""
    structure = structures.get(ctx.family)(*ctx.sizes[1:])
    matrix = dense.matrix(structure, _named(structure, generators))
    if start:
        matrix = matrix - dense.matrix(structure, _named(structure, start))
    matrix = (matrix[: ctx.sizes[0], : x.shape[1]] * ctx.scale).to(x.dtype)
    y = linear(x, matrix if weight is None else weight + matrix, bias)
    if kernels:  # of which the matrix is no function: add zero, whose derivative is that of their product
        x_TQN = _cut(x, generators[0].shape[1], structure.cols)
        moving = _chain(kernels, ctx.geometry).multiply(x_TQN, "fft")
        standing = _chain([kernel.detach() for kernel in kernels], ctx.geometry).multiply(x_TQN, "fft")
        y = y + (moving - standing).flatten(1)[:, : ctx.sizes[0]] * ctx.scale
    return y


def _fold_fake(x: Tensor, *rest: Any) -> Tensor:
    sizes = rest[6]
    return x.new_empty(x.shape[0], sizes[0])


def _input_gradient_fake(grad: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _gradients_fake(grad: Tensor, x: Tensor, generators: Tensors, kernels: Tensors, *rest: Any) -> list[Tensor]:
    return [torch.empty_like(g, memory_format=torch.contiguous_format) for g in kernels or generators]


_input_gradient_operator = operator("fold_input_gradient", _input_gradient, _input_gradient_fake)
_gradients_operator = operator("fold_gradients", _gradients, _gradients_fake)
_fold_operator = operator("fold", _fold, _fold_fake, _setup_context, _backward)
