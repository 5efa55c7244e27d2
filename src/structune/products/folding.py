"""`fold`: y = x (W + ΔW)ᵀ + b, one matrix product where y = x Wᵀ + b + ΔW x takes two.

W + ΔW is made a strip of rows at a time, when it is needed, and not kept: for the input gradient it is made again. What
the generators add to the frozen layer's cost is their own gradient, summed over tokens in the cheapest way there is:

- convolutions: transforms of x and of the output gradient, multiplied and summed per frequency (`Chain`);
- everything else, and chains where that is dearer: rows of gᵀ x, pulled back through the family's entries.

Adding ΔW to W rounds it to W's precision: this is for fp32 and fp64. Without W the product is ΔW x in any dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from structune import structures
from structune.products.algorithm import Algorithm
from structune.products.chain import Chain
from structune.products.devices import device
from structune.products.geometry import Geometry
from structune.products.matrix import matrix
from structune.products.operator import operator, recording
from structune.products.precision import working_dtype
from structune.products.strips import Strip, pull_back_strip, strip_of_matrix, strips
from structune.products.update import Update
from structune.structures import Structure
from structune.surroundings import batched, multiplied_in, transformed, without_autocast

Generators: TypeAlias = Mapping[str, Tensor]
Tensors: TypeAlias = Sequence[Tensor]
Numbers: TypeAlias = Sequence[int]


class Fold(Algorithm):
    """`fold`, without a weight or with one."""

    takes_weight = True

    def supports(self, structure: Structure) -> bool:
        """Every registered family: operators know it by its name."""
        return structures.is_registered(type(structure))

    def multiply(self, structure: Structure, x_TQN: Tensor, generators: Generators) -> Tensor:
        return fold(structure, x_TQN.flatten(1), generators).unflatten(1, (-1, structure.rows))

    def update(self, update: Update, x: Tensor) -> Tensor:
        return fold_update(update, x)


def fold_update(update: Update, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """x (W + ΔW)ᵀ + b: (…, in) to (…, out), see `fold`."""
    y = fold(
        update.structure,
        x.reshape(-1, update.grid.in_features),
        update.generators,
        update.start,
        weight=weight,
        bias=bias,
        out_features=update.grid.out_features,
        scale=update.scale,
    )
    return y.view(*x.shape[:-1], update.grid.out_features)


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
        (T, out) in x's dtype, or in autocast's, in which x is multiplied where there is no weight.
    """
    if weight is None:
        x = x.to(multiplied_in(x))
    wide = working_dtype(*generators.values())
    generators = {name: generators[name].to(wide) for name in structure.shapes}
    chain = Chain.of(structure, generators) if structure.has_convolutions else None
    if chain and not gradient_by_transforms(chain, device(x.device.type).transform_cost(x.dtype)):
        chain = None
    if chain:
        # The gradient goes to the kernels, and from them through `convolutions` to the generators. The matrix is still
        # built from the generators, which would get it a second time.
        generators = {name: g.detach() for name, g in generators.items()}
    constant: list[Tensor] = []
    if start is not None:
        start = {name: start[name].to(wide) for name in structure.shapes}
        merged = structure.difference(generators, start)
        if merged is None:
            constant = list(start.values())
        else:  # the chain stays that of the generators alone: the start does not change their gradient
            structure, generators = merged
    update = Folded(
        structure,
        generators=list(generators.values()),
        start=constant,
        kernels=list(chain.kernels) if chain else [],
        geometries=list(chain.geometries) if chain else [],
        out_features=out_features or next(iter(generators.values())).shape[0] * structure.rows,
        scale=scale,
    )
    return _fold_operator(x, weight, bias, *update.pack())


def gradient_by_transforms(chain: Chain, transform_cost: int) -> bool:
    """Whether transforms give the gradient of the kernels for less than gᵀ x, a multiplication per entry and token.

    In a chain of two a number costs twice as much as alone: between its transforms stand products with both kernels.
    """
    return chain.entries() >= transform_cost * len(chain.kernels) * chain.transformed()


