"""An identity in a file: read back through casts and averages, or noticed to be altered; never another one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from structune.identity import SCOPES, STARTS, Identity, Share, mark, options_mark
from structune.pool_maps import NAMES

WORDS = st.integers(-(2**63), 2**63 - 1)
SIZES = st.integers(0, 2**64 - 1)
OF_FORMAT_1 = st.builds(Identity, WORDS, WORDS, st.sampled_from(STARTS), st.integers(0, 2**32 - 1))
SHARING = st.builds(
    replace,
    OF_FORMAT_1,
    pool_map=st.sampled_from(NAMES),
    share=st.builds(Share, st.sampled_from(SCOPES[1:]), WORDS, SIZES),
    pool_size=SIZES,
)
OWN_OPTIONS = st.builds(replace, OF_FORMAT_1 | SHARING, own_options=st.integers(0, 2**32 - 1))
IDENTITIES = OF_FORMAT_1 | SHARING | OWN_OPTIONS
EXAMPLE = Identity(seed=-5, stream=2**63 - 1, init_weights="kaiming_uniform", blocks=mark("toeplitz", 4, 6, True))
SHARED = replace(EXAMPLE, share=Share("model", -7, 300), pool_size=13)

CHANGES = {
    "none": lambda d: d,
    "half": lambda d: d.half(),
    "bfloat16": lambda d: d.bfloat16(),
    "double": lambda d: d.double(),
    "integers": lambda d: d.to(torch.int16),
    "mean of three": lambda d: torch.stack([d, d, d]).mean(0),
    "sum of 200, divided": lambda d: sum([d] * 200) / 200,
    "exponential average in bfloat16": lambda d: 0.999 * d.bfloat16() + 0.001 * d.bfloat16(),
    "through float32 averages of integers": lambda d: 0.9 * d.to(torch.int32) + 0.1 * d.to(torch.int32),
}
"""What averages over equal models and casts do to a tensor."""


@pytest.mark.parametrize("change", CHANGES)
@given(identity=IDENTITIES)
def test_casts_and_averages_of_equals_leave_it_readable(change: str, identity: Identity) -> None:
    assert Identity.from_digits(CHANGES[change](identity.digits())) == identity


@given(one=IDENTITIES, other=IDENTITIES, weight=st.floats(0.05, 0.95))
def test_averages_of_different_ones_are_noticed(one: Identity, other: Identity, weight: float) -> None:
    """But for mixtures so near to one of them that this one is read."""
    if len(one.digits()) != len(other.digits()):
        return
    mixed = weight * one.digits() + (1 - weight) * other.digits()
    if any(torch.equal(mixed.round(), digits) for digits in (one.digits(), other.digits())):
        return
    with pytest.raises(ValueError, match="were averaged"):
        Identity.from_digits(mixed)


@given(identity=IDENTITIES, place=st.integers(0, 52), change=st.integers(1, 255))
def test_every_altered_digit_is_noticed(identity: Identity, place: int, change: int) -> None:
    digits = identity.digits()
    place %= len(digits)
    digits[place] = (digits[place] + change) % 256
    with pytest.raises(ValueError, match="altered"):
        Identity.from_digits(digits)


@pytest.mark.parametrize(
    ("digits", "said"),
    [
        (EXAMPLE.digits()[:-1], r"torch\.float32 of shape \(26,\) where the 27, 53 or 57 digits"),
        (EXAMPLE.digits()[None], r"of shape \(1, 27\)"),
        (EXAMPLE.digits().to(torch.complex64), r"torch\.complex64"),
        (torch.full((27,), float("nan")), "were altered"),
        (torch.full((27,), -1.0), "were altered"),
        (torch.full((27,), 256.0), "were altered"),
        (torch.zeros(27), "were altered"),
        (EXAMPLE.digits().to(torch.float8_e4m3fn).float(), "fewer than 8 significant bits"),
        ("seed=3", "'seed=3' where the 27, 53 or 57 digits"),
    ],
)
def test_what_is_no_identity(digits: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Identity.from_digits(digits)


def test_other_versions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"version 1\.9, this structune knows 3\.1: install the version that saved"):
        Identity.from_digits(replace(EXAMPLE, sampler_version=9).digits())


def test_the_digits_of_this_version() -> None:
    """Pinned: they are in people's files."""
    assert Identity(3, -2, False, mark("hankel", 16, 8, True)).digits().tolist() == [
        *(1, 1, 1),
        *(3, 0, 0, 0, 0, 0, 0, 0),
        *(254, 255, 255, 255, 255, 255, 255, 255),
        *(140, 168, 96, 84),
        *(124, 202, 197, 50),
    ]


