"""Spectra against matrices whose singular values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from structune.delta import StructuredDelta
from structune.inspection.spectrum import Spectrum


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_identity_has_full_effective_rank(n: int) -> None:
    spectrum = Spectrum.of(3 * torch.eye(n))
    assert spectrum.effective_rank == pytest.approx(n, abs=1e-9)
    assert spectrum.frobenius == pytest.approx(3 * math.sqrt(n))
    assert spectrum.spectral == pytest.approx(3)
    assert spectrum.rank_for_energy(0.9) == math.ceil(0.9 * n)


def test_rank_one_has_effective_rank_one() -> None:
    column, row = torch.randn(9, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    spectrum = Spectrum.of(torch.outer(column, row))
    assert spectrum.effective_rank == pytest.approx(1, abs=1e-9)
    assert spectrum.rank_for_energy(0.9) == 1
    assert spectrum.frobenius == pytest.approx(spectrum.spectral) == pytest.approx(float(column.norm() * row.norm()))


def test_two_values_worked_by_hand() -> None:
    # p = (3/4, 1/4): entropy ln 4 − (3/4) ln 3, so the effective rank is 4 / 3^(3/4) = 1.7547…; energies are 9 : 1.
    spectrum = Spectrum.of(torch.tensor([[0.0, 3.0], [1.0, 0.0]]))
    assert spectrum.effective_rank == pytest.approx(4 / 3**0.75)
    assert spectrum.values.tolist() == pytest.approx([3, 1])
    assert [spectrum.rank_for_energy(share) for share in (0.5, 0.9, 0.91, 1.0)] == [1, 1, 2, 2]


def test_zero_matrix() -> None:
    spectrum = Spectrum.of(torch.zeros(4, 3))
    assert (spectrum.effective_rank, spectrum.rank_for_energy(0.9), spectrum.spectral) == (0.0, 0, 0.0)


@pytest.mark.parametrize("n", [2, 8, 101])
def test_circulant_singular_values_are_the_moduli_of_its_transform(n: int) -> None:
    delta = StructuredDelta(n, n, structure="circulant", num_splits=1)
    with torch.no_grad():
        delta.pool.copy_(torch.randn(n))
    first_column = delta.generators()["c"].detach().flatten().double().numpy()
    expected = np.sort(np.abs(np.fft.fft(first_column)))[::-1]
    np.testing.assert_allclose(Spectrum.of(delta.dense()).values.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_agrees_with_scipy() -> None:
    matrix = torch.randn(12, 30, dtype=torch.float64)
    np.testing.assert_allclose(Spectrum.of(matrix).values, scipy.linalg.svdvals(matrix.numpy()), rtol=1e-12)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.tensor([[1.0, math.nan]]), "NaN or infinite"),
        (torch.tensor([[math.inf]]), "NaN or infinite"),
        (torch.zeros(3), r"shape \(3,\)"),
    ],
)
def test_refuses(matrix: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spectrum.of(matrix)
