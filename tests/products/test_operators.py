"""Our operators as PyTorch's own: its checks of them, compiled graphs without breaks, no compilation per batch."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor

from structune import structures
from structune.products import ALGORITHMS, block_matmul
from structune.products.chain import Chain
from structune.products.folding import Folded
from structune.products.operator import NAMES
from structune.structures import Structure
from structune.testing import algorithms, assert_close, make_structure, sample_generators, sample_inputs

T, P, Q, M, N = 6, 2, 3, 5, 7


def _fold_arguments(name: str, *, by_transforms: bool) -> tuple[Any, ...]:
    """Of the operator `fold`, for a matrix that is cropped, with everything that it can be given."""
    structure = make_structure(name, M, N)
    generators = list(sample_generators(structure, P, Q).values())
    start = list(sample_generators(structure, P, Q, seed=5).values())
    kernels, geometries = [], []
    if by_transforms:
        chain = Chain.of(structure, dict(zip(structure.shapes, generators, strict=True)))
        kernels, geometries = list(chain.kernels), list(chain.geometries)
    out_features, in_features = P * M - 1, Q * N - 2
    x, weight = sample_inputs(T, in_features), sample_inputs(out_features, in_features, seed=3)
    for trained in (x, weight, *(kernels or generators)):
        trained.requires_grad_()
    bias = sample_inputs(out_features, seed=4).requires_grad_()
    return x, weight, bias, *Folded(structure, generators, start, kernels, geometries, out_features, 0.5).pack()


def _arguments(operator: str) -> list[tuple[Any, ...]]:
    generators = sample_generators(make_structure("toeplitz", M, N), P, Q)
    chain = Chain.of(make_structure("toeplitz", M, N), generators)
    kernel, geometry = chain.kernels[0].requires_grad_(), chain.geometries[0].numbers()
    x, grad = sample_inputs(T, 1, Q, N).requires_grad_(), sample_inputs(T, 1, P, M).requires_grad_()
    folds = [_fold_arguments("cauchy", by_transforms=False), _fold_arguments("toeplitz", by_transforms=True)]
    output = sample_inputs(T, P * M - 1, seed=6)
    return {
        "convolve": [(x, kernel, geometry, "fft")],
        "adjoint": [(grad, kernel, geometry, "fft")],
        "correlate": [(grad, x, geometry, "fft")],
        "fold": folds,
        "fold_input_gradient": [(output, *_detached((f[0], f[1], f[3])), *f[4:]) for f in folds],
        "fold_gradients": [(output, *_detached((f[0], f[3])), *f[4:]) for f in folds],
    }[operator]


def _detached(arguments: tuple[Any, ...]) -> list[Any]:
    return [[a.detach() for a in arg] if isinstance(arg, list) else arg.detach() for arg in arguments]


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name: str) -> None:
    """Schema, autograd registration, fake tensors, and tracing with static and dynamic shapes."""
    operator = getattr(torch.ops.structune, name).default
    for arguments in _arguments(name):
        assert set(torch.library.opcheck(operator, arguments).values()) == {"SUCCESS"}


PAIRS = [(family, a) for family in structures.names() for a in algorithms(make_structure(family, M, N))]


def _compiled(structure: Structure, algorithm: str, names: list[str], backend: str) -> Any:
    def product(x: Tensor, *numbers: Tensor) -> Tensor:
        return block_matmul(structure, x, dict(zip(names, numbers, strict=True)), algorithm)

    torch._dynamo.reset()
    return torch.compile(product, fullgraph=True, backend=backend)


def _check_compiled(family: str, algorithm: str, backend: str, rows: int = M, cols: int = N) -> None:
    structure = make_structure(family, rows, cols)
    generators = {name: g.requires_grad_() for name, g in sample_generators(structure, P, Q).items()}
    compiled = _compiled(structure, algorithm, list(generators), backend)
    for tokens in (4, 6, 9):
        x = sample_inputs(tokens, Q, cols).requires_grad_()
        inputs = (x, *generators.values())
        torch._dynamo.mark_dynamic(x, 0)
        with torch.compiler.set_stance("fail_on_recompile" if tokens == 9 else "default"):
            y = compiled(*inputs)
        expected = block_matmul(structure, x, generators, algorithm)
        gradients = [torch.autograd.grad(out.square().sum(), inputs) for out in (y, expected)]
        for actual, wanted in zip((y, *gradients[0]), (expected, *gradients[1]), strict=True):
            assert_close({algorithm: actual.detach()}, {algorithm: wanted.detach()}, 1e-12, family)


@pytest.mark.parametrize("size", [4, 6])
@pytest.mark.parametrize(("family", "algorithm"), [p for p in PAIRS if p[1] in ("fft", "dft_gemm")])
def test_compiled_with_periods(family: str, algorithm: str, size: int) -> None:
    """Blocks whose period is a fast length are cyclic and negacyclic convolutions as they stand."""
    _check_compiled(family, algorithm, "aot_eager", size, size)


@pytest.mark.skipif(shutil.which("g++") is None, reason="the default compiler backend needs a C++ compiler")
@pytest.mark.parametrize(("family", "algorithm"), [("circulant", "fold"), ("hankel", "fft"), ("toeplitz_like", "fold")])
def test_compiles_to_machine_code(family: str, algorithm: str) -> None:
    _check_compiled(family, algorithm, "inductor")


def test_every_algorithm_is_compiled() -> None:
    assert {algorithm for _, algorithm in PAIRS} == set(ALGORITHMS)
