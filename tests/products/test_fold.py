"""`fold`: W + ΔW in one product, made in strips and never kept."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from structune import structures
from structune.products import fold, strips
from structune.products.chain import Chain
from structune.products.devices import DEVICES
from structune.products.folding import gradient_by_transforms
from structune.structures import Structure
from structune.testing import assert_close, make_structure, sample_generators, sample_inputs

T, P, Q = 6, 3, 2
SIZES = [((4, 5), (12, 10)), ((4, 5), (9, 10)), ((4, 6), (12, 7)), ((1, 1), (3, 2)), ((6, 3), (13, 4))]
"""Block sizes, and what the grid of 3 × 2 of them is cropped to."""

CHAINS = [family for family in structures.names() if make_structure(family, 2, 2).has_convolutions]
WAYS = [(family, "products") for family in structures.names()]
WAYS += [(family, way) for family in CHAINS for way in ("transforms", "transforms of two tokens")]
"""Families, and how the gradient of their generators is found."""

Case = tuple[Structure, dict[str, Tensor], dict[str, Tensor], Tensor, Tensor, Tensor]


def _case(family: str, size: tuple[int, int], features: tuple[int, int]) -> Case:
    structure = make_structure(family, *size)
    generators = {name: g.requires_grad_() for name, g in sample_generators(structure, P, Q).items()}
    start = sample_generators(structure, P, Q, seed=5)
    x, bias = sample_inputs(T, features[1]).requires_grad_(), sample_inputs(features[0], seed=4).requires_grad_()
    return structure, generators, start, x, sample_inputs(*features, seed=3).requires_grad_(), bias


def _definition(
    structure: Structure,
    generators: Mapping[str, Tensor],
    start: Mapping[str, Tensor] | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: float,
) -> Tensor:
    blocks = structure.dense(**generators)
    if start is not None:
        blocks = blocks - structure.dense(**start)
    delta = torch.cat([torch.cat(list(row), dim=1) for row in blocks], dim=0)
    return x @ (weight + scale * delta[: weight.shape[0], : weight.shape[1]]).T + bias


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cheaper way to the gradient is that one."""
    cost = 1e9 if request.param == "products" else 0
    monkeypatch.setattr(type(DEVICES["cpu"]), "transform_cost", lambda self, dtype: cost)
    if request.param == "transforms of two tokens":
        for module in ("convolve", "chain"):
            monkeypatch.setattr(sys.modules[f"structune.products.{module}"], "chunk_size", lambda *_: 2)


