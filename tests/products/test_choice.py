"""Which algorithm `auto` takes: on CPUs as measured, pinned; on GPUs see test_measured_choice.py, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import structune
from structune import products, structures
from structune.products.devices import DEVICES, cpu, device
from structune.structures import Structure
from structune.structures.generator import Generator, zeros
from structune.testing import algorithms, make_structure, normalised_error, sample_generators, sample_inputs

FP32, BF16 = torch.float32, torch.bfloat16

SQUARES = [((1, 1), 64), ((4, 4), 16), ((1, 1), 768), ((4, 4), 192), ((3, 3), 256), ((1, 1), 2048), ((4, 4), 512)]
GRIDS = [(grid, size, size) for grid, size in SQUARES] + [((1, 1), 4096, 1024), ((2, 2), 2048, 512), ((8, 8), 512, 512)]
"""(P, Q), M and N."""

FOLDED = ("1 fold", "1 fold", "1 dense, 65 fold", "1 dense, 65 fold")
CHAIN, CHAINS = ("1 fft, 513 fold",) * 4, ("1 fft, 65 fold",) * 4
OWN = ("1 factored",) * 4
CONVOLUTION = ("1 fft, 256 fold", "1 fft, 256 fold", "1 fft", "1 fft")
PINNED: dict[str, list[tuple[str, ...]]] = {
    "low_rank": [OWN] * len(GRIDS),
    "circulant": [
        *[CONVOLUTION] * 2,
        *[("1 fft, 256 fold", "1 fft, 384 fold", "1 fft", "1 fft")] * 3,
        *[("1 fft, 512 fold", "1 fft, 1024 fold", "1 fft", "1 fft")] * 2,
        *[("1 fft, 512 fold", "1 fft, 512 fold", "1 fft", "1 fft")] * 2,
        ("1 fft, 1024 fold", "1 fft, 2048 fold", "1 fft", "1 fft"),
    ],
    "toeplitz": [
        *[CONVOLUTION] * 5,
        *[("1 fft, 512 fold", "1 fft, 513 fold", "1 fft", "1 fft")] * 2,
        *[("1 fft, 512 fold", "1 fft, 410 fold", "1 fft", "1 fft")] * 2,
        ("1 fft, 1024 fold", "1 fft, 1026 fold", "1 fft", "1 fft"),
    ],
    "toeplitz_like": [CHAIN if grid == (1, 1) else CHAINS for grid, _, _ in GRIDS],
    "vandermonde": [FOLDED] * len(GRIDS),
}
SAME = {
    "hankel": "toeplitz",
    "hankel_like": "toeplitz_like",
    "cauchy": "vandermonde",
    "vandermonde_like": "vandermonde",
    "cauchy_like": "vandermonde",
}
CONDITIONS = [(FP32, True, True), (FP32, True, False), (FP32, False, True), (BF16, True, True)]
"""dtype, a weight to fold into, gradients: the columns above, each "from so many tokens on algorithm, …"."""


@pytest.mark.parametrize("family", [*PINNED, *SAME])
@pytest.mark.parametrize("rank", [1, 2])
def test_on_a_cpu(family: str, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As measured: the numbers of tokens at which `auto` changes its mind, and nowhere else up to a million."""
    monkeypatch.setattr(cpu, "HALF_IS_FAST", False)
    for (grid, rows, cols), expected in zip(GRIDS, PINNED[SAME.get(family, family)], strict=True):
        structure = make_structure(family, rows, cols, rank=rank)
        for (dtype, weight, grad), changes in zip(CONDITIONS, expected, strict=True):
            pairs = [change.split() for change in changes.split(", ")]
            starts = [int(tokens) for tokens, _ in pairs]
            for (start, (_, name)), end in zip(zip(starts, pairs, strict=True), [*starts[1:], 2**20 + 1], strict=True):
                inside = {start, end - 1, *(2**k for k in range(21) if start <= 2**k < end)}
                chosen = {
                    products.choose(structure, grid, tokens, dtype, "cpu", weight=weight, grad=grad)
                    for tokens in inside
                }
                assert chosen == {name}, (structure, grid, dtype, weight, grad, start)


