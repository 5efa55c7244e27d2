"""What is refused, and what is said; what a ΔW says of itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from structune.delta import StructuredDelta

from .conftest import IN, OUT, every_family, every_source, make


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"structure": "toeplitzz"}, "structure='toeplitzz' is unknown: did you mean 'toeplitz'"),
        ({"block_size": 4}, "block_size=4 and num_splits=3: give exactly one"),
        ({"num_splits": None}, "block_size=None and num_splits=None: give exactly one"),
        ({"num_splits": 8}, "num_splits=8 cuts a weight of 10×7 finer than its entries: choose at most 7"),
        ({"num_splits": 0}, "num_splits=0 must be an integer of at least 1"),
        ({"num_splits": None, "block_size": 11}, "block_size=11 is larger than a weight of 10×7: choose at most 10"),
        ({"num_splits": None, "block_size": -1}, "block_size=-1 must be an integer of at least 1"),
        ({"rank": 2}, "rank=2 does not go with structure='toeplitz'.*low_rank, .*toeplitz_like"),
        ({"structure": "low_rank", "rank": 0}, "rank=0 must be an integer of at least 1"),
        ({"structure": "low_rank", "rank": 1.5}, "rank=1.5 must be an integer of at least 1"),
        ({"pool_size": 0}, "pool_size=0 must be an integer of at least 1, or None"),
        ({"pool_size": -4}, "pool_size=-4 must be an integer of at least 1, or None"),
        ({"pool_size": 8.0}, "pool_size=8.0 must be an integer of at least 1, or None"),
        ({"pool_size": True}, "pool_size=True must be an integer of at least 1, or None"),
        ({"fixed_ratio": 1.0}, r"fixed_ratio=1.0 must be a number in \[0, 1\)"),
        ({"fixed_ratio": -0.1}, r"fixed_ratio=-0.1 must be a number in \[0, 1\)"),
        ({"fixed_ratio": math.nan}, r"fixed_ratio=nan must be a number in \[0, 1\)"),
        ({"fixed_ratio": "0.5"}, r"fixed_ratio='0.5' must be a number in \[0, 1\)"),
        ({"fixed_ratio": 0.9, "pool_size": 3}, "fixed_ratio=0.9 freezes all 3 numbers.*lower it or raise pool_size"),
        ({"seed": 1.5, "pool_size": 3}, "seed=1.5 must be an integer"),
        ({"seed": 2**63, "pool_size": 3}, "seed=9223372036854775808 must be an integer"),
        ({"seed": None, "pool_size": 3}, "seed=None must be an integer"),
        ({"seed": None}, "seed=None must be an integer"),
        ({"scale": 0}, "scale=0 must be a finite number other than 0, or '1/in_features'"),
        ({"scale": math.inf}, "scale=inf must be a finite number"),
        ({"scale": 1e308}, "scale=1e.308 must be a finite number of at most 1e.18 in size: fp32 overflows beyond"),
        ({"scale": -1e19}, "scale=-1e.19 must be a finite number of at most 1e.18"),
        ({"scale": 1e-40}, "scale=1e-40 must be at least 1e-18 in size: fp32 would leave nothing of the update"),
        ({"scale": math.nan}, "scale=nan must be a finite number"),
        ({"scale": "1/out_features"}, "scale='1/out_features' must be a finite number"),
        ({"init_weights": "zeros"}, "init_weights='zeros' must be True, False, .*, 'kaiming_uniform' or 'lora'"),
        ({"init_weights": "lora"}, "init_weights='lora' is for low_rank blocks: take True for toeplitz"),
        ({"init_weights": None}, "init_weights=None must be True"),
        ({"algorithm": "factored"}, "algorithm='factored'.*toeplitz blocks: choose .*'auto'.*dense.*fft"),
        ({"algorithm": "fast"}, "algorithm='fast'"),
    ],
)
def test_wrong_arguments(kwargs: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"structure": "toeplitz", "num_splits": 3}
    with pytest.raises(ValueError, match=message):
        StructuredDelta(OUT, IN, **defaults | kwargs)


@every_family
@every_source
def test_repr_says_what_it_is(family: str, source: str) -> None:
    delta = make(family, source)
    text = repr(delta)
    block, grid = delta.structure, delta.grid
    assert f"10×7 = {grid.block_rows}×{grid.block_cols} blocks of {block.rows}×{block.cols} {family}" in text
    assert f"{delta.num_trainable} trainable" in text
    assert (f"{delta.num_fixed} frozen" in text) == ("frozen" in source)
    assert "algorithm=auto" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"out_features": 0, "in_features": 4}, "out_features=0 must be an integer of at least 1"),
        ({"out_features": 4, "in_features": -3}, "in_features=-3 must be"),
        ({"out_features": 4, "in_features": 4, "stream": "x"}, "stream='x' must be an integer"),
    ],
)
def test_impossible_sizes_and_streams(arguments, said) -> None:
    with pytest.raises(ValueError, match=said):
        StructuredDelta(**arguments, block_size=2)


def test_numbers_of_numpy_are_numbers() -> None:
    options = {"structure": "low_rank", "num_splits": 2, "rank": 2, "pool_size": 30, "fixed_ratio": 0.5, "seed": 3}
    expected = StructuredDelta(10, 14, **options, stream=7, scale=0.5, init_weights=False)
    given = {k: np.float32(v) if isinstance(v, float) else np.int64(v) for k, v in options.items() if k != "structure"}
    delta = StructuredDelta(
        np.int32(10),
        torch.tensor(14),
        structure="low_rank",
        **given,
        stream=np.uint8(7),
        scale=np.float32(0.5),
        init_weights=np.bool_(False),
    )
    assert torch.equal(delta.dense(), expected.dense())
    assert delta.identity == expected.identity
    assert torch.equal(delta.get_extra_state(), expected.get_extra_state())
    with pytest.raises(ValueError, match=r"rank=2\.0 must be an integer"):
        StructuredDelta(10, 14, structure="low_rank", num_splits=2, rank=np.float64(2))
