"""The transforms behind `fft`: which are made, how long they are, and every geometry that a convolution can have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from structune import structures
from structune.products import block_matmul
from structune.products.geometry import fast_length, transformable
from structune.structures import Convolution, Generator, Structure
from structune.structures.generator import zeros
from structune.testing import make_structure, sample_generators, sample_inputs

T, P, Q = 5, 2, 3
FAMILIES = [name for name in structures.names() if make_structure(name, 4, 4).has_convolutions]


class _Transforms:
    """Counts the real vectors that pass through each function of `torch.fft`."""

    def __enter__(self) -> _Transforms:
        self.vectors: dict[str, int] = {}
        self.complex_lengths: set[int] = set()
        self.patch = pytest.MonkeyPatch()
        for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft"):
            self.patch.setattr(torch.fft, name, self._counting(name, getattr(torch.fft, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def _counting(self, name: str, transform: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            self.vectors[name] = self.vectors.get(name, 0) + x.numel() // x.shape[-1]
            if name in ("fft", "ifft"):
                self.complex_lengths.add(x.shape[-1])
            return transform(x, *args, **kwargs)

        return counted


def _case(name: str, rows: int = 8, cols: int = 8) -> tuple[Structure, Tensor, dict[str, Tensor]]:
    structure = make_structure(name, rows, cols)
    return structure, sample_inputs(T, Q, cols), sample_generators(structure, P, Q)


def test_families() -> None:
    assert FAMILIES == ["circulant", "hankel", "hankel_like", "toeplitz", "toeplitz_like"]


@pytest.mark.parametrize("name", ["circulant", "toeplitz", "hankel"])
@pytest.mark.parametrize("cols", [7, 8])
def test_a_grid_shares_its_transforms(name: str, cols: int) -> None:
    """Q forward and P inverse transforms per token, not P·Q; for the input gradient the other way round."""
    structure, x, generators = _case(name, 8, cols)
    x.requires_grad_()
    with _Transforms() as forward:
        y = block_matmul(structure, x, generators, "fft")
    assert forward.vectors == {"rfft": T * Q + P * Q, "irfft": T * P}
    with _Transforms() as backward:
        y.sum().backward()
    assert backward.vectors == {"rfft": T * P + P * Q, "irfft": T * Q}


@pytest.mark.parametrize("name", ["circulant", "toeplitz", "hankel"])
def test_gradient_of_generators_alone(name: str) -> None:
    """One inverse transform for each kernel, summed over tokens before; nothing for x."""
    structure, x, generators = _case(name)
    y = block_matmul(structure, x, {g: v.requires_grad_() for g, v in generators.items()}, "fft")
    with _Transforms() as backward:
        y.sum().backward()
    assert backward.vectors == {"rfft": T * P + T * Q, "irfft": P * Q}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(7, 12), (12, 12), (13, 13), (5, 3)])
def test_no_complex_transform_of_real_vectors(name: str, size: tuple[int, int]) -> None:
    """Neither forward nor backward, for sizes that are odd, even, prime and rectangular; negacyclic ones are packed."""
    structure, x, generators = _case(name, *size)
    with _Transforms() as transforms:
        y = block_matmul(structure, x.requires_grad_(), {g: v.requires_grad_() for g, v in generators.items()}, "fft")
        y.square().sum().backward()
    packed = {"fft", "ifft"} if name == "toeplitz_like" and max(size) == 12 else set()
    assert transforms.vectors.keys() == {"rfft", "irfft"} | packed
    assert transforms.complex_lengths <= {6}


@given(n=st.integers(1, 5000))
def test_fast_length(n: int) -> None:
    """The smallest number from n on that divides a power of 30."""
    expected = next(m for m in range(n, 2 * n + 1) if 30 ** math.ceil(math.log2(m) + 1) % m == 0)
    assert fast_length(n) == expected


def _definition(c: Convolution, x: Tensor) -> list[float]:
    """y_i = Σ_j kernel[i + offset − j] x_j by plain loops."""
    kernel, values = c.kernel.tolist(), x.tolist()
    if c.reverse:
        values = values[::-1]
    result = []
    for i in range(c.rows):
        total = 0.0
        for j in range(c.cols):
            k = i + c.offset - j
            turns, k = divmod(k, c.period) if c.period is not None else (0, k)
            total += c.wrap**turns * kernel[k] * values[j] if 0 <= k < len(kernel) else 0.0
        result.append(total)
    return result


def _multiply(c: Convolution, x: Tensor, algorithm: str = "fft") -> Tensor:
    class Single(Structure):
        """A block that is the convolution at hand."""

        name = "single"

        def generators(self) -> dict[str, Generator]:
            return {"k": zeros(*c.kernel.shape)}

        def entries(self, k: Tensor) -> Tensor:
            raise NotImplementedError

        def convolutions(self, k: Tensor) -> tuple[Convolution, ...]:
            return (replace(c, kernel=k),)

    return block_matmul(Single(c.rows, c.cols), x[None, None], {"k": c.kernel[None, None]}, algorithm).flatten()


sizes = st.integers(1, 9)


@given(rows=sizes, cols=sizes, length=sizes, offset=st.integers(0, 12), reverse=st.booleans())
def test_plain_convolutions(rows: int, cols: int, length: int, offset: int, reverse: bool) -> None:
    """Kernels of any length, outputs from any offset on: zero where the kernel has ended."""
    convolution = Convolution(sample_inputs(length), rows, cols, offset=offset, reverse=reverse)
    x = sample_inputs(cols, seed=7)
    assert _multiply(convolution, x).tolist() == pytest.approx(_definition(convolution, x), abs=1e-12)


def _check(convolution: Convolution, algorithm: str) -> None:
    """Against plain loops: the product, the unrolled form, and both gradients, by the adjoint identity."""
    x = sample_inputs(convolution.cols, seed=7)
    expected = _definition(convolution, x)
    assert _definition(convolution.unrolled(), x) == pytest.approx(expected, abs=1e-12)
    assert convolution.unrolled().period is None
    y = _multiply(convolution, x, algorithm)
    assert y.tolist() == pytest.approx(expected, abs=1e-12)
    grad, kernel_step, x_step = (sample_inputs(*v.shape, seed=8) for v in (y, convolution.kernel, x))
    convolution.kernel.requires_grad_()
    found = torch.autograd.grad(_multiply(convolution, x.requires_grad_(), algorithm), (convolution.kernel, x), grad)
    moved = _definition(replace(convolution, kernel=kernel_step), x.detach()), _definition(convolution, x_step)
    for gradient, step, change in zip(found, (kernel_step, x_step), moved, strict=True):
        assert float(gradient @ step) == pytest.approx(float(grad @ torch.tensor(change, dtype=grad.dtype)), abs=1e-12)


@given(
    rows=sizes,
    cols=sizes,
    period=sizes,
    offset=st.integers(0, 12),
    reverse=st.booleans(),
    wrap=st.sampled_from([1, -1]),
    algorithm=st.sampled_from(["fft", "dft_gemm"]),
)
def test_periodic_convolutions(
    rows: int, cols: int, period: int, offset: int, reverse: bool, wrap: int, algorithm: str
) -> None:
    """Cyclic and negacyclic, of any period, also one that is shorter than inputs, outputs or offset."""
    _check(Convolution(sample_inputs(period), rows, cols, offset, period, reverse, wrap), algorithm)


@pytest.mark.parametrize("algorithm", ["fft", "dft_gemm"])
@pytest.mark.parametrize("wrap", [1, -1])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("period", "rows", "cols", "offset"), [(2, 1, 2, 1), (6, 6, 5, 0), (8, 5, 7, 3), (160, 150, 160, 9)]
)
def test_periods_that_are_transformed_as_they_are(
    period: int, rows: int, cols: int, offset: int, reverse: bool, wrap: int, algorithm: str
) -> None:
    """Even and fast, and nothing reaches beyond: no padding; 160 takes `dft_gemm` two products."""
    convolution = Convolution(sample_inputs(period), rows, cols, offset, period, reverse, wrap)
    assert transformable(convolution) is convolution
    _check(convolution, algorithm)
