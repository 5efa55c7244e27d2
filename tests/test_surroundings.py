"""Function transforms, batched gradients and forward-mode derivatives go through every family and every algorithm."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vmap

from structune import structures
from structune.delta import StructuredDelta
from structune.testing import algorithms, make_structure

OUT, IN, TOKENS, SAMPLES = 9, 7, 2, 3
PAIRS = [(family, a) for family in structures.names() for a in ("auto", *algorithms(make_structure(family, 5, 4)))]


def _delta(family: str, algorithm: str, seed: int = 0, **options: int) -> StructuredDelta:
    delta = StructuredDelta(
        OUT, IN, structure=family, num_splits=2, algorithm=algorithm, dtype=torch.float64, scale=0.7, **options
    )
    delta.pool.data = torch.randn(delta.pool.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return delta


def _inputs(*batch: int) -> Tensor:
    return torch.randn(*batch, TOKENS, IN, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def _product(delta: StructuredDelta) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda pool, x: functional_call(delta, {"pool": pool}, (x,))


def _matrix(delta: StructuredDelta, pool: Tensor) -> Tensor:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.delta = delta

        def forward(self) -> Tensor:
            return self.delta.dense()

    return functional_call(Dense(), {"delta.pool": pool}, ())


def _by_definition(delta: StructuredDelta, pool: Tensor, x: Tensor) -> Tensor:
    """ΔW x with ΔW built from its blocks: plain autograd, no transform."""
    return x @ _matrix(delta, pool).T


def _loss(y: Tensor) -> Tensor:
    return y.pow(3).sum()


def _close(actual: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("family", "algorithm"), PAIRS)
def test_gradients_by_sample(family: str, algorithm: str) -> None:
    """vmap(grad), without a loop over samples that PyTorch would warn of, is one gradient after the other."""
    delta, x = _delta(family, algorithm), _inputs(SAMPLES)
    pool = delta.pool.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = vmap(grad(lambda p, one: _loss(_product(delta)(p, one))), (None, 0))(pool, x)
    expected = []
    for one in x:
        leaf = pool.clone().requires_grad_()
        expected += torch.autograd.grad(_loss(_by_definition(delta, leaf, one)), leaf)
    _close(found, torch.stack(expected))


@pytest.mark.parametrize(("family", "algorithm"), PAIRS)
@pytest.mark.parametrize("of_x", [None, 0, 1])
def test_several_adapters_at_once(family: str, algorithm: str, of_x: int | None) -> None:
    """Stacked numbers, on one input or on one each, with and without gradients recorded."""
    delta = _delta(family, algorithm)
    pools = torch.stack([_delta(family, algorithm, seed).pool.detach() for seed in range(3)])
    x = _inputs() if of_x is None else _inputs(3).movedim(0, of_x)
    each = [x] * 3 if of_x is None else x.unbind(of_x)
    with torch.no_grad():
        found = vmap(_product(delta), (0, of_x))(pools, x)
    _close(found, torch.stack([_by_definition(delta, p, one) for p, one in zip(pools, each, strict=True)]))


@pytest.mark.parametrize(("family", "algorithm"), PAIRS)
def test_derivatives_of_all_orders(family: str, algorithm: str) -> None:
    """Jacobians backwards and forwards, and Hessians, by transforms and by several gradients at once."""
    delta, x = _delta(family, algorithm, pool_size=8), _inputs()
    pool, product = delta.pool.detach(), _product(delta)
    jacobian = torch.autograd.functional.jacobian(lambda p: _by_definition(delta, p, x), pool)
    _close(jacrev(product)(pool, x), jacobian)
    _close(jacfwd(product)(pool, x), jacobian)
    _close(torch.autograd.functional.jacobian(lambda p: product(p, x), pool, vectorize=True), jacobian)
    second = torch.autograd.functional.hessian(lambda p: _loss(_by_definition(delta, p, x)), pool)
    _close(hessian(lambda p: _loss(product(p, x)))(pool), second)
    _close(jacrev(jacrev(lambda p: _loss(product(p, x))))(pool), second)
    _close(torch.autograd.functional.hessian(lambda p: _loss(product(p, x)), pool, vectorize=True), second)


@pytest.mark.parametrize(("family", "algorithm"), [("toeplitz", a) for a in ("fft", "fold", "dft_gemm")])
def test_gradcheck(family: str, algorithm: str) -> None:
    """PyTorch's own check: backwards, forwards, and both for several at once."""
    delta = _delta(family, algorithm, pool_size=6)
    arguments = delta.pool.detach().clone().requires_grad_(), _inputs().requires_grad_()
    assert gradcheck(
        _product(delta),
        arguments,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


def test_tangents() -> None:
    """Forward mode of x, of the numbers and of both, as a transform and as dual numbers."""
    delta, x = _delta("hankel", "fft"), _inputs()
    pool, product = delta.pool.detach(), _product(delta)
    pool_tangent, x_tangent = torch.randn_like(pool), torch.randn_like(x)
    _, expected = jvp(lambda p, v: _by_definition(delta, p, v), (pool, x), (pool_tangent, x_tangent))
    _close(jvp(product, (pool, x), (pool_tangent, x_tangent))[1], expected)
    _close(
        jvp(lambda p: product(p, x), (pool,), (pool_tangent,))[1]
        + jvp(lambda v: product(pool, v), (x,), (x_tangent,))[1],
        expected,
    )
    with forward_ad.dual_level():
        y = product(forward_ad.make_dual(pool, pool_tangent), forward_ad.make_dual(x, x_tangent))
        _close(forward_ad.unpack_dual(y).tangent, expected)


def test_stacked_modules() -> None:
    """An ensemble of whole modules, index maps and all."""
    members = [_delta("circulant", "auto", seed, pool_size=12) for seed in range(3)]
    parameters, buffers = stack_module_state(members)
    x = _inputs()
    y = vmap(lambda p, b: functional_call(members[0], (p, b), (x,)))(parameters, buffers)
    _close(y.detach(), torch.stack([_by_definition(m, m.pool.detach(), x) for m in members]))


@pytest.mark.parametrize("family", ["circulant", "hankel", "toeplitz_like", "low_rank", "cauchy"])
def test_rows_that_are_looked_up(family: str) -> None:
    """Embeddings: gradients by sample."""
    delta, index = _delta(family, "auto"), torch.tensor([[0, 3], [8, 3], [5, 5]])

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.delta = delta

        def forward(self, index: Tensor) -> Tensor:
            return self.delta.lookup(index)

    pool, rows = delta.pool.detach(), Rows()
    found = vmap(grad(lambda p, i: _loss(functional_call(rows, {"delta.pool": p}, (i,)))), (None, 0))(pool, index)
    expected = []
    for one in index:
        leaf = pool.clone().requires_grad_()
        expected += torch.autograd.grad(_loss(_matrix(delta, leaf)[one]), leaf)
    _close(found, torch.stack(expected))


def test_nothing_is_kept_from_a_transform() -> None:
    """Spectra of numbers that a transform has wrapped must not be those of the next call."""
    delta, x = _delta("circulant", "fft"), _inputs()
    with torch.no_grad():
        expected = delta(x)
        vmap(_product(delta), (0, None))(torch.randn(2, *delta.pool.shape, dtype=torch.float64), x)
        torch.testing.assert_close(delta(x), expected)
