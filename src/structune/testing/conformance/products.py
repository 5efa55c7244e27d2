"""How a grid of blocks multiplies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from structune.products import block_matmul, choose, resolve
from structune.structures import Structure
from structune.testing.conformance.cases import (
    EXACT,
    NONDETERMINISM,
    ROUNDED,
    ROUNDING_FLOOR,
    TOKENS,
    TRANSFORM_FLOOR,
    Draw,
    Size,
    all_dtypes,
    assert_mistakes_noticed,
    block,
    case,
    draws_of,
    forms,
    grids,
    narrow_dtypes,
    sizes,
    sizes_from_two,
    small_sizes,
    stacked,
    with_generators,
    with_strides,
)
from structune.testing.device import DEVICE
from structune.testing.errors import assert_close, normalised_error, unit_roundoff
from structune.testing.outcomes import algorithms, by_algorithm, cotangent, outcomes, reference_matmul
from structune.testing.poison import poisoned_memory
from structune.testing.samples import sample_generators, sample_inputs

_chosen_for = pytest.mark.parametrize("size", [(1, 1), (192, 192), (768, 1024)], ids=["1x1", "192x192", "768x1024"])


class Products:
    """Every algorithm that supports the family, its own product included."""

    @sizes
    @grids
    def test_algorithms_equal_dense(self, family: str, size: Size, grid: Size) -> None:
        """Result and all gradients, fp64."""
        for structure in forms(family, size):
            x, generators = with_generators(structure, grid)
            expected = outcomes(reference_matmul, structure, x, generators)
            for name in (*algorithms(structure), "auto"):
                actual = outcomes(by_algorithm(name), structure, x, generators)
                assert_close(actual, expected, EXACT, name)

    @small_sizes
    def test_gradients(self, family: str, size: Size) -> None:
        """First and second derivatives with respect to each input alone and to all together, by differences."""
        structure, x, generators = case(family, size, (1, 2), tokens=2)
        values = (x, *generators.values())
        wanted = [{k} for k in range(len(values))] + [set(range(len(values)))]
        for name in algorithms(structure):

            def product(x: Tensor, *numbers: Tensor, name: str = name) -> Tensor:
                return block_matmul(structure, x, dict(zip(generators, numbers, strict=True)), name)

            for chosen in wanted:
                inputs = tuple(v.detach().requires_grad_(k in chosen) for k, v in enumerate(values))
                torch.autograd.gradcheck(product, inputs, nondet_tol=NONDETERMINISM)
                torch.autograd.gradgradcheck(product, inputs, nondet_tol=NONDETERMINISM)

    @sizes
    @grids
    def test_input_gradient_is_the_adjoint(self, family: str, size: Size, grid: Size) -> None:
        """⟨W x, y⟩ = ⟨x, Wᵀ y⟩ with Wᵀ y the gradient of x, and linear: the same at another x."""
        structure, x, generators = case(family, size, grid)
        x.requires_grad_()
        y = sample_inputs(TOKENS, grid[0], structure.rows, seed=3)
        for name in algorithms(structure):
            Wx = block_matmul(structure, x, generators, name)
            (WTy,) = torch.autograd.grad(Wx, x, y)
            elsewhere = block_matmul(structure, x * 2 + 1, generators, name)
            (again,) = torch.autograd.grad(elsewhere, x, y / 2)
            gap = abs(float(((Wx * y).sum() - (x * WTy).sum()).detach()))
            assert gap <= EXACT * float((Wx.norm() * y.norm()).detach()), f"{name}: ⟨Wx, y⟩ − ⟨x, Wᵀy⟩ = {gap:.2e}"
            assert_close({"Wᵀy": again}, {"Wᵀy": WTy}, EXACT, name)

    @sizes
    @grids
    @narrow_dtypes
    def test_precision(self, family: str, size: Size, grid: Size, dtype: torch.dtype) -> None:
        """Below fp64 no algorithm is more than twice as far from the truth as the dense product in that dtype."""
        structure, draws = draws_of(family, size, grid, dtype)
        exact, bounds = _exact_and_bounds(structure, draws)
        for name in (*algorithms(structure), "auto"):
            actual = stacked(by_algorithm(name), structure, draws)
            assert actual["y"].dtype == actual["d x"].dtype == dtype, name
            assert all(actual[f"d {g}"].dtype == value.dtype for g, value in draws[0][1].items()), name
            assert_close(actual, exact, bounds, name)

    @sizes_from_two
    @grids
    @all_dtypes
    def test_mistakes_are_noticed(self, family: str, size: Size, grid: Size, dtype: torch.dtype) -> None:
        """The bounds of `test_precision` reject results and gradients that are wrong in a common way."""
        structure, draws = draws_of(family, size, grid, dtype)
        exact, bounds = _exact_and_bounds(structure, draws)
        assert_mistakes_noticed(stacked(by_algorithm("auto"), structure, draws), exact, bounds)

    @sizes
    @grids
    def test_memory_layout_does_not_matter(self, family: str, size: Size, grid: Size) -> None:
        """Strided and expanded inputs, generators and output gradients give what contiguous ones give."""
        structure, x, generators = case(family, size, grid)
        for name in algorithms(structure):
            expected = outcomes(by_algorithm(name), structure, x, generators)
            strided = outcomes(
                by_algorithm(name), structure, with_strides(x), {g: with_strides(v) for g, v in generators.items()}
            )
            assert_close(strided, expected, EXACT, f"{name}, strided")
            one = x[:1].expand_as(x)
            expected = outcomes(by_algorithm(name), structure, one.contiguous(), generators)
            assert_close(outcomes(by_algorithm(name), structure, one, generators), expected, EXACT, f"{name}, expanded")

    @sizes
    @grids
    def test_leading_dimensions(self, family: str, size: Size, grid: Size) -> None:
        """x may have no leading dimension, or several, or an empty one; then all generators' gradients are zero."""
        structure, x, generators = case(family, size, grid, tokens=6)
        for name in (*algorithms(structure), "auto"):
            y = block_matmul(structure, x, generators, name)
            nested = block_matmul(structure, x.unflatten(0, (2, 3)), generators, name)
            assert_close({"y": nested}, {"y": y.unflatten(0, (2, 3))}, EXACT, name)
            assert_close({"y": block_matmul(structure, x[0], generators, name)}, {"y": y[0]}, EXACT, name)
            empty = outcomes(by_algorithm(name), structure, x[:0], generators)
            assert empty["y"].shape == (0, grid[0], structure.rows)
            assert empty["d x"].shape == (0, grid[1], structure.cols)
            assert all(not empty[f"d {g}"].any() for g in generators)

    @sizes
    @grids
    def test_reads_only_what_was_written(self, family: str, size: Size, grid: Size) -> None:
        """With new memory full of NaN, results and gradients are what they were; the arguments stay untouched."""
        structure, x, generators = case(family, size, grid)
        copies = {"x": x.clone(), **{g: v.clone() for g, v in generators.items()}}
        for name in algorithms(structure):
            expected = outcomes(by_algorithm(name), structure, x, generators)
            with poisoned_memory():
                actual = outcomes(by_algorithm(name), structure, x, generators)
            assert_close(actual, expected, EXACT, name)
        assert all(torch.equal({"x": x, **generators}[name], copy) for name, copy in copies.items())

    @sizes
    @narrow_dtypes
    def test_saves_little_for_backward(self, family: str, size: Size, dtype: torch.dtype) -> None:
        """No algorithm saves a complex tensor, nor anything of x's size in another dtype than x's."""
        tokens = 257  # longer than any block, so that what is saved for each token is known by its first dimension
        structure, x, generators = case(family, size, (2, 3), dtype, tokens=tokens)
        for name in algorithms(structure):
            saved = _saved_tensors(structure, x, generators, name)
            assert not [t.dtype for t in saved if t.is_complex()], f"{name} saves complex tensors"
            per_token = {t.dtype for t in saved if t.numel() >= tokens and tokens in t.shape}
            assert per_token == {dtype}, f"{name} saves {per_token} for an x of {dtype}"

    @small_sizes
    def test_computes_only_the_gradients_asked_for(self, family: str, size: Size) -> None:
        """Inputs that need no gradient get none, and those that do get the same as when all do."""
        structure, x, generators = case(family, size, (2, 3))
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

    @sizes_from_two
    @grids
    def test_start_is_subtracted(self, family: str, size: Size, grid: Size) -> None:
        """The product with S(generators) − S(start), and the gradients that it has without a start, fp64."""
        structure, x, generators = case(family, size, grid)
        start = sample_generators(structure, *grid, seed=7)
        W = structure.dense(**generators) - structure.dense(**start)
        expected = outcomes(reference_matmul, structure, x, generators)
        expected["y"] = torch.einsum("pqmn,tqn->tpm", W, x)
        expected["d x"] = torch.einsum("pqmn,tpm->tqn", W, cotangent(expected["y"]))
        for name in (*algorithms(structure), "auto"):

            def product(structure: Structure, x: Tensor, numbers: Mapping[str, Tensor], name: str = name) -> Tensor:
                return block_matmul(structure, x, numbers, name, start)

            assert_close(outcomes(product, structure, x, generators), expected, EXACT, f"{name}, from a start")

    @sizes_from_two
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
    def test_autocast(self, family: str, size: Size, dtype: torch.dtype) -> None:
        """Products have the accuracy of the narrow dtype, and so has the difference of two blocks that are close."""
        structure, x, generators = case(family, size, (2, 3), torch.float32)
        near = {name: g + 1e-3 * sample_inputs(*g.shape, dtype=g.dtype, seed=3) for name, g in generators.items()}
        wide = {name: g.double() for name, g in generators.items()}
        exact = reference_matmul(structure, x.double(), wide)
        moved = exact - reference_matmul(structure, x.double(), {name: g.double() for name, g in near.items()})
        for name in (*algorithms(structure), "auto"):
            with torch.autocast(DEVICE.type, dtype=dtype):
                y = block_matmul(structure, x, generators, name)
                change = block_matmul(structure, x, generators, name, near)
            for what, actual, expected in (("product", y, exact), ("difference", change, moved)):
                error = normalised_error(actual, expected)
                assert error < ROUNDED, f"{name} works narrow under autocast: its {what} has the error {error:.2g}"

    @small_sizes
    @all_dtypes
    @pytest.mark.parametrize("numbers", [torch.float64, torch.float32, torch.bfloat16], ids=["of64", "of32", "of16"])
    def test_dtypes_mix(self, family: str, size: Size, dtype: torch.dtype, numbers: torch.dtype) -> None:
        """y has x's dtype whatever the generators' is, and gradients have that of what they belong to."""
        structure = block(family, size)
        x = sample_inputs(6, 3, structure.cols, dtype=dtype)
        generators = sample_generators(structure, 2, 3, dtype=numbers)
        exact = reference_matmul(structure, x.double(), {name: g.double() for name, g in generators.items()})
        bound = 4 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
        for name in algorithms(structure):
            found = outcomes(by_algorithm(name), structure, x, generators)
            assert found["y"].dtype == found["d x"].dtype == dtype, f"{name} gives {found['y'].dtype} from {dtype}"
            assert all(found[f"d {g}"].dtype == numbers for g in generators), f"{name}: a gradient of another dtype"
            assert_close({"y": found["y"]}, {"y": exact}, bound, name)

    @small_sizes
    def test_products_stay_on_their_device(self, family: str, size: Size) -> None:
        """Nothing is made on another device than that of the numbers: here meta, which holds none."""
        structure, x, generators = case(family, size, (2, 3))
        numbers = {name: g.to("meta").requires_grad_() for name, g in generators.items()}
        for name in algorithms(structure):
            y = block_matmul(structure, x.to("meta").requires_grad_(), numbers, name)
            gradients = torch.autograd.grad(y, tuple(numbers.values()), torch.empty_like(y))
            assert all(tensor.is_meta for tensor in (y, *gradients)), f"{name} leaves the device"

    def test_compiles_whole(self, family: str) -> None:
        """Forward and backward in one graph each, with any number of tokens; results are those without compilation."""
        structure = block(family, (5, 7))
        generators = {name: g.requires_grad_() for name, g in sample_generators(structure, 2, 3).items()}
        for name in algorithms(structure):

            def product(x: Tensor, *numbers: Tensor, name: str = name) -> Tensor:
                return block_matmul(structure, x, dict(zip(generators, numbers, strict=True)), name)

            torch._dynamo.reset()
            compiled = torch.compile(product, fullgraph=True, backend="aot_eager")
            for tokens in (4, 6, 9):
                x = sample_inputs(tokens, 3, structure.cols).requires_grad_()
                torch._dynamo.mark_dynamic(x, 0)
                inputs = (x, *generators.values())
                with torch.compiler.set_stance("fail_on_recompile" if tokens == 9 else "default"):
                    y = compiled(*inputs)
                found, expected = (
                    {f"{k}": value.detach() for k, value in enumerate((out, *torch.autograd.grad(out.sum(), inputs)))}
                    for out in (y, product(*inputs))
                )
                assert_close(found, expected, EXACT, f"{name}, compiled")

    @_chosen_for
    @all_dtypes
    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_the_choice_can_be_carried_out(self, family: str, size: Size, dtype: torch.dtype, device: str) -> None:
        """`auto` stands for one algorithm that supports the family; an explicit name stands for itself."""
        for structure in forms(family, size):
            able = algorithms(structure)
            for tokens in (1, 100_000):
                chosen = choose(structure, (4, 4), tokens, dtype, device)
                assert chosen in able, f"auto chooses {chosen} on {device}, {able} are possible"
                for asked in ("auto", *able):
                    resolved = resolve(asked, structure, (4, 4), tokens, dtype, device)
                    assert resolved == (chosen if asked == "auto" else asked), f"{asked} stands for {resolved}"

    @sizes
    def test_own_product_says_what_it_costs(self, family: str, size: Size) -> None:
        """A family with a product of its own counts its multiplications, which grow with the grid."""
        for structure in forms(family, size):
            if not structure.has_own_product:
                continue
            one, more = structure.multiplications(1, 1), structure.multiplications(2, 3)
            assert isinstance(one, int), f"{structure}: {one!r} multiplications"
            assert 0 < one < more, f"{structure}: {one} multiplications for one block, {more} for six"


def _exact_and_bounds(structure: Structure, draws: list[Draw]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The results in fp64 for these very numbers, and how far from them each may be in x's dtype.

    In fp64 `EXACT`; below, twice the error of the dense product, and no less than the floors above.
    """
    dtype = draws[0][0].dtype
    wide = [(x.double(), {name: g.double() for name, g in generators.items()}) for x, generators in draws]
    exact = stacked(reference_matmul, structure, wide)
    if dtype == torch.float64:
        return exact, dict.fromkeys(exact, EXACT)
    dense = stacked(by_algorithm("dense"), structure, draws)
    floor = unit_roundoff(dtype) * (TRANSFORM_FLOOR if dtype == torch.float32 else ROUNDING_FLOOR)
    return exact, {name: max(2 * normalised_error(dense[name], exact[name]), floor) for name in exact}


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
