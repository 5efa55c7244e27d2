"""A function that keeps its arguments alone gives what the function gives, and keeps nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from structune.numerics.recomputed import recomputed
from structune.testing import sample_inputs


def between(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Something whose backward pass wants what lies between, and complex numbers."""
    return torch.fft.irfft(torch.fft.rfft(x * a), x.shape[-1]).sin() * b


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    return tuple(sample_inputs(*shape, seed=k).requires_grad_() for k, shape in enumerate([(5, 8), (8,), (8,)]))


def test_derivatives_are_those_of_the_function() -> None:
    for function in (between, lambda *tensors: recomputed(between, *tensors)):
        torch.autograd.gradcheck(function, arguments())
        torch.autograd.gradgradcheck(function, arguments())
    given = arguments()
    y, plain = recomputed(between, *given), between(*given)
    assert torch.equal(y, plain)
    cotangent = sample_inputs(5, 8, seed=7)
    for found, expected in zip(
        torch.autograd.grad(y, given, cotangent), torch.autograd.grad(plain, given, cotangent), strict=True
    ):
        assert torch.equal(found, expected)


def test_nothing_else_is_kept() -> None:
    given = arguments()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        recomputed(between, *given)
    assert [t.data_ptr() for t in kept] == [t.data_ptr() for t in given]


def test_what_needs_no_gradient_gets_none() -> None:
    x, a, b = arguments()
    recomputed(between, x.detach(), a, b.detach()).sum().backward()
    assert x.grad is None
    assert b.grad is None
    assert a.grad is not None
    assert a.grad.any()


def test_several_gradients_at_once_and_function_transforms() -> None:
    x, a, b = arguments()
    plain = torch.func.jacrev(between, argnums=1)(x, a, b)
    assert plain.any()
    for found in (
        torch.func.jacrev(lambda a: recomputed(between, x, a, b))(a),
        torch.func.jacfwd(lambda a: recomputed(between, x, a, b))(a),
        torch.autograd.functional.jacobian(lambda a: recomputed(between, x, a, b), a, vectorize=True),
    ):
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-14)