@pytest.mark.parametrize(("family", "way"), WAYS, indirect=["way"])
@pytest.mark.parametrize(("size", "features"), SIZES)
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("strip_rows", [1, 3, 1024])
def test_value_and_gradients(
    family: str,
    size: tuple[int, int],
    features: tuple[int, int],
    centred: bool,
    strip_rows: int,
    way: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cropped, centred, scaled, whatever the strips' height: the definition's result and its five kinds of gradient."""
    monkeypatch.setattr(DEVICES["cpu"], "strip_entries", strip_rows * Q * size[1])
    structure, generators, start, x, weight, bias = _case(family, size, features)
    given = start if centred else None
    y = fold(structure, x, generators, given, weight=weight, bias=bias, out_features=features[0], scale=0.5)
    expected = _definition(structure, generators, given, x, weight, bias, 0.5)
    inputs = {"x": x, "weight": weight, "bias": bias, **generators}
    grad = sample_inputs(*y.shape, seed=8)
    results = [
        {"y": out.detach()} | dict(zip(inputs, torch.autograd.grad(out, tuple(inputs.values()), grad), strict=True))
        for out in (y, expected)
    ]
    assert_close(*results, 1e-12, family)


@pytest.mark.parametrize(("family", "way"), WAYS, indirect=["way"])
@pytest.mark.parametrize("centred", [False, True])
def test_second_derivatives(family: str, centred: bool, way: None) -> None:
    """Those of the definition: the derivatives of a mixture of all first ones, by everything that these depend on."""
    structure, generators, start, x, weight, bias = _case(family, (2, 3), (5, 6))
    given = start if centred else None
    grad = sample_inputs(T, 5, seed=8).requires_grad_()
    inputs = {"x": x, "weight": weight, "bias": bias, **generators}
    results = []
    for y in (
        fold(structure, x, generators, given, weight=weight, bias=bias, out_features=5, scale=0.5),
        _definition(structure, generators, given, x, weight, bias, 0.5),
    ):
        first = torch.autograd.grad(y, tuple(inputs.values()), grad, create_graph=True)
        mixture = sum((one * sample_inputs(*one.shape, seed=9)).sum() for one in first)
        by = {name: one for name, one in {**inputs, "grad": grad}.items() if name != "bias"}  # y is linear in it
        second = torch.autograd.grad(mixture, tuple(by.values()), materialize_grads=True)
        results.append(dict(zip(by, second, strict=True)))
    assert min(float(found.abs().max()) for name, found in results[0].items() if name in ("x", "weight", "grad")) > 0.1
    assert_close(*results, 1e-12, family)


@pytest.mark.parametrize(("family", "way"), WAYS, indirect=["way"])
def test_keeps_nothing_of_its_own(family: str, way: None) -> None:
    """Saved for the backward pass are x, W and b themselves and generators, no matrix and no copy."""
    structure, generators, start, x, weight, bias = _case(family, (40, 50), (120, 100))
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        fold(structure, x, generators, start, weight=weight, bias=bias, out_features=120)
    known = {t.untyped_storage().data_ptr() for t in (x, weight, bias)}
    own = [t for t in saved if t.untyped_storage().data_ptr() not in known]
    assert known & {t.untyped_storage().data_ptr() for t in saved}
    assert max(t.numel() for t in own) <= 2 * max(g.numel() for g in generators.values())
    assert not any(t.is_complex() for t in own)


def _chain(family: str, size: int, num_splits: int = 1, rank: int = 1) -> Chain:
    structure = make_structure(family, size // num_splits, size // num_splits, rank=rank)
    return Chain.of(structure, sample_generators(structure, num_splits, num_splits))


@pytest.mark.parametrize("family", CHAINS)
@pytest.mark.parametrize("num_splits", [1, 2])
def test_transformed_numbers(family: str, num_splits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many per token as really pass through `torch.fft`, beside those of the kernels."""
    numbers = 0

    def counting(name: str) -> None:
        original = getattr(torch.fft, name)

        def counted(x: Tensor, *args: int, **kwargs: int) -> Tensor:
            nonlocal numbers
            y: Tensor = original(x, *args, **kwargs)
            real = max(x.shape[-1], y.shape[-1]) if "r" in name else 2 * x.shape[-1]
            numbers += x.shape[:-1].numel() * real
            return y

        monkeypatch.setattr(torch.fft, name, counted)

    chain = _chain(family, 16, num_splits)
    for name in ("fft", "ifft", "rfft", "irfft"):
        counting(name)
    found = []
    for tokens in (3, 8):
        numbers = 0
        x = sample_inputs(tokens, num_splits, 16 // num_splits)
        chain.kernel_gradients(x, x, "fft")
        found.append(numbers)
    assert found[1] - found[0] == 5 * chain.transformed()
    assert chain.entries() == 256


def test_cheaper_way_to_the_gradient() -> None:
    """A single convolution at once, a chain of two only for large blocks."""

    def by_transforms(*chain: Any, **rank: int) -> bool:
        return gradient_by_transforms(_chain(*chain, **rank), DEVICES["cpu"].transform_cost(torch.float32))

    assert all(by_transforms(family, 768, 4) for family in ("circulant", "toeplitz", "hankel"))
    assert not any(by_transforms(family, 768, 1, rank=2) for family in ("toeplitz_like", "hankel_like"))
    assert all(by_transforms(family, 2048, 1, rank=2) for family in ("toeplitz_like", "hankel_like"))
    assert not by_transforms("circulant", 16)


@pytest.mark.parametrize("family", ["low_rank", "toeplitz_like", "hankel_like"])
def test_differences_do_not_cancel(family: str) -> None:
    """S(θ) − S(θ⁰) for a small step, in fp32: as exact as one block, where two blocks' difference has lost digits."""
    structure = make_structure(family, 101, 101)
    start = {name: g.float() for name, g in sample_generators(structure).items()}
    step = sample_generators(structure, seed=1)
    moved = {name: g + 1e-4 * step[name].float() for name, g in start.items()}
    exact = structure.dense(**{n: g.double() for n, g in moved.items()}) - structure.dense(
        **{n: g.double() for n, g in start.items()}
    )
    merged = structure.difference(moved, start)
    assert merged is not None
    bigger, generators = merged
    assert_close({"W": bigger.dense(**generators)}, {"W": exact}, 2e-6, family)
    with pytest.raises(AssertionError, match="normalised error"):
        assert_close({"W": structure.dense(**moved) - structure.dense(**start)}, {"W": exact}, 2e-4, family)


ENTRIES = 1 << 20


def test_strips_cover_every_row_once() -> None:
    for block_rows in (1, 3, 7, 1024, 1500, 4096):
        for num_block_rows in (1, 2, 5):
            for missing in {0, 1, block_rows - 1}:
                out_features = num_block_rows * block_rows - missing
                pieces = list(strips.strips(num_block_rows, block_rows, out_features, cols=1024, most_entries=ENTRIES))
                rows = [row for piece in pieces for row in range(piece.rows.start, piece.rows.stop)]
                assert rows == list(range(out_features))
                assert all((piece.rows.stop - piece.rows.start) * 1024 <= ENTRIES for piece in pieces)
                for piece in pieces:
                    whole = piece.inside == slice(0, block_rows)
                    assert whole or piece.blocks.stop - piece.blocks.start == 1
                    assert piece.rows.start == piece.blocks.start * block_rows + piece.inside.start
