"""The conformance suite: what holds for every family, every algorithm, every size and every grid.

Subclass `StructureConformance` with `family` parametrised over the names to test; pytest does the rest. A new algorithm
in `products.ALGORITHMS` is tested for every family that it supports, a new family by every algorithm that supports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from structune.products import block_matmul
from structune.structures import Structure
from structune.testing.errors import assert_close, normalised_error, unit_roundoff
from structune.testing.mutations import MUTATIONS
from structune.testing.oracles import oracle_dense
from structune.testing.outcomes import Matmul, algorithms, by_algorithm, cotangent, outcomes, reference_matmul
from structune.testing.poison import poisoned_memory
from structune.testing.samples import make_structure, sample_generators, sample_inputs

EXACT = 1e-12
"""Normalised error allowed in fp64."""

ROUNDING_FLOOR = 1.5
"""Unit roundoffs always allowed below fp64: thin factors round what lies between them, a dense product does not."""

TRANSFORM_FLOOR = 8
"""The same in fp32, 5e-7: a transform spreads rounding over its whole length, a short dense product does not."""

TOKENS = 3

DRAWS = 8
"""How many random cases an error is averaged over."""

Size: TypeAlias = tuple[int, int]
Draw: TypeAlias = tuple[Tensor, dict[str, Tensor]]


def _shapes(name: str, values: tuple[Size, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(name, values, ids=[f"{a}x{b}" for a, b in values])


_small_sizes = _shapes("size", ((1, 1), (2, 2), (3, 5), (5, 3)))
_sizes_from_two = _shapes("size", ((2, 2), (7, 12), (12, 7), (101, 101)))
_sizes = _shapes("size", ((1, 1), (2, 2), (7, 7), (12, 12), (101, 101), (7, 12), (12, 7), (1, 5), (5, 1)))
_grids = _shapes("grid", ((1, 1), (2, 3)))


def _dtypes(*dtypes: torch.dtype) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("dtype", dtypes, ids=lambda dtype: str(dtype).removeprefix("torch."))


_narrow_dtypes = _dtypes(torch.float32, torch.bfloat16, torch.float16)
_wide_dtypes = _dtypes(torch.float64, torch.float32)
_all_dtypes = _dtypes(torch.float64, torch.float32, torch.bfloat16, torch.float16)


class StructureConformance:
    """Every test takes the name of a family, and most a block size (M, N) and a grid (P, Q)."""

    @_sizes
    @_grids
    def test_dense_is_the_definition(self, family: str, size: Size, grid: Size) -> None:
        structure, _, generators = _case(family, size, grid)
        assert_close(
            {"W": structure.dense(**generators)}, {"W": oracle_dense(structure, **generators)}, EXACT, str(structure)
        )

    @_small_sizes
    def test_dense_broadcasts_leading_dimensions(self, family: str, size: Size) -> None:
        """Each generator has a leading dimension of its own; the blocks are those of the expanded generators."""
        structure = make_structure(family, *size)
        names = list(structure.generators())
        narrow, full = {}, {}
        for k, name in enumerate(names):
            batch = [2 if axis == k else 1 for axis in range(len(names))]
            narrow[name] = sample_generators(structure, *batch, seed=k)[name]
            shape = structure.generators()[name]
            full[name] = narrow[name].expand(*[2] * len(names), *shape)
        assert_close({"W": structure.dense(**narrow)}, {"W": oracle_dense(structure, **full)}, EXACT, str(structure))

    @_small_sizes
    def test_dense_is_twice_differentiable(self, family: str, size: Size) -> None:
        """First and second derivatives with respect to each generator alone and to all together, by differences."""
        structure, _, generators = _case(family, size, (1, 2))
        names = list(generators)
        for chosen in [{name} for name in names] + [set(names)]:
            inputs = tuple(generators[name].detach().requires_grad_(name in chosen) for name in names)

            def dense(*numbers: Tensor) -> Tensor:
                return structure.dense(**dict(zip(names, numbers, strict=True)))

            torch.autograd.gradcheck(dense, inputs)
            torch.autograd.gradgradcheck(dense, inputs)

    @_sizes
    @_grids
    def test_strip_is_rows_of_dense(self, family: str, size: Size, grid: Size) -> None:
        structure, _, generators = _case(family, size, grid)
        W = structure.dense(**generators)
        for start, stop in _strips(size[0]):
            strip = structure.strip(start, stop, **generators)
            assert_close({"rows": strip}, {"rows": W[..., start:stop, :]}, EXACT, f"strip({start}, {stop})")

    @_sizes
    @_grids
    def test_pullback_is_the_gradient_of_dense(self, family: str, size: Size, grid: Size) -> None:
        """For the whole block and for strips, fp64."""
        structure, draws = _draws(family, size, grid, torch.float64)
        for start, stop in _strips(size[0]):
            exact, bounds, actual = _pullbacks(structure, draws, start, stop)
            assert_close(actual, exact, bounds, f"pullback of rows {start} to {stop - 1}")

    @_sizes
    @_grids
    def test_precision_of_a_pullback(self, family: str, size: Size, grid: Size) -> None:
        """In fp32 it is no more than twice as far from the truth as autograd through `dense`."""
        structure, draws = _draws(family, size, grid, torch.float32)
        exact, bounds, actual = _pullbacks(structure, draws, 0, size[0])
        assert all(value.dtype == torch.float32 for value in actual.values())
        assert_close(actual, exact, bounds)

    @_sizes_from_two
    @_grids
    @_wide_dtypes
    def test_mistakes_in_a_pullback_are_noticed(self, family: str, size: Size, grid: Size, dtype: torch.dtype) -> None:
        """The bounds of the two tests before reject gradients that are wrong in a common way."""
        structure, draws = _draws(family, size, grid, dtype)
        exact, bounds, actual = _pullbacks(structure, draws, 0, size[0])
        for name, value in actual.items():
            for mutation, mutate in MUTATIONS.items():
                if value.shape[-1] > 1 or mutation in ("zeros", "sign flip"):
                    with pytest.raises(AssertionError, match="normalised error"):
                        assert_close({name: mutate(value)}, {name: exact[name]}, bounds, mutation)

    @_sizes
    @_grids
    def test_pullback_reads_only_what_it_is_given(self, family: str, size: Size, grid: Size) -> None:
        """Strided arguments and new memory full of NaN change nothing; the arguments stay untouched."""
        structure, _, generators = _case(family, size, grid)
        start = size[0] // 2
        grad = sample_inputs(*grid, size[0] - start, size[1])
        copies = {"grad": grad.clone(), **{g: v.clone() for g, v in generators.items()}}
        expected = structure.pullback(grad, start, **generators)
        strided = {g: _strided(v) for g, v in generators.items()}
        assert_close(structure.pullback(_strided(grad), start, **strided), expected, EXACT, "strided")
        with poisoned_memory():
            assert_close(structure.pullback(grad, start, **generators), expected, EXACT, "poisoned")
        assert all(torch.equal({"grad": grad, **generators}[name], copy) for name, copy in copies.items())

    @_sizes
    @_grids
    def test_algorithms_equal_dense(self, family: str, size: Size, grid: Size) -> None:
        """Result and all gradients, fp64."""
        structure, x, generators = _case(family, size, grid)
        expected = outcomes(reference_matmul, structure, x, generators)
        for name in (*algorithms(structure), "auto"):
            actual = outcomes(by_algorithm(name), structure, x, generators)
            assert_close(actual, expected, EXACT, name)

    @_small_sizes
    def test_gradients(self, family: str, size: Size) -> None:
        """First and second derivatives with respect to each input alone and to all together, by differences."""
        structure, x, generators = _case(family, size, (1, 2), tokens=2)
        values = (x, *generators.values())
        wanted = [{k} for k in range(len(values))] + [set(range(len(values)))]
        for name in algorithms(structure):

            def product(x: Tensor, *numbers: Tensor, name: str = name) -> Tensor:
                return block_matmul(structure, x, dict(zip(generators, numbers, strict=True)), name)

            for chosen in wanted:
                inputs = tuple(v.detach().requires_grad_(k in chosen) for k, v in enumerate(values))
                torch.autograd.gradcheck(product, inputs)
                torch.autograd.gradgradcheck(product, inputs)

    @_sizes
    @_grids
    def test_input_gradient_is_the_adjoint(self, family: str, size: Size, grid: Size) -> None:
        """⟨W x, y⟩ = ⟨x, Wᵀ y⟩ with Wᵀ y the gradient of x, and linear: the same at another x."""
        structure, x, generators = _case(family, size, grid)
        x.requires_grad_()
        y = sample_inputs(TOKENS, grid[0], size[0], seed=3)
        for name in algorithms(structure):
            Wx = block_matmul(structure, x, generators, name)
            (WTy,) = torch.autograd.grad(Wx, x, y)
            elsewhere = block_matmul(structure, x * 2 + 1, generators, name)
            (again,) = torch.autograd.grad(elsewhere, x, y / 2)
            gap = abs(float(((Wx * y).sum() - (x * WTy).sum()).detach()))
            assert gap <= EXACT * float((Wx.norm() * y.norm()).detach()), f"{name}: ⟨Wx, y⟩ − ⟨x, Wᵀy⟩ = {gap:.2e}"
            assert_close({"Wᵀy": again}, {"Wᵀy": WTy}, EXACT, name)

    @_sizes
    def test_displacement_rank(self, family: str, size: Size) -> None:
        """rank(A W − W B) is at most the rank declared, which is below n; without a square there is no displacement."""
        structure = make_structure(family, *size)
        generators = sample_generators(structure)
        pair = structure.displacement(**generators)
        if size[0] != size[1]:
            assert pair is None
            return
        assert pair is not None
        A, B = pair
        W = structure.dense(**generators)
        singular_values = torch.linalg.svdvals(A @ W - W @ B)
        scale = torch.linalg.matrix_norm(W, 2) * (torch.linalg.matrix_norm(A, 2) + torch.linalg.matrix_norm(B, 2))
        rank = int((singular_values > EXACT * scale).sum())
        assert rank <= structure.displacement_rank, f"rank {rank}, at most {structure.displacement_rank} declared"
        assert structure.displacement_rank < max(size[0], 3), "a displacement rank of n says nothing"

    @_sizes
    @_grids
    @_narrow_dtypes
    def test_precision(self, family: str, size: Size, grid: Size, dtype: torch.dtype) -> None:
        """Below fp64 no algorithm is more than twice as far from the truth as the dense product in that dtype."""
        structure, draws = _draws(family, size, grid, dtype)
        exact, bounds = _exact_and_bounds(structure, draws)
        for name in (*algorithms(structure), "auto"):
            actual = _stacked(by_algorithm(name), structure, draws)
            assert actual["y"].dtype == actual["d x"].dtype == dtype, name
            assert all(actual[f"d {g}"].dtype == value.dtype for g, value in draws[0][1].items()), name
            assert_close(actual, exact, bounds, name)

    @_sizes_from_two
    @_grids
    @_all_dtypes
    def test_mistakes_are_noticed(self, family: str, size: Size, grid: Size, dtype: torch.dtype) -> None:
        """The bounds of `test_precision` reject results and gradients that are wrong in a common way."""
        structure, draws = _draws(family, size, grid, dtype)
        exact, bounds = _exact_and_bounds(structure, draws)
        for name, value in _stacked(by_algorithm("auto"), structure, draws).items():
            for mutation, mutate in MUTATIONS.items():
                if value.shape[-1] > 1 or mutation in ("zeros", "sign flip"):
                    with pytest.raises(AssertionError, match="normalised error"):
                        assert_close({name: mutate(value)}, {name: exact[name]}, bounds, mutation)

    @_sizes
    @_grids
    def test_memory_layout_does_not_matter(self, family: str, size: Size, grid: Size) -> None:
        """Strided and expanded inputs, generators and output gradients give what contiguous ones give."""
        structure, x, generators = _case(family, size, grid)
        for name in algorithms(structure):
            expected = outcomes(by_algorithm(name), structure, x, generators)
            strided = outcomes(
                by_algorithm(name), structure, _strided(x), {g: _strided(v) for g, v in generators.items()}
            )
            assert_close(strided, expected, EXACT, f"{name}, strided")
            one = x[:1].expand_as(x)
            expected = outcomes(by_algorithm(name), structure, one.contiguous(), generators)
            assert_close(outcomes(by_algorithm(name), structure, one, generators), expected, EXACT, f"{name}, expanded")

    @_sizes
    @_grids
    def test_leading_dimensions(self, family: str, size: Size, grid: Size) -> None:
        """x may have no leading dimension, or several, or an empty one; then all generators' gradients are zero."""
        structure, x, generators = _case(family, size, grid, tokens=6)
        for name in (*algorithms(structure), "auto"):
            y = block_matmul(structure, x, generators, name)
            nested = block_matmul(structure, x.unflatten(0, (2, 3)), generators, name)
            assert_close({"y": nested}, {"y": y.unflatten(0, (2, 3))}, EXACT, name)
            assert_close({"y": block_matmul(structure, x[0], generators, name)}, {"y": y[0]}, EXACT, name)
            empty = outcomes(by_algorithm(name), structure, x[:0], generators)
            assert empty["y"].shape == (0, grid[0], size[0])
            assert empty["d x"].shape == (0, grid[1], size[1])
            assert all(not empty[f"d {g}"].any() for g in generators)

    @_sizes
    @_grids
    def test_reads_only_what_was_written(self, family: str, size: Size, grid: Size) -> None:
        """With new memory full of NaN, results and gradients are what they were; the arguments stay untouched."""
        structure, x, generators = _case(family, size, grid)
        copies = {"x": x.clone(), **{g: v.clone() for g, v in generators.items()}}
        for name in algorithms(structure):
            expected = outcomes(by_algorithm(name), structure, x, generators)
            with poisoned_memory():
                actual = outcomes(by_algorithm(name), structure, x, generators)
            assert_close(actual, expected, EXACT, name)
        assert all(torch.equal({"x": x, **generators}[name], copy) for name, copy in copies.items())

    @_sizes
    @_narrow_dtypes
    def test_saves_little_for_backward(self, family: str, size: Size, dtype: torch.dtype) -> None:
        """No algorithm saves a complex tensor, nor anything of x's size in another dtype than x's."""
        tokens = 257  # longer than any block, so that what is saved for each token is known by its first dimension
        structure, x, generators = _case(family, size, (2, 3), dtype, tokens=tokens)
        for name in algorithms(structure):
            saved = _saved_tensors(structure, x, generators, name)
            assert not [t.dtype for t in saved if t.is_complex()], f"{name} saves complex tensors"
            per_token = {t.dtype for t in saved if t.numel() >= tokens and tokens in t.shape}
            assert per_token == {dtype}, f"{name} saves {per_token} for an x of {dtype}"

    @_small_sizes
    def test_computes_only_the_gradients_asked_for(self, family: str, size: Size) -> None:
        """Inputs that need no gradient get none, and those that do get the same as when all do."""
        structure, x, generators = _case(family, size, (2, 3))
        values = {"x": x, **generators}
        for name in algorithms(structure):
            expected = outcomes(by_algorithm(name), structure, x, generators)
            for wanted in values:
                leaves = {v: value.detach().requires_grad_(v == wanted) for v, value in values.items()}
                y = block_matmul(structure, leaves["x"], {g: leaves[g] for g in generators}, name)
                y.backward(cotangent(y))
                assert [v for v in values if leaves[v].grad is not None] == [wanted], name
                gradient = leaves[wanted].grad
                assert gradient is not None
                assert_close({wanted: gradient}, {wanted: expected[f"d {wanted}"]}, EXACT, name)