@pytest.mark.parametrize("fast", [True, False])
def test_trained_in_bf16_on_a_cpu(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small convolutions are multiplied as matrices where that is fast, larger ones with more tokens; no others are."""
    monkeypatch.setattr(cpu, "HALF_IS_FAST", fast)

    def largest(family: str, tokens: int, divided: int = 1, dtype: torch.dtype = BF16, grad: bool = True) -> int:
        """Width of the largest square matrix that is done by `dense`; 0: none is."""
        found = 0
        for width in (128, 256, 384, 512, 768, 896, 1024, 1152, 2048):
            structure, grid = make_structure(family, width // divided, width // divided), (divided, divided)
            if products.choose(structure, grid, tokens, dtype, "cpu", weight=True, grad=grad) == "dense":
                found = width
        return found

    tokens = (16, 65, 256, 512, 4096)
    circulant = [largest("circulant", count) for count in tokens]
    assert circulant == [largest("circulant", count, 4) for count in tokens]
    assert circulant == ([0, 128, 256, 384, 384] if fast else [0] * 5)
    toeplitz = [largest("toeplitz", count) for count in tokens]
    assert toeplitz == [largest("hankel", count, 4) for count in tokens]
    assert toeplitz == ([128, 384, 512, 768, 896] if fast else [0] * 5)
    assert largest("toeplitz", 512, grad=False) == largest("toeplitz", 512, dtype=FP32) == 0
    assert largest("toeplitz", 512, dtype=torch.float16) == 0
    # A long matrix is not kept, however narrow it is.
    wide = make_structure("toeplitz", 30_522, 64)
    assert products.choose(wide, (1, 1), 4096, BF16, "cpu") == "fft"


@pytest.mark.parametrize("algorithm", ["auto", "fold"])
def test_under_autocast_products_are_in_its_dtype(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "HALF_IS_FAST", True)
    structure = make_structure("toeplitz", 16, 16)
    generators = sample_generators(structure, 4, 4, dtype=FP32)
    delta = structune.StructuredDelta(64, 64, structure="toeplitz", num_splits=4, algorithm=algorithm)
    x = sample_inputs(500, 64, dtype=FP32)
    x_Q = x.unflatten(1, (4, 16))
    chosen = {"auto": ("dense", "fft"), "fold": ("fold", "fold")}[algorithm]
    with torch.autocast("cpu", dtype=BF16):
        assert delta.resolved_algorithm(x) == chosen[0]
        assert delta.resolved_algorithm(x.double()) == chosen[1]
        assert delta(x).dtype == BF16
        assert torch.compile(delta, backend="eager", fullgraph=True)(x).dtype == BF16
        narrow = products.block_matmul(structure, x_Q, generators, algorithm)
        by_name = products.block_matmul(structure, x_Q, generators, chosen[0])
        assert products.block_matmul(structure, x_Q.double(), generators).dtype == torch.float64
    assert delta.resolved_algorithm(x) == chosen[1]
    assert torch.equal(narrow, by_name)
    exact = products.block_matmul(structure, x_Q, generators, "dense")
    assert 1e-4 < normalised_error(narrow, exact) < 1e-2


@pytest.mark.parametrize(("rows", "rank"), [(256, 16), (768, 8), (768, 64), (4096, 256)])
def test_thin_factors_stay_thin_factors_on_a_cpu(rows: int, rank: int) -> None:
    """Low rank up to where its factors have a quarter of the matrix' entries."""
    structure = make_structure("low_rank", rows, rows, rank=rank)
    for tokens in (1, 100, 10_000, 2**20):
        for weight in (True, False):
            assert products.choose(structure, (1, 1), tokens, FP32, "cpu", weight=weight) == "factored"


@dataclass(frozen=True)
class Costly(Structure):
    """A family whose own product takes as much as it is told."""

    name: ClassVar[str] = "costly"

    of_entries: ClassVar[float]
    to_and_fro: ClassVar[int] = 0

    def generators(self) -> dict[str, Generator]:
        return {"W": zeros(self.rows, self.cols)}

    def entries(self, W: Tensor) -> Tensor:
        return W

    def multiply(self, x_TQN: Tensor, W: Tensor) -> Tensor:
        return torch.einsum("pqmn,tqn->tpm", W.to(x_TQN.dtype), x_TQN)

    def multiplications(self, num_block_rows: int, num_block_cols: int) -> int:
        return int(self.of_entries * num_block_rows * num_block_cols * self.rows * self.cols)

    def moved(self, num_block_rows: int, num_block_cols: int) -> int:
        return self.to_and_fro * num_block_cols * self.cols


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`Costly`, registered; call it with its share of the entries and how often every input is moved."""
    monkeypatch.setattr(structures.registry, "_families", dict(structures.registry._families))
    structures.register(Costly)

    def of(share: float, moved: int = 0, size: int = 1024) -> Structure:
        monkeypatch.setattr(Costly, "of_entries", share, raising=False)
        monkeypatch.setattr(Costly, "to_and_fro", moved)
        return Costly(size, size)

    return of


def test_own_products_are_weighed(costly: Any) -> None:
    """Against `fold` and `dense`: by multiplications and moved numbers, and by what building costs a few tokens."""

    def chosen(share: float, moved: int = 0, tokens: int = 2**20, weight: bool = False, size: int = 1024) -> str:
        return products.choose(costly(share, moved, size), (1, 1), tokens, FP32, "cpu", weight=weight)

    assert chosen(0.9) == "factored"
    assert chosen(1.1) == "fold"
    assert chosen(0.9, weight=True) == "fold"
    assert chosen(0.24, weight=True) == "factored"
    # Moving 1,024 numbers costs as much as 65,536 multiplications, a sixteenth of 1,024².
    assert chosen(0.24, moved=1, weight=True) == "fold"
    assert chosen(0.18, moved=1, weight=True) == "factored"
    assert chosen(0.18, moved=1, weight=True, size=128) == "fold"
    # To build a matrix for 16 tokens costs more than any product with it.
    assert chosen(1.0, tokens=16, weight=True) == "factored"
    assert chosen(20.0, tokens=16, weight=True) == "fold"
    assert chosen(20.0, tokens=1, weight=True) == "factored"


def test_differences_are_taken_wide(costly: Any) -> None:
    """Two products that all but cancel, under autocast and in bf16: nothing is rounded before they have."""
    structure = costly(0.5, size=64)
    W = sample_generators(structure, 2, 2, dtype=FP32)
    start = {name: w - 1e-3 * sample_inputs(*w.shape, dtype=FP32) for name, w in W.items()}
    for dtype in (FP32, BF16):
        x = sample_inputs(5, 2, 64, dtype=dtype)
        exact = torch.einsum("pqmn,tqn->tpm", W["W"].double() - start["W"].double(), x.double())
        with torch.autocast("cpu", dtype=BF16):
            y = products.block_matmul(structure, x, W, "factored", start)
            rounded = products.block_matmul(structure, x, W, "factored").float()
            rounded -= products.block_matmul(structure, x, start, "factored").float()
        assert y.dtype == dtype
        assert normalised_error(y, exact) < (1e-3 if dtype == FP32 else 5e-3)
        assert normalised_error(rounded, exact) > 0.1


def test_a_batch_of_none() -> None:
    for kind in DEVICES:
        for family in structures.names():
            structure = make_structure(family, 64, 64)
            assert products.choose(structure, (2, 2), 0, FP32, kind, weight=True) in algorithms(structure)


def test_other_accelerators_are_taken_for_a_gpu() -> None:
    assert device("xpu") is device("mps") is device("cuda")
    assert device("cpu") is not device("cuda")


@pytest.mark.parametrize("family", structures.names())
@pytest.mark.parametrize(("dtype", "weight", "grad"), CONDITIONS)
def test_on_a_gpu(family: str, dtype: torch.dtype, weight: bool, grad: bool) -> None:
    """What can be carried out; thin factors at once; nothing folded in half precision but ΔW alone."""
    for grid, rows, cols in GRIDS:
        structure = make_structure(family, rows, cols)
        for tokens in (1, 64, 1000, 100_000):
            chosen = products.choose(structure, grid, tokens, dtype, "cuda", weight=weight, grad=grad)
            assert chosen in algorithms(structure)
            if family == "low_rank" and grad and rows > 64:
                assert chosen == "factored"


def test_small_layers_on_a_gpu_take_the_fewest_operations() -> None:
    """Below a millisecond or two it is the process that takes time: no sizes matter, only how much it has to prepare.

    1,000 tokens: 768 wide three products and a matrix that is built take the GPU 0.2 ms in fp32, and transforms less;
    8,192 wide the products take 8 ms, transforms 0.5 ms.
    """

    def chosen(size: int, dtype: torch.dtype, weight: bool = False) -> str:
        return products.choose(make_structure("circulant", size, size), (1, 1), 1000, dtype, "cuda", weight=weight)

    assert [chosen(768, dtype) for dtype in (FP32, BF16)] == ["dense", "dense"]
    assert [chosen(8192, dtype) for dtype in (FP32, BF16)] == ["fft", "fft"]
    assert chosen(768, FP32, weight=True) == "dense"
    blocks = make_structure("circulant", 1024, 1024)
    assert products.choose(blocks, (8, 8), 8000, FP32, "cuda", weight=True) == "fold"