@dataclass(frozen=True)
class Folded:
    """What is added to W: scale · crop(grid of S(generators) − S(start)), and how its gradient is found.

    Args:
        structure: the family and size of the blocks.
        generators: (P, Q, …) each, in the family's order.
        start: likewise, or empty.
        kernels: where transforms give the gradient, those of the generators' convolutions; else empty.
        geometries: of the kernels.
        out_features: rows that are kept.
        scale: factor.
    """

    structure: Structure
    generators: Tensors
    start: Tensors
    kernels: Tensors
    geometries: Sequence[Geometry]
    out_features: int
    scale: float

    def pack(self) -> tuple[list[Tensor], str, list[int], float]:
        """As operators take it, which know no classes: all tensors, the family's name, all integers, the scale."""
        geometries = [number for geometry in self.geometries for number in geometry.numbers()]
        counts = [len(self.start), len(self.kernels)]
        integers = [self.out_features, *counts, *astuple(self.structure), *geometries]
        return [*self.generators, *self.start, *self.kernels], self.structure.name, integers, self.scale

    @classmethod
    def unpack(cls, tensors: Tensors, family: str, integers: Numbers, scale: float) -> Folded:
        """The reverse of `pack`."""
        kind = structures.get(family)
        out_features, num_start, num_kernels, *others = integers
        num_sizes = len(fields(kind))
        sizes, geometries = others[:num_sizes], others[num_sizes:]
        num_generators = len(tensors) - num_start - num_kernels
        each = len(fields(Geometry))
        return cls(
            kind(*sizes),
            generators=tensors[:num_generators],
            start=tensors[num_generators : num_generators + num_start],
            kernels=tensors[num_generators + num_start :],
            geometries=[Geometry.read(geometries[k : k + each]) for k in range(0, len(geometries), each)],
            out_features=out_features,
            scale=scale,
        )

    @property
    def trained(self) -> slice:
        """Where the tensors that get a gradient stand among those of `pack`: the kernels, or else the generators."""
        first_kernel = len(self.generators) + len(self.start)
        return slice(first_kernel, None) if self.kernels else slice(0, len(self.generators))

    @property
    def grid(self) -> tuple[int, int]:
        """P and Q."""
        P, Q = self.generators[0].shape[:2]
        return P, Q

    def named(self, tensors: Tensors) -> dict[str, Tensor]:
        """Generators, or start, by name; an empty start has none."""
        return dict(zip(self.structure.shapes, tensors, strict=True)) if tensors else {}

    def chain(self, kernels: Tensors) -> Chain:
        """The convolutions with these kernels."""
        return Chain(kernels, self.geometries)

    def matrix(self, x: Tensor, weight: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """W + scale · ΔW a strip at a time: its rows, and the strip (rows, in) in x's dtype.

        Each strip is dropped here before the next one is made, and so must be by the caller: two of them never stand in
        memory together.
        """
        generators, start = self.named(self.generators), self.named(self.start)
        for strip in self.strips(x):
            update = strip_of_matrix(self.structure, generators, start, strip)[:, : x.shape[1]]
            if weight is None:
                matrix = (update * self.scale).to(x.dtype)
            elif _shares_memory(update, self.generators):
                matrix = torch.add(weight[strip.rows], update.to(x.dtype), alpha=self.scale)
            else:  # written over: the strip is nobody else's
                matrix = update.to(x.dtype).mul_(self.scale).add_(weight[strip.rows])
            del update
            yield strip.rows, matrix
            del matrix

    def strips(self, x: Tensor) -> Iterator[Strip]:
        """The strips of the matrix, as high as the device of x likes them."""
        P, Q = self.grid
        most = device(x.device.type).strip_entries
        return strips(P, self.structure.rows, self.out_features, Q * self.structure.cols, most)


def _shares_memory(update: Tensor, generators: Tensors) -> bool:
    """Whether the blocks are a view of their generators, as Hankel blocks are."""
    storages = {g.untyped_storage().data_ptr() for g in generators}
    return update.untyped_storage().data_ptr() in storages


def _fold(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    tensors: Tensors,
    family: str,
    integers: Numbers,
    scale: float,
) -> Tensor:
    update = Folded.unpack(tensors, family, integers, scale)
    y = x.new_empty(x.shape[0], update.out_features)
    with without_autocast(x.device):
        for rows, matrix in update.matrix(x, weight):
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
    tensors: Tensors,
    family: str,
    integers: Numbers,
    scale: float,
) -> Tensor:
    """x̄ = g (W + ΔW)."""
    update = Folded.unpack(tensors, family, integers, scale)
    total = torch.empty_like(x, memory_format=torch.contiguous_format)
    with without_autocast(x.device):
        for rows, matrix in update.matrix(x, weight):
            # beta = 0 for the first strip: what stands in new memory is not even read
            torch.addmm(total, grad[:, rows], matrix, beta=int(rows.start > 0), out=total)
            del matrix
    return total