def _case(
    family: str, size: Size, grid: Size, dtype: torch.dtype = torch.float64, tokens: int = TOKENS
) -> tuple[Structure, Tensor, dict[str, Tensor]]:
    """A block, inputs (T, Q, N) in `dtype`, and generators (P, Q, …) in at least fp32."""
    structure = make_structure(family, *size)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return (
        structure,
        sample_inputs(tokens, grid[1], size[1], dtype=dtype),
        sample_generators(structure, *grid, dtype=wide),
    )


def _draws(family: str, size: Size, grid: Size, dtype: torch.dtype) -> tuple[Structure, list[Draw]]:
    """A block and `DRAWS` random inputs with generators, as `_case` makes them."""
    structure = make_structure(family, *size)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return structure, [
        (
            sample_inputs(TOKENS, grid[1], size[1], dtype=dtype, seed=1000 + seed),
            sample_generators(structure, *grid, dtype=wide, seed=seed),
        )
        for seed in range(DRAWS)
    ]


def _stacked(matmul: Matmul, structure: Structure, draws: Iterable[Draw]) -> dict[str, Tensor]:
    """The outcomes of all draws together, so that an error is an average and not the luck of a few numbers."""
    results = [outcomes(matmul, structure, x, generators) for x, generators in draws]
    return {name: torch.stack([result[name] for result in results]) for name in results[0]}