def test_the_digits_of_a_shared_pool() -> None:
    """Pinned likewise; numbers of a matrix of their own are written as before."""
    shared = Identity(3, -2, False, mark("hankel", 16, 8, True), share=Share("module", -3, 258), pool_size=513)
    assert shared.digits().tolist() == [
        *(2, 1, 1),
        *(3, 0, 0, 0, 0, 0, 0, 0),
        *(254, 255, 255, 255, 255, 255, 255, 255),
        *(140, 168, 96, 84),
        *(0, 1),
        *(1, 2, 0, 0, 0, 0, 0, 0),
        *(253, 255, 255, 255, 255, 255, 255, 255),
        *(2, 1, 0, 0, 0, 0, 0, 0),
        *(164, 206, 28, 129),
    ]
    assert (SCOPES[:4], NAMES[:3]) == (("matrix", "module", "model", "groups"), ("index", "signed", "projection"))


def test_the_digits_of_own_options() -> None:
    """Pinned likewise: the digits of a shared pool, or none of it, and the mark of what is not the default."""
    own = Identity(3, -2, False, mark("low_rank", 16, 8, True), own_options=options_mark({"rank": 4}, {"rank": 1}))
    assert own.digits().tolist() == [
        *(3, 1, 1),
        *(3, 0, 0, 0, 0, 0, 0, 0),
        *(254, 255, 255, 255, 255, 255, 255, 255),
        *(255, 99, 61, 246),
        *[0] * 26,
        *(110, 75, 93, 135),
        *(43, 91, 114, 30),
    ]
    assert Identity.from_digits(own.digits()) == own
    assert options_mark({}, {}) is None
    default = options_mark({"rank": 1, "new": 7}, {"rank": 1, "new": 7})
    assert default == options_mark({"rank": 1}, {"rank": 1})  # an option that came later


def test_other_own_options_are_refused_where_the_file_says_them() -> None:
    """With a pool the numbers are as many whatever the rank; files of before say nothing and load as they did."""
    blocks = mark("low_rank", 4, 6, True)
    one, two = (Identity(3, 7, True, blocks, own_options=options_mark({"rank": rank}, {"rank": 1})) for rank in (1, 2))
    for configured, stored in ((one, two), (two, one)):
        with pytest.raises(ValueError, match="trained with other options of the family's own, such as a rank"):
            configured.taking_over(stored)
        assert configured.taking_over(replace(stored, own_options=None)) == configured


def test_the_part_in_a_pool_is_taken_over_but_not_its_kind() -> None:
    stored = replace(SHARED, stream=8, share=Share("model", 5, 70))
    assert SHARED.taking_over(stored) == stored
    for own, theirs, said in (
        (SHARED, EXAMPLE, "trained with pool_scope='matrix', this adapter is configured with pool_scope='model'"),
        (EXAMPLE, SHARED, "trained with pool_scope='model', this adapter is configured with pool_scope='matrix'"),
        (SHARED, replace(SHARED, share=Share("module", -7, 300)), "configure pool_scope='module'"),
        (SHARED, replace(SHARED, pool_size=14), "trained with pool_size=14, this adapter is configured with"),
    ):
        with pytest.raises(ValueError, match=said):
            own.taking_over(theirs)


def test_stream_and_start_are_taken_over_and_nothing_else() -> None:
    own = Identity(3, 7, True, mark("toeplitz", 4, 6, True))
    stored = replace(own, stream=8, init_weights=False)
    assert own.taking_over(stored) == stored
    with pytest.raises(ValueError, match="trained with seed=4, this adapter is configured with seed=3"):
        own.taking_over(replace(stored, seed=4))
    for blocks in (("hankel", 4, 6, True), ("toeplitz", 6, 4, True), ("toeplitz", 4, 6, False)):
        with pytest.raises(ValueError, match="another structure or in blocks of another size"):
            own.taking_over(replace(stored, blocks=mark(*blocks)))
