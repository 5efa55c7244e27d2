"""What ΔW made of the family's blocks is: how it starts, that it trains, and that files bring it back."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from structune import structures
from structune.delta import StructuredDelta
from structune.structures import Structure
from structune.testing.conformance.cases import EXACT, ROUNDED, block
from structune.testing.device import DEVICE
from structune.testing.errors import assert_close, normalised_error
from structune.testing.samples import sample_inputs
from structune.testing.updates import SOURCES, by_every_algorithm, dense_by_oracle, moved, sample_update

DOWNHILL = 200
"""Steps of AdamW, after which"""
LEFT = 0.5
"""no more than this is left of the loss."""

_every_source = pytest.mark.parametrize("source", list(SOURCES))
_own_and_pooled = pytest.mark.parametrize("source", ["own", "pooled"])


class Updates:
    """A 3×3 grid of blocks of about 4×3, padded both ways, with own and with pooled numbers."""

    @_every_source
    def test_an_update_is_a_grid_of_blocks(self, family: str, source: str) -> None:
        """ΔW is the oracle's matrix, the start's taken off; every product is that with ΔW, gradients too, fp64."""
        delta = moved(sample_update(_block(family), source, dtype=torch.float64, scale=1.7))
        W = delta.dense()
        assert_close({"ΔW": W.detach()}, {"ΔW": dense_by_oracle(delta)}, EXACT)
        x = sample_inputs(5, delta.grid.in_features).requires_grad_()
        y = x @ W.T
        grad = sample_inputs(*y.shape, seed=2)
        expected = dict(zip(("y", "d x", "d pool"), (y, *torch.autograd.grad(y, (x, delta.pool), grad)), strict=True))
        for other in by_every_algorithm(delta):
            y = other(x)
            actual = dict(zip(expected, (y, *torch.autograd.grad(y, (x, other.pool), grad)), strict=True))
            assert_close(
                {name: value.detach() for name, value in actual.items()},
                {name: value.detach() for name, value in expected.items()},
                EXACT,
                other.algorithm,
            )

    @_every_source
    def test_inference_is_the_product_with_dense(self, family: str, source: str) -> None:
        """Without gradients, what is kept between calls included: twice the same, and right after a step."""
        delta = moved(sample_update(_block(family), source, dtype=torch.float64))
        x = sample_inputs(5, delta.grid.in_features)
        for other in by_every_algorithm(delta):
            for size in (0.3, 0.2):
                moved(other, size)
                with torch.no_grad():
                    found = {"first": other(x), "again": other(x)}
                y = x @ other.dense().detach().T
                assert_close(found, dict.fromkeys(found, y), 1e-6, other.algorithm)  # spectra may be made in fp32

    @_every_source
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    def test_starts_at_zero_with_a_gradient(self, family: str, source: str, dtype: torch.dtype) -> None:
        """ΔW is zero to the last bit, and the first step moves it, along the gradient, downhill."""
        delta = sample_update(_block(family), source, dtype=dtype)
        x = sample_inputs(6, delta.grid.in_features, dtype=dtype)
        target = sample_inputs(6, delta.grid.out_features, dtype=dtype, seed=2)
        for other in by_every_algorithm(delta):
            assert not other.dense().any(), "ΔW is not zero at the start"
            y = other(x)
            assert not y.any(), f"{other.algorithm}: ΔW x is not zero at the start"
            loss = (y - target).float().square().sum()
            loss.backward()
            gradient = other.pool.grad
            assert gradient is not None, f"{other.algorithm}: no gradient at the start"
            size = float(gradient.float().norm())
            assert size > 1e-3, f"{family} never trains: a gradient of {size:g} at the start ({other.algorithm})"
            with torch.no_grad():
                step = 1e-2 / other.structure.raw_step  # the same for the raw numbers of every family
                other.pool.sub_((step / size * gradient.float()).to(dtype))
            assert (other(x) - target).float().square().sum() < loss, f"{other.algorithm}: the first step goes uphill"

    @_own_and_pooled
    @pytest.mark.parametrize("start", [False, "xavier_uniform", "kaiming_uniform"])
    def test_random_starts(self, family: str, source: str, start: Any) -> None:
        """Where nothing is subtracted, ΔW is the matrix of uniform numbers, and is not zero."""
        delta = sample_update(_block(family), source, init_weights=start, dtype=torch.float64)
        W = delta.dense().detach()
        assert not delta.centred
        assert W.any(), f"ΔW is zero with init_weights={start!r}"
        assert_close({"ΔW": W}, {"ΔW": dense_by_oracle(delta)}, EXACT)

    @_own_and_pooled
    @pytest.mark.parametrize("size", [0.3, 1e-3])
    def test_updates_under_autocast(self, family: str, source: str, size: float) -> None:
        """ΔW is what it is without; products have bf16's relative accuracy, for small updates too."""
        delta = moved(sample_update(_block(family), source), size)
        W = delta.dense().detach()
        x = sample_inputs(20, delta.grid.in_features, dtype=torch.float32)
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
            assert torch.equal(delta.dense(), W), "under autocast ΔW is another: it is worked out narrow"
            for other in by_every_algorithm(delta):
                y = other(x)
                error = normalised_error(y.detach(), x.double() @ W.double().T)
                assert error < ROUNDED, f"{other.algorithm} works narrow under autocast: error {error:.2g}"
                y.float().square().sum().backward()
                assert other.pool.grad is not None
                assert other.pool.grad.isfinite().all(), f"{other.algorithm}: a gradient that is not finite"

    @_own_and_pooled
    @pytest.mark.parametrize("size", [0.3, 1e-4])
    def test_small_updates_survive_narrow_inputs(self, family: str, source: str, size: float) -> None:
        """The start is subtracted before anything is rounded to x's dtype."""
        delta = moved(sample_update(_block(family), source), size)
        x = sample_inputs(20, delta.grid.in_features, dtype=torch.bfloat16)
        expected = x.double() @ dense_by_oracle(delta).T
        for other in by_every_algorithm(delta):
            y = other(x)
            assert y.dtype == torch.bfloat16
            error = normalised_error(y.detach(), expected)
            assert error < ROUNDED, f"{other.algorithm}: error {error:.2g} for an update of {size:g}"

    @_own_and_pooled
    def test_trains_at_its_learning_rate(self, family: str, source: str) -> None:
        """AdamW finds its way to a target that the family can express: downhill all along, and well below the start."""
        kind, like = structures.get(family), block(family, (8, 6))
        own: dict[str, Any] = like.options | ({"pool_size": min(60, 4 * like.numel)} if source == "pooled" else {})
        sizes = 2 * like.rows, 2 * like.cols
        target, delta = (
            StructuredDelta(*sizes, structure=family, num_splits=2, device=DEVICE, **own) for _ in range(2)
        )
        x, goal = sample_inputs(64, sizes[1], dtype=torch.float32), moved(target).dense().detach()
        optimizer = torch.optim.AdamW([delta.pool], lr=kind.learning_rate, weight_decay=0.0)
        losses = []
        for _ in range(DOWNHILL):
            loss = (delta(x) - x @ goal.T).square().mean()
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        tens = [sum(losses[k : k + 10]) for k in range(0, DOWNHILL, 10)]
        assert all(math.isfinite(loss) for loss in losses), f"a loss is not finite at the rate {kind.learning_rate}"
        assert max(losses) <= losses[0] * 1.01, f"the loss rises at the rate {kind.learning_rate}"
        assert all(later < 1.05 * earlier for earlier, later in pairwise(tens)), (
            f"the loss goes up and down at the rate {kind.learning_rate}: {tens}"
        )
        left = losses[-1] / losses[0]
        assert left < LEFT, f"{left:.0%} of the loss are left after {DOWNHILL} steps at the rate {kind.learning_rate}"

    @_every_source
    def test_files_bring_it_back(self, family: str, source: str) -> None:
        """The trained numbers and an identity are enough, bit by bit, in another stream too."""
        like = _block(family)
        delta = moved(sample_update(like, source, stream=3))
        state = delta.state_dict()
        for stream in (3, 4):
            fresh = sample_update(like, source, stream=stream)
            fresh.load_state_dict(state)
            assert torch.equal(fresh.dense(), delta.dense()), f"a file means something else in stream {stream}"


def _block(family: str) -> Structure:
    return block(family, (4, 3))