def _exact_and_bounds(structure: Structure, draws: list[Draw]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The results in fp64 for these very numbers, and how far from them each may be in x's dtype.

    In fp64 `EXACT`; below, twice the error of the dense product, and no less than the floors above.
    """
    dtype = draws[0][0].dtype
    wide = [(x.double(), {name: g.double() for name, g in generators.items()}) for x, generators in draws]
    exact = _stacked(reference_matmul, structure, wide)
    if dtype == torch.float64:
        return exact, dict.fromkeys(exact, EXACT)
    dense = _stacked(by_algorithm("dense"), structure, draws)
    floor = unit_roundoff(dtype) * (TRANSFORM_FLOOR if dtype == torch.float32 else ROUNDING_FLOOR)
    return exact, {name: max(2 * normalised_error(dense[name], exact[name]), floor) for name in exact}


def _strips(rows: int) -> list[Size]:
    """All rows, the first, the last, and some in the middle, as (start, stop)."""
    return sorted({(0, rows), (0, 1), (rows - 1, rows), (rows // 3, rows // 3 + (rows + 1) // 2)})


def _pullbacks(
    structure: Structure, draws: list[Draw], start: int, stop: int
) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Tensor]]:
    """Generators' gradients for rows start … stop − 1 in fp64, how far from them one may be, and what `pullback` says.

    In fp64 `EXACT`; below, twice the error of autograd through `dense`, and no less than the floor of transforms.
    """

    def by_autograd(grad: Tensor, generators: Mapping[str, Tensor]) -> dict[str, Tensor]:
        leaves = {name: g.detach().requires_grad_() for name, g in generators.items()}
        rows = structure.dense(**leaves)[..., start:stop, :]
        return dict(zip(leaves, torch.autograd.grad(rows, tuple(leaves.values()), grad), strict=True))

    def stacked(results: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
        listed = list(results)
        return {name: torch.stack([result[name] for result in listed]) for name in listed[0]}

    cases = []
    for seed, (x, generators) in enumerate(draws):
        grid = next(iter(generators.values())).shape[:2]
        cases.append((sample_inputs(*grid, stop - start, structure.cols, dtype=x.dtype, seed=seed), generators))
    exact = stacked(by_autograd(grad.double(), {n: g.double() for n, g in numbers.items()}) for grad, numbers in cases)
    actual = stacked(structure.pullback(grad, start, **numbers) for grad, numbers in cases)
    dtype = cases[0][0].dtype
    if dtype == torch.float64:
        return exact, dict.fromkeys(exact, EXACT), actual
    default = stacked(by_autograd(grad, numbers) for grad, numbers in cases)
    floor = unit_roundoff(dtype) * TRANSFORM_FLOOR
    return exact, {name: max(2 * normalised_error(default[name], exact[name]), floor) for name in exact}, actual


def _strided(value: Tensor) -> Tensor:
    """The same numbers, apart in memory and with the axes the other way round."""
    padded = value.new_full((*reversed(value.shape), 2), float("nan"))
    view = padded[..., 0].permute(*reversed(range(value.dim())))
    return view.copy_(value)


def _saved_tensors(structure: Structure, x: Tensor, generators: Mapping[str, Tensor], algorithm: str) -> list[Tensor]:
    """What autograd keeps between forward and backward."""
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Any:
        saved.append(tensor)
        return tensor

    leaves = {name: g.detach().requires_grad_() for name, g in generators.items()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        block_matmul(structure, x.detach().requires_grad_(), leaves, algorithm)
    return saved
