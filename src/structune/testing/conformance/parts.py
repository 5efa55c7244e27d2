"""Some rows of a block, and what comes back from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from structune.structures import Structure
from structune.testing.conformance.cases import (
    EXACT,
    TRANSFORM_FLOOR,
    Draw,
    Size,
    assert_mistakes_noticed,
    case,
    draws_of,
    forms,
    grids,
    sizes,
    sizes_from_two,
    wide_dtypes,
    with_strides,
)
from structune.testing.device import DEVICE
from structune.testing.errors import assert_close, normalised_error, unit_roundoff
from structune.testing.poison import poisoned_memory
from structune.testing.samples import sample_generators, sample_inputs


class Parts:
    """`strip`, `pullback` and `lookup`, whether the family overrides them or not."""

    @sizes
    @grids
    def test_strip_is_rows_of_dense(self, family: str, size: Size, grid: Size) -> None:
        for structure in forms(family, size):
            generators = sample_generators(structure, *grid)
            W = structure.dense(**generators)
            for start, stop in _strips(structure.rows):
                strip = structure.strip(start, stop, **generators)
                assert_close({"rows": strip}, {"rows": W[..., start:stop, :]}, EXACT, f"strip({start}, {stop})")

    @sizes
    @grids
    def test_pullback_is_the_gradient_of_dense(self, family: str, size: Size, grid: Size) -> None:
        """For the whole block and for strips, fp64."""
        structure, draws = draws_of(family, size, grid, torch.float64)
        for start, stop in _strips(structure.rows):
            exact, bounds, actual = _pullbacks(structure, draws, start, stop)
            assert_close(actual, exact, bounds, f"pullback of rows {start} to {stop - 1}")

    @sizes
    @grids
    def test_precision_of_a_pullback(self, family: str, size: Size, grid: Size) -> None:
        """In fp32 it is no more than twice as far from the truth as autograd through `dense`."""
        structure, draws = draws_of(family, size, grid, torch.float32)
        exact, bounds, actual = _pullbacks(structure, draws, 0, structure.rows)
        assert all(value.dtype == torch.float32 for value in actual.values())
        assert_close(actual, exact, bounds)

    @sizes_from_two
    @grids
    @wide_dtypes
    def test_mistakes_in_a_pullback_are_noticed(self, family: str, size: Size, grid: Size, dtype: torch.dtype) -> None:
        """The bounds of the two tests before reject gradients that are wrong in a common way."""
        structure, draws = draws_of(family, size, grid, dtype)
        exact, bounds, actual = _pullbacks(structure, draws, 0, structure.rows)
        assert_mistakes_noticed(actual, exact, bounds)

    @sizes
    @grids
    def test_pullback_reads_only_what_it_is_given(self, family: str, size: Size, grid: Size) -> None:
        """Strided arguments and new memory full of NaN change nothing; the arguments stay untouched."""
        structure, _, generators = case(family, size, grid)
        start = structure.rows // 2
        grad = sample_inputs(*grid, structure.rows - start, structure.cols)
        copies = {"grad": grad.clone(), **{g: v.clone() for g, v in generators.items()}}
        expected = structure.pullback(grad, start, **generators)
        strided = {g: with_strides(v) for g, v in generators.items()}
        assert_close(structure.pullback(with_strides(grad), start, **strided), expected, EXACT, "strided")
        with poisoned_memory():
            assert_close(structure.pullback(grad, start, **generators), expected, EXACT, "poisoned")
        assert all(torch.equal({"grad": grad, **generators}[name], copy) for name, copy in copies.items())

    @sizes
    @grids
    def test_lookup_is_rows_of_dense(self, family: str, size: Size, grid: Size) -> None:
        """Rows of any blocks in any order, the same ones twice, one and none; gradients as well."""
        for structure in forms(family, size):
            generators = {name: g.requires_grad_() for name, g in sample_generators(structure, *grid).items()}
            W = structure.dense(**generators)
            for tokens in (0, 1, 2 * structure.rows + 1):
                random = torch.Generator().manual_seed(tokens)
                block_row, row = (
                    torch.randint(count, (tokens,), generator=random).to(DEVICE) for count in (grid[0], structure.rows)
                )
                found, expected = structure.lookup(block_row, row, **generators), W[block_row, :, row]
                assert found.dtype == expected.dtype, f"lookup gives {found.dtype} from {expected.dtype}"
                assert_close({"rows": found.detach()}, {"rows": expected.detach()}, EXACT, f"lookup in {structure}")
                if tokens:
                    grad = sample_inputs(*expected.shape, seed=4)
                    actual, wanted = (
                        torch.autograd.grad(rows, tuple(generators.values()), grad, retain_graph=True)
                        for rows in (found, expected)
                    )
                    assert_close(
                        dict(zip(generators, actual, strict=True)),
                        dict(zip(generators, wanted, strict=True)),
                        EXACT,
                        f"gradient of lookup in {structure}",
                    )


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
