"""What every family shares: shapes, checks, and how raw numbers become generators."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from structune.structures.convolution import Convolution
from structune.structures.generator import Generator

Term: TypeAlias = "tuple[float, Structure, Mapping[str, Tensor]]"
"""weight · S(generators), one term of a sum."""


@dataclass(frozen=True)
class Structure(ABC):
    """One M×N block W as a function of its generators; it holds sizes, never numbers.

    A family defines `generators` and `entries`; the rest follows, and is overridden where the family has something of
    its own. Generators may carry leading batch dimensions, which broadcast: generators (…, *shape) give W (…, M, N) in
    the generators' dtype. Where the base writes `**generators: Any`, tensors by name are meant; families name theirs.

    Further fields are integer options of the family's own, at least 1 and with a default (see `own_options`).

    Args:
        rows: M, the number of rows of W.
        cols: N, the number of columns of W.

    Raises:
        ValueError: a size or an option is not a positive integer, or the family has no block of these sizes.
    """

    rows: int
    cols: int

    name: ClassVar[str]
    """The name under which the family is registered."""

    learning_rate: ClassVar[float] = 2e-3
    """Recommended for the family's numbers; like the next three written out, as they are read without torch."""

    learning_rate_as_lora: ClassVar[float | None] = None
    """Recommended where they start with `init_weights="lora"`, of `structune.start.Start`; None: they cannot."""

    num_splits: ClassVar[int] = 4
    """Recommended blocks per axis, where blocks share a pool."""

    marker: ClassVar[str] = "*"
    """In figures, as Matplotlib names it; no two families of the package have the same."""

    raw_step: ClassVar[float] = 1.0
    """How far a raw number moves per unit of its trained difference: what makes learning rates comparable."""

    def __post_init__(self) -> None:
        for field in (f.name for f in fields(self)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{self.name}: {field}={value!r} must be an integer of at least 1")
        self.check_sizes()

    @classmethod
    def own_options(cls) -> dict[str, int]:
        """The family's own integer options with their defaults.

        Raises:
            TypeError: an option has no default.
        """
        defaults: dict[str, Any] = {f.name: f.default for f in fields(cls) if f.name not in ("rows", "cols")}
        if bare := [name for name, default in defaults.items() if default is MISSING]:
            raise TypeError(f"{cls.__qualname__}.{bare[0]} needs a default: every option of a family has one")
        return defaults

    @property
    def options(self) -> dict[str, int]:
        """The family's own options as they are for this block."""
        return {name: getattr(self, name) for name in self.own_options()}

    @classmethod
    def growth(cls, n: float) -> float:
        """How the product of an n×n block with one vector grows in theory, up to a factor. Default: as a matrix's."""
        return n**2

    def check_sizes(self) -> None:  # noqa: B027 (nothing to refuse is the default)
        """Raise ValueError, with the fix, where the family has no block of these sizes and options. Default: it has."""

    @abstractmethod
    def generators(self) -> dict[str, Generator]:
        """Shape and start of each generator of one block by name, in the order in which a block reads its numbers.

        Those that start at zero make W zero. If these are all, W is linear in all of them together; if there are none,
        the matrix of the start is subtracted from ΔW.
        """

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each generator of one block."""
        return {name: generator.shape for name, generator in self.generators().items()}

    @abstractmethod
    def entries(self, *args: Any, **generators: Any) -> Tensor:
        """The definition of the family: generators (…, *shape) to W (…, M, N)."""

    def strip(self, start: int, stop: int, *args: Any, **generators: Any) -> Tensor:
        """Rows start … stop − 1 of W, (…, stop − start, N), for 0 ≤ start ≤ stop ≤ M (not checked).

        Default: cut out of `entries`. A family whose rows can be built alone overrides it.
        """
        return self.entries(**generators)[..., start:stop, :]

    def pullback(self, grad: Tensor, start: int = 0, *args: Any, **generators: Any) -> dict[str, Tensor]:
        """The gradient of ⟨grad, strip(start, start + B)⟩ with respect to each generator, shaped like it.

        Default: autograd through `strip`. A family that can do it in fewer passes over `grad` overrides it. The result
        is not differentiable itself: second derivatives go through `entries`.

        Args:
            grad: (…, B, N) in the generators' dtype, 1 ≤ B ≤ M − start.
            start: the row of W that is the first of `grad`.
            *args: none; generators are given by name.
            **generators: (…, *shape), all with the leading dimensions of `grad`.
        """
        with torch.enable_grad():
            leaves = {name: generator.detach().requires_grad_() for name, generator in generators.items()}
            rows = self.strip(start, start + grad.shape[-2], **leaves)
            gradients = torch.autograd.grad(rows, tuple(leaves.values()), grad, materialize_grads=True)
        return dict(zip(leaves, gradients, strict=True))

    def lookup(self, block_row: Tensor, row: Tensor, *args: Any, **generators: Any) -> Tensor:
        """Row `row[t]` of every block in block row `block_row[t]` of a grid, as a table of embeddings is read.

        Default: one convolution is gathered from its kernels; for everything else the grid is built first. A family
        whose rows can be had for less overrides it.

        Args:
            block_row: (T,) int64, values in 0 … P − 1.
            row: (T,) int64, values in 0 … M − 1.
            *args: none; generators are given by name.
            **generators: (P, Q, *shape).

        Returns:
            (T, Q, N) in the generators' dtype.
        """
        convolutions = self.convolutions(**generators)
        if len(convolutions) == 1:
            return convolutions[0].lookup(block_row, row)
        return self.entries(**generators)[block_row, :, row]

    def operators(self, *args: Any, **generators: Any) -> tuple[Tensor, Tensor] | None:
        """The displacement pair (A, B) of the square case, in fp64 unless it is made from generators. Default: none."""
        return None

    @property
    def displacement_rank(self) -> int | None:
        """An upper bound on rank(A W − W B) for the pair that `displacement` returns; None where it returns none."""
        return None

    def convolutions(self, *args: Any, **generators: Any) -> tuple[Convolution, ...]:
        """W as a chain of convolutions, first applied first; empty when the family has none.

        One convolution has kernels (…, K); a chain of two has kernels (…, R, K), summed over R at the end.
        """
        return ()

    def multiply(self, x_TQN: Tensor, *args: Any, **generators: Any) -> Tensor:
        """The family's own product with a P×Q grid of its blocks, y[t, p] = Σ_q W[p, q] x[t, q].

        Optional: a family that overrides it, and `multiplications` with it, has the algorithm `factored`. It is made of
        differentiable operations or has a backward pass of its own, and reaches everything that PyTorch's operators
        reach: function transforms, forward-mode derivatives, exporters and compilers.

        Args:
            x_TQN: T tokens, T ≥ 0, in the dtype that the result is in: fp64, fp32, bf16 or fp16.
            *args: none; generators are given by name.
            **generators: (P, Q, *shape), mostly in fp32 whatever the dtype of x: rounding them is left to the family.

        Returns:
            (T, P, M) in x's dtype.
        """
        raise NotImplementedError(f"{self.name} has no product of its own")

    def multiplications(self, num_block_rows: int, num_block_cols: int) -> int:
        """How many multiplications `multiply` takes for each token; by this and `moved`, `auto` decides if it pays.

        Default: one for each entry of the grid, as many as multiplying by the blocks takes.

        Args:
            num_block_rows: P.
            num_block_cols: Q.
        """
        return num_block_rows * num_block_cols * self.rows * self.cols

    def moved(self, num_block_rows: int, num_block_cols: int) -> int:
        """How many numbers of each token `multiply` writes down between x and y, to read them again.

        What lies between two products and is as large as x counts, and so does every change of layout and every
        transform of it; thin vectors between thin factors do not. Default: none.

        Args:
            num_block_rows: P.
            num_block_cols: Q.
        """
        return 0

    @property
    def has_convolutions(self) -> bool:
        """Whether the family overrides `convolutions`."""
        return type(self).convolutions is not Structure.convolutions

    @property
    def inner_vectors(self) -> int:
        """How many vectors a block that is a chain of two convolutions passes through, R; 0 where there is no chain."""
        return 0

    @property
    def has_own_product(self) -> bool:
        """Whether the family overrides `multiply`."""
        return type(self).multiply is not Structure.multiply

    def from_raw(self, *args: Any, **raw: Any) -> dict[str, Tensor]:
        """Map raw numbers, any finite reals, to valid generators (node maps, unit scale). Default: themselves."""
        return raw

    def to_raw(self, *args: Any, **generators: Any) -> dict[str, Tensor] | None:
        """Raw numbers that `from_raw` maps to these generators, up to rounding; None where the family cannot tell.

        Default: the generators themselves, where `from_raw` is not overridden.

        Raises:
            ValueError: no raw numbers are mapped there.
        """
        return dict(generators) if type(self).from_raw is Structure.from_raw else None

    @classmethod
    def sum_of(cls, terms: Sequence[Term]) -> tuple[Structure, dict[str, Tensor]] | None:
        """Σ weight · S(generators) as one block of a family, with its generators; None where it is none.

        Default: the weighted sum of the generators, where W is linear in them and all blocks have the same options.

        Args:
            terms: blocks of this family and of the same size, generators with the same leading dimensions.
        """
        structure = terms[0][1]
        if not structure.is_linear or any(other != structure for _, other, _ in terms):
            return None
        return structure, {name: weighted_sum([(w, g[name]) for w, _, g in terms]) for name in structure.shapes}

    def nearest(self, matrix: Tensor) -> dict[str, Tensor] | None:
        """Generators of the block that is nearest to a matrix in the Frobenius norm; None where that is not known.

        Families that are linear in their numbers need not say it: whoever asks solves for the numbers.

        Args:
            matrix: (…, M, N).
        """
        return None

    def thin_factors(self, *args: Any, **generators: Any) -> tuple[Tensor, Tensor] | None:
        """W as the product of two dense factors (…, M, R) and (…, R, N) with a small R; None where it is none."""
        return None

    def difference(
        self, generators: Mapping[str, Tensor], start: Mapping[str, Tensor]
    ) -> tuple[Structure, dict[str, Tensor]] | None:
        """S(generators) − S(start) as one block of a family, with its generators; None where it is none.

        Where it is, nothing cancels: S(start) is never subtracted, however close the two are.
        """
        return None

    def dense(self, **generators: Tensor) -> Tensor:
        """W (…, M, N), after checking the generators' names and shapes.

        Raises:
            ValueError: a generator is missing, unknown, or has the wrong trailing shape.
        """
        self.check(generators)
        return self.entries(**generators)

    def displacement(self, **generators: Tensor) -> tuple[Tensor, Tensor] | None:
        """The pair (A, B) for which A W − W B has rank at most `displacement_rank`.

        None when W is not square or the family has no such pair. Families whose operators hold nodes (Vandermonde,
        Cauchy and their "-like" forms) need the generators.

        Raises:
            ValueError: the operators need a generator that was not given.
        """
        if self.rows != self.cols:
            return None
        try:
            return self.operators(**generators)
        except TypeError as error:
            raise ValueError(
                f"{self.name}: its displacement operators hold its nodes: call displacement(**generators) ({error})"
            ) from error

    def check(self, generators: Mapping[str, Tensor]) -> None:
        """Raise ValueError unless `generators` has exactly this family's names with its trailing shapes."""
        shapes = self.shapes
        if generators.keys() != shapes.keys():
            raise ValueError(f"{self.name}: generators {sorted(generators)} given, {sorted(shapes)} expected")
        for name, shape in shapes.items():
            given = tuple(generators[name].shape)
            if given[len(given) - len(shape) :] != shape or len(given) < len(shape):
                raise ValueError(
                    f"{self.name}: generator {name} has shape {given}, (…, {', '.join(map(str, shape))}) expected"
                )

    @property
    def numel(self) -> int:
        """How many numbers one block draws."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def is_linear(self) -> bool:
        """Whether W is linear in all its generators together: they all start at zero, with a gradient."""
        return all(generator.starts_at_zero for generator in self.generators().values())


def unit_scale(fan: float) -> float:
    """Factor s for both sides of a bilinear family whose entries sum `fan` products G·H: s = fan^(−1/4).

    Then raw numbers of order one give entries of order one, and a step on a raw number moves entries by about as much.
    """
    return math.sqrt(1 / math.sqrt(fan))


def weighted_sum(terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Σ weight · tensor."""
    weight, tensor = terms[0]
    total = weight * tensor
    for weight, tensor in terms[1:]:
        total = total + weight * tensor
    return total
