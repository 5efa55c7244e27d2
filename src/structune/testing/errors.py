"""How far a result is from the truth, and how far it may be."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def normalised_error(actual: Tensor, expected: Tensor) -> float:
    """‖actual − expected‖ / ‖expected‖ in Frobenius norms, fp64, on the CPU; 0 where both are equal, NaN with a NaN.

    Zeros have error 1 and a flipped sign error 2 whatever the size of the numbers, which an absolute tolerance misses.

    Raises:
        AssertionError: the shapes differ.
    """
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, {tuple(expected.shape)} expected"
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    difference = torch.linalg.vector_norm(actual - expected)
    return 0.0 if difference == 0 else float(difference / torch.linalg.vector_norm(expected))


def unit_roundoff(dtype: torch.dtype) -> float:
    """The largest relative error of rounding to nearest in `dtype`: half the spacing at 1."""
    return torch.finfo(dtype).eps / 2


def assert_close(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], bound: float | Mapping[str, float], what: str = ""
) -> None:
    """Raise AssertionError unless every result is within `bound`, one for all or by name, of what is expected."""
    assert actual.keys() == expected.keys(), f"{what}: results {sorted(actual)}, {sorted(expected)} expected"
    for name, value in actual.items():
        limit = bound if isinstance(bound, float) else bound[name]
        error = normalised_error(value, expected[name])
        assert error <= limit, f"{what} {name}: normalised error {error:.2e}, at most {limit:.2e} allowed"
