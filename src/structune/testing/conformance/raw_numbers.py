"""From raw numbers to generators: valid whatever the numbers, of one scale in all families, and zero at the start."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from structune.structures import Structure
from structune.testing.conformance.cases import EXACT, Size, block, forms, small_sizes
from structune.testing.errors import assert_close
from structune.testing.samples import sample_inputs, sample_raw

_wide_blocks = pytest.mark.parametrize("size", [(4, 4), (48, 48), (192, 64)], ids=["4x4", "48x48", "192x64"])

SCALE = 0.04, 2.0
"""Between these is the root mean square of a block of raw numbers uniform on (−1, 1); Vandermonde's entries decay."""

SPEED = 0.05, 2.5
"""Between these is that of its change where every raw number moves by one, to first order."""

FASTEST = 20.0
"""No single entry changes by more."""


class RawNumbers:
    """`from_raw`, `to_raw`, and what the generators that start at zero promise."""

    @small_sizes
    def test_any_number_is_valid(self, family: str, size: Size) -> None:
        """Whatever a raw number is, entries stay finite, and grow no faster than products of all generators."""
        for structure in forms(family, size):
            degree = max(2, len(structure.shapes))
            for value in (0.0, 1e-30, -1.0, 0.5, 3.0, -2e3, 1e6):
                raw = {name: torch.full_like(v, value) for name, v in sample_raw(structure).items()}
                largest = float(_dense(structure, raw).abs().max())
                bound = max(4.0, 100 * abs(value) ** degree, 100 * abs(value))
                assert largest <= bound, f"raw numbers of {value:g} give entries of {largest:g}"  # NaN is not <=

    @_wide_blocks
    def test_raw_numbers_of_order_one_give_entries_of_order_one(self, family: str, size: Size) -> None:
        for structure in forms(family, size):
            scale = float(_dense(structure, sample_raw(structure)).square().mean().sqrt())
            assert SCALE[0] < scale < SCALE[1], f"{structure}: entries of {scale:.3g} where {SCALE} are allowed"

    @_wide_blocks
    def test_a_step_moves_entries_by_about_as_much(self, family: str, size: Size) -> None:
        """AdamW's first step moves every trained number alike, and each moves its raw number by `raw_step`."""
        for structure in forms(family, size):
            raw = sample_raw(structure)
            step = {name: sample_inputs(*value.shape, seed=5).sign() * 1e-4 for name, value in raw.items()}
            after, before = (
                _dense(structure, {name: raw[name] + sign * step[name] for name in raw}) for sign in (1, -1)
            )
            moved = (after - before) / 2e-4
            speed, fastest = float(moved.square().mean().sqrt()), float(moved.abs().max())
            assert SPEED[0] < speed < SPEED[1], f"{structure}: entries move by {speed:.3g}, {SPEED} are allowed"
            assert fastest < FASTEST, f"{structure}: an entry moves by {fastest:.3g}"
            assert 0 < structure.raw_step < float("inf"), f"raw_step={structure.raw_step}"

    @small_sizes
    def test_from_raw_maps_each_block_by_itself(self, family: str, size: Size) -> None:
        structure = block(family, size)
        raw = sample_raw(structure, 2, 3)
        together = structure.from_raw(**raw)
        structure.check(together)
        for p in range(2):
            for q in range(3):
                alone = structure.from_raw(**{name: value[p, q] for name, value in raw.items()})
                assert_close({name: value[p, q] for name, value in together.items()}, alone, EXACT, "from_raw")

    @small_sizes
    def test_to_raw_inverts_from_raw(self, family: str, size: Size) -> None:
        """Where there is an inverse: raw numbers in (−1, 1) come back, and others come back with equal generators."""
        for structure in forms(family, size):
            raw = sample_raw(structure, 2)
            generators = structure.from_raw(**raw)
            back = structure.to_raw(**generators)
            if back is None:
                continue
            assert_close(back, raw, 1e-6, f"{structure}: to_raw")  # a sine is flat at the end of its range
            far = structure.from_raw(**{name: 5 * value for name, value in raw.items()})
            again = structure.to_raw(**far)
            assert again is not None, "to_raw inverts some generators and not others"
            assert_close(structure.from_raw(**again), far, 1e-6, f"{structure}: from_raw of to_raw")

    @small_sizes
    def test_zeros_of_the_start(self, family: str, size: Size) -> None:
        """With the generators that start at zero at zero W is zero, and its derivative with respect to them is not."""
        for structure in forms(family, size):
            zeroed = [name for name, generator in structure.generators().items() if generator.starts_at_zero]
            raw = sample_raw(structure)
            at_start = {name: torch.zeros_like(v) if name in zeroed else v for name, v in raw.items()}
            W = _dense(structure, at_start)
            if not zeroed:
                assert W.any(), f"{structure}: W is zero for random numbers"
                continue
            assert not W.any(), f"{structure}: W is not zero where {', '.join(zeroed)} start at zero"
            slope = _derivative(structure, at_start, {name: raw[name] for name in zeroed})
            assert slope.any(), f"{structure} never trains: at the start nothing changes W to first order"

    @small_sizes
    def test_linear_where_all_starts_at_zero(self, family: str, size: Size) -> None:
        """If every generator starts at zero, W is linear in all of them together, so that pools may start there."""
        for structure in forms(family, size):
            if not structure.is_linear:
                continue
            a, b = sample_raw(structure), sample_raw(structure, seed=1)
            mixed = _dense(structure, {name: 2 * a[name] - 3 * b[name] for name in a})
            expected = 2 * _dense(structure, a) - 3 * _dense(structure, b)
            assert expected.any(), f"{structure}: W is zero for random numbers"
            assert_close({"W": mixed}, {"W": expected}, EXACT, f"{structure} is not linear in all its generators")


def _dense(structure: Structure, raw: Mapping[str, Tensor]) -> Tensor:
    return structure.dense(**structure.from_raw(**raw))


def _derivative(structure: Structure, raw: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Tensor:
    """The derivative of W at `raw` along `direction`, to first order exactly."""
    along: Callable[[Tensor], Tensor] = lambda t: _dense(  # noqa: E731
        structure, {name: value + t * direction[name] if name in direction else value for name, value in raw.items()}
    )
    slope: Tensor = torch.autograd.functional.jacobian(along, torch.zeros((), dtype=torch.float64))
    return slope
