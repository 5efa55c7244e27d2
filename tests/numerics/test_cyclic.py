"""Cyclic convolutions, against rotations."""

from __future__ import annotations

import pytest
import torch

from structune.numerics.cyclic import cyclic_convolution
from structune.testing import sample_inputs


@pytest.mark.parametrize("period", [1, 2, 5, 6])
def test_cyclic_convolution(period: int) -> None:
    a, b = sample_inputs(2, 3, period), sample_inputs(2, 3, max(1, period - 2), seed=2)
    expected = sum(a.roll(k, -1) * b[..., k : k + 1] for k in range(b.shape[-1]))
    torch.testing.assert_close(cyclic_convolution(a, b, period), expected.sum(1))
    inputs = (a.requires_grad_(), b.requires_grad_())
    torch.autograd.gradcheck(lambda a, b: cyclic_convolution(a, b, period), inputs)
    torch.autograd.gradgradcheck(lambda a, b: cyclic_convolution(a, b, period), inputs)