def _gradients(grad: Tensor, x: Tensor, tensors: Tensors, family: str, integers: Numbers, scale: float) -> list[Tensor]:
    """Of the kernels, from transforms of g and x; without kernels, of the generators, from the rows of gᵀ x."""
    update = Folded.unpack(tensors, family, integers, scale)
    structure, (P, Q) = update.structure, update.grid
    with without_autocast(x.device):
        if update.kernels:
            grad_TPM, x_TQN = _cut(grad, P, structure.rows), _cut(x, Q, structure.cols)
            found = update.chain(update.kernels).kernel_gradients(grad_TPM, x_TQN, "fft")
            return [gradient.to(update.kernels[0].dtype).mul_(scale) for gradient in found]
        generators = update.named(update.generators)
        totals = {name: torch.zeros_like(g, memory_format=torch.contiguous_format) for name, g in generators.items()}
        for strip in update.strips(x):
            rows = (grad[:, strip.rows].mT @ x).to(update.generators[0].dtype).mul_(scale)
            with recording():
                gradients = pull_back_strip(structure, generators, strip, rows)
            for name, gradient in gradients.items():
                totals[name][strip.blocks] += gradient.detach()
            del rows  # before those of the next strip are worked out
    return list(totals.values())


def _cut(x: Tensor, pieces: int, size: int) -> Tensor:
    """(T, features) to (T, pieces, size), padded where there are fewer features."""
    missing = pieces * size - x.shape[1]
    return (pad(x, (0, missing)) if missing else x).unflatten(1, (pieces, size))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, tensors, *ctx.rest = inputs
    ctx.save_for_backward(x, weight, bias, *tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, bias, *tensors = ctx.saved_tensors
    update = Folded.unpack(tensors, *ctx.rest)
    x_wanted, weight_wanted, bias_wanted, tensors_wanted, *_ = ctx.needs_input_grad
    x_grad = weight_grad = bias_grad = None
    of_tensors: list[Tensor | None] = [None] * len(tensors)
    if torch.is_grad_enabled() or transformed() or batched():
        # Derivatives of derivatives, and transforms of backward passes: through what PyTorch has rules for.
        with torch.enable_grad():
            y = _definition(x, weight, bias, update)
        inputs = [x, weight, bias, *tensors]
        wanted = [x_wanted, weight_wanted, bias_wanted, *tensors_wanted]
        places = [place for place, needed in enumerate(wanted) if needed]
        found = torch.autograd.grad(y, [inputs[k] for k in places], grad, create_graph=torch.is_grad_enabled())
        grads = dict(zip(places, found, strict=True))
        x_grad, weight_grad, bias_grad, *of_tensors = (grads.get(place) for place in range(len(inputs)))
    else:
        if x_wanted:
            x_grad = _input_gradient_operator(grad, x, weight, tensors, *ctx.rest)
        if weight_wanted:
            weight_grad = grad.mT @ x
        if bias_wanted:
            bias_grad = grad.sum(0)
        if any(tensors_wanted):
            of_tensors[update.trained] = _gradients_operator(grad, x, tensors, *ctx.rest)
    return x_grad, weight_grad, bias_grad, of_tensors, None, None, None


def _definition(x: Tensor, weight: Tensor | None, bias: Tensor | None, update: Folded) -> Tensor:
    """The product in differentiable operations, for derivatives of derivatives."""
    whole = matrix(update.structure, update.named(update.generators))
    if update.start:
        whole = whole - matrix(update.structure, update.named(update.start))
    whole = (whole[: update.out_features, : x.shape[1]] * update.scale).to(x.dtype)
    y = linear(x, whole if weight is None else weight + whole, bias)
    if update.kernels:  # of which the matrix is no function: add zero, whose derivative is that of their product
        x_TQN = _cut(x, update.grid[1], update.structure.cols)
        moving = update.chain(update.kernels).multiply(x_TQN, "fft")
        standing = update.chain([kernel.detach() for kernel in update.kernels]).multiply(x_TQN, "fft")
        y = y + (moving - standing).flatten(1)[:, : update.out_features] * update.scale
    return y


def _fold_fake(x: Tensor, weight: Tensor | None, bias: Tensor | None, *packed: Any) -> Tensor:
    return x.new_empty(x.shape[0], Folded.unpack(*packed).out_features)


def _input_gradient_fake(grad: Tensor, x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _gradients_fake(grad: Tensor, x: Tensor, tensors: Tensors, *rest: Any) -> list[Tensor]:
    trained = tensors[Folded.unpack(tensors, *rest).trained]
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in trained]


_input_gradient_operator = operator("fold_input_gradient", _input_gradient, _input_gradient_fake)
_gradients_operator = operator("fold_gradients", _gradients, _gradients_fake)
_fold_operator = operator("fold", _fold, _fold_fake, _setup_context, _backward)
