"""The suite notices algorithms that are wrong in value, gradients, precision, memory, or only where they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from structune.products import ALGORITHMS
from structune.structures import Structure

from .conftest import GRID, SIZE, suite


@pytest.mark.parametrize(
    "check", [suite.test_algorithms_equal_dense, suite.test_input_gradient_is_the_adjoint], ids=["equal", "adjoint"]
)
def test_missing_conjugate(monkeypatch: pytest.MonkeyPatch, check: Callable[..., None]) -> None:
    """Without it the backward pass convolves where it should correlate: wrong where released C3A layers are wrong."""
    for name in ("conj_physical", "conj_physical_"):
        monkeypatch.setattr(Tensor, name, lambda self: self)
    with pytest.raises(AssertionError, match="normalised error|⟨Wx, y⟩"):
        check("circulant", SIZE, GRID)


def test_missing_conjugate_in_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("conj_physical", "conj_physical_"):
        monkeypatch.setattr(Tensor, name, lambda self: self)
    with pytest.raises(GradcheckError):
        suite.test_gradients("toeplitz", (3, 5))


def _dense(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    return ALGORITHMS["dense"].multiply(structure, x, generators)


def _zeros(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    return _dense(structure, x, generators) * 0


def _constant_generators(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    return _dense(structure, x, {name: g.detach() * 1.0 for name, g in generators.items()}) + 0 * sum(
        g.sum() for g in generators.values()
    )


def _first_order_only(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
            ctx.save_for_backward(gradient)
            return y

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
            (W,) = ctx.saved_tensors
            return torch.einsum("pqmn,tpm->tqn", W, grad).detach(), None, None

    W = structure.dense(**generators).detach()
    result: Tensor = Once.apply(x, _dense(structure, x, generators).detach(), W)  # type: ignore[no-untyped-call]
    return result


def _rounded(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    narrow = torch.bfloat16 if x.dtype == torch.float32 else x.dtype
    return _dense(structure, x.to(narrow), generators).to(x.dtype)


def _contiguous_only(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    return _dense(structure, torch.as_strided(x, x.shape, x.contiguous().stride()), generators)


def _unwritten(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    return _dense(structure, x, generators) + torch.empty(structure.rows, dtype=x.dtype) * 0


def _in_place(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    x.detach().mul_(2)
    return _dense(structure, x, generators)


def _upcast_copy(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    return _dense(structure, x.double(), generators).to(x.dtype)


def _complex_copy(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    spectrum = torch.fft.rfft(x.float(), dim=-1)
    power: Tensor = (spectrum * spectrum.conj()).real.sum()
    return _dense(structure, x, generators) + 0 * power


def _all_gradients(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    for leaf in (x, *generators.values()):
        if leaf.is_leaf and not leaf.requires_grad:
            leaf.requires_grad_()
    return _dense(structure, x, generators)


def _same_for_every_token(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    return _dense(structure, x, generators)[:1].expand(x.shape[0], -1, -1)


def _centred_over_the_batch(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    return _dense(structure, x - x.mean(dim=0), generators)


def _narrow(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    """Works in bf16 wherever numbers are fp32, as autocast would: a difference of two such products is noise."""
    narrow = torch.bfloat16 if x.dtype == torch.float32 else x.dtype
    return torch.einsum("pqmn,tqn->tpm", structure.entries(**generators).to(narrow), x.to(narrow)).to(x.dtype)


def _coarse(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    """Rounds to four bits wherever it is."""
    scale = 16 / x.abs().amax().clamp_min(1e-30)
    return _dense(structure, (x * scale).round() / scale, generators)


def _offset(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    """Right but for a constant: nothing of it is left where a start is subtracted, unless that is one block's."""
    return _dense(structure, x, generators) + 1


def _as_wide_as_its_numbers(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    W = structure.entries(**generators)
    return torch.einsum("pqmn,tqn->tpm", W, x.to(W.dtype)).to(x.dtype)


def _breaks(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    return _dense(structure, x, generators) * (1.0 if float(x.detach().sum()) == float("inf") else 1)


def _homebound(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    return _dense(structure, x, generators) + torch.zeros(structure.rows, dtype=x.dtype)


@pytest.mark.parametrize(
    ("multiply", "check", "arguments"),
    [
        (_zeros, suite.test_algorithms_equal_dense, (SIZE, GRID)),
        (_constant_generators, suite.test_algorithms_equal_dense, (SIZE, GRID)),
        (_constant_generators, suite.test_gradients, ((3, 5),)),
        (_first_order_only, suite.test_gradients, ((3, 5),)),
        (_rounded, suite.test_precision, (SIZE, GRID, torch.float32)),
        (_contiguous_only, suite.test_memory_layout_does_not_matter, (SIZE, GRID)),
        (_unwritten, suite.test_reads_only_what_was_written, (SIZE, GRID)),
        (_in_place, suite.test_reads_only_what_was_written, (SIZE, GRID)),
        (_upcast_copy, suite.test_saves_little_for_backward, (SIZE, torch.bfloat16)),
        (_complex_copy, suite.test_saves_little_for_backward, (SIZE, torch.bfloat16)),
        (_all_gradients, suite.test_computes_only_the_gradients_asked_for, ((3, 5),)),
        (_same_for_every_token, suite.test_algorithms_equal_dense, (SIZE, GRID)),
        (_centred_over_the_batch, suite.test_leading_dimensions, (SIZE, GRID)),
        (_narrow, suite.test_autocast, (SIZE, torch.bfloat16)),
        (_coarse, suite.test_autocast, (SIZE, torch.bfloat16)),
        (_offset, suite.test_algorithms_equal_dense, (SIZE, GRID)),
        (_as_wide_as_its_numbers, suite.test_dtypes_mix, ((3, 5), torch.float32, torch.bfloat16)),
        (_breaks, suite.test_compiles_whole, ()),
        (_homebound, suite.test_products_stay_on_their_device, ((3, 5),)),
    ],
)
def test_wrong_algorithm(
    algorithm: Callable[..., None],
    multiply: Callable[..., Tensor],
    check: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    check("toeplitz", *arguments)
    algorithm(multiply)
    with pytest.raises((AssertionError, RuntimeError)):
        check("toeplitz", *arguments)


def test_a_tolerance_that_accepts_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structune.testing.conformance.products.TRANSFORM_FLOOR", 2e7)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        suite.test_mistakes_are_noticed("toeplitz", SIZE, GRID, torch.float32)
