"""Products of diagonals and circulants: the published form, its count, and its start."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import circulant

from structune.delta import StructuredDelta
from structune.structures.families.circulant import Circulant
from structune.structures.families.circulant_diagonal import CirculantDiagonal
from structune.testing import sample_generators, sample_inputs


def test_ones_on_the_diagonals_leave_a_circulant() -> None:
    structure = CirculantDiagonal(5, 7)
    c = sample_inputs(7)
    W = structure.dense(d0=torch.ones(7), c1=c, d1=torch.ones(5))
    assert torch.equal(W, Circulant(5, 7).dense(c=c))


def test_two_circulants_by_explicit_matrices() -> None:
    structure = CirculantDiagonal(6, 6, circulants=2)
    generators = sample_generators(structure)
    d0, c1, d1, c2, d2 = (value.numpy() for value in generators.values())
    assert list(generators) == ["d0", "c1", "d1", "c2", "d2"]
    by_hand = d2[:, None] * circulant(c2) @ (d1[:, None] * circulant(c1) * d0)
    torch.testing.assert_close(structure.dense(**generators), torch.from_numpy(by_hand), rtol=0, atol=1e-14)


def test_counts_of_the_paper() -> None:
    """Two diagonals and a circulant, 768 numbers each: 5.33 times fewer than LoRA of rank 8 (arXiv 2505.00580)."""
    assert CirculantDiagonal(768, 768).numel == 3 * 768
    assert round(8 * (768 + 768) / CirculantDiagonal(768, 768).numel, 2) == 5.33


@pytest.mark.parametrize("circulants", [1, 2])
def test_training_starts_with_the_last_circulant(circulants: int) -> None:
    """It is zero, all else is there: diagonals between 1/2 and 3/2, inner circulants that keep sizes as they are."""
    options = {"structure": "circulant_diagonal", "num_splits": 1, "circulants": circulants, "dtype": torch.float64}
    delta = StructuredDelta(64, 64, **options)
    numbers = {name: value[0, 0] for name, value in delta.generators().items()}
    last = f"c{circulants}"
    assert not numbers[last].any()
    for name, value in numbers.items():
        if name.startswith("d"):
            assert 0.5 < value.min() < 0.6
            assert 1.4 < value.max() < 1.5
        elif name != last:
            assert 0.8 < value.norm() < 1.2
    delta(sample_inputs(4, 64)).backward(sample_inputs(4, 64, seed=2))
    assert delta.pool.grad is not None
    gradients = dict(zip(numbers, torch.split(delta.pool.grad, [v.numel() for v in numbers.values()]), strict=True))
    assert gradients[last].all()
    assert not any(gradient.any() for name, gradient in gradients.items() if name != last)


@pytest.mark.parametrize("circulants", [1, 2])
def test_rows_are_looked_up_without_the_matrix(circulants: int, monkeypatch: pytest.MonkeyPatch) -> None:
    structure = CirculantDiagonal(50, 13, circulants=circulants)
    generators = sample_generators(structure, 2, 3)
    W = structure.dense(**generators)
    block_row, row = torch.tensor([0, 1, 1, 0]), torch.tensor([0, 49, 7, 7])
    monkeypatch.setattr(CirculantDiagonal, "strip", lambda *args, **kwargs: pytest.fail("the matrix is built"))
    torch.testing.assert_close(structure.lookup(block_row, row, **generators), W[block_row, :, row], rtol=0, atol=1e-13)
    nothing = structure.lookup(block_row[:0], row[:0], **generators)
    assert nothing.shape == (0, 3, 13)


@pytest.mark.parametrize("circulants", [1, 2])
@pytest.mark.parametrize(("size", "start"), [((5, 7), 0), ((7, 5), 3), ((6, 6), 2)])
def test_pullback(circulants: int, size: tuple[int, int], start: int) -> None:
    """Worked out for one circulant, by autograd for more; what rows outside of the strip have is zero."""
    structure = CirculantDiagonal(*size, circulants=circulants)
    generators = {name: value.requires_grad_() for name, value in sample_generators(structure, 2).items()}
    grad = sample_inputs(2, 3, size[1], seed=4)
    expected = torch.autograd.grad(
        structure.dense(**generators)[:, start : start + 3], tuple(generators.values()), grad
    )
    found = structure.pullback(grad, start, **{name: value.detach() for name, value in generators.items()})
    for (name, gradient), truth in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(gradient, truth, rtol=0, atol=1e-13, msg=name)


@pytest.mark.parametrize("circulants", [1, 2, 5])
@pytest.mark.parametrize("size", [(3, 5), (5, 3), (4, 4)])
def test_numbers_of_a_block_as_of_the_shapes(circulants: int, size: tuple[int, int]) -> None:
    block = CirculantDiagonal(*size, circulants)
    assert block.numel == sum(shape[0] for shape in block.shapes.values())


def test_a_file_cannot_ask_for_a_list_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CirculantDiagonal, "generators", lambda _: pytest.fail("made before it was refused"))
    with pytest.raises(ValueError, match="its blocks read .* numbers for an update of 576 entries: lower circulants"):
        StructuredDelta(24, 24, structure="circulant_diagonal", num_splits=1, circulants=10**9)
