"""Counters against allocations of known size."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from structune.bench.budget import expected_peak
from structune.bench.memory import Saved, peak_bytes, saved_bytes
from structune.bench.suite import LayerCase

KB = 1024
W = torch.nn.Parameter(torch.randn(16, 16))


def x() -> Tensor:
    return torch.randn(16, 16, requires_grad=True)


def test_saved_bytes_of_known_graphs() -> None:
    a = x()
    # exp keeps its result; linear keeps W (for x) and x (for W).
    assert saved_bytes(lambda: a.exp(), [], [a]) == Saved(KB, 0)
    assert saved_bytes(lambda: a @ W, [W], [a]) == Saved(KB, KB)
    assert saved_bytes(lambda: a @ W, [], [a]) == Saved(2 * KB, KB)
    assert saved_bytes(lambda: a @ W.detach(), [W], [a]) == Saved(0, 0)
    assert saved_bytes(lambda: a + 1, [W], [a]) == Saved(0, 0)


def test_a_storage_counts_once_and_whole() -> None:
    a = x()
    kept = torch.randn(32, 16)
    assert saved_bytes(lambda: (a * kept[:16]) + (a * kept[16:]), [], [a]).total == 2 * KB
    assert saved_bytes(lambda: a * kept[:16], [], [a]).total == 2 * KB  # a view keeps all of it


def test_nothing_is_saved_without_a_graph() -> None:
    def forward() -> Tensor:
        with torch.no_grad():
            return x().exp() @ W

    assert saved_bytes(forward, [], []) == Saved(0, 0)


def test_peak_of_known_allocations() -> None:
    def call() -> None:
        first = torch.empty(256 * KB)  # 1 MiB
        second = torch.empty(512 * KB)  # 3 MiB together
        del first
        third = torch.empty(64 * KB)  # 2.25 MiB
        del second, third

    assert peak_bytes(call, "cpu") == 3 * 2**20
    assert peak_bytes(lambda: None, "cpu") == 0


def test_peak_does_not_count_what_was_there_before() -> None:
    before = torch.empty(2**20)
    assert peak_bytes(lambda: before.add_(1), "cpu") < KB
    assert peak_bytes(lambda: before + 1, "cpu") == pytest.approx(4 * 2**20, abs=KB)


def test_peak_on_a_gpu_is_beyond_what_was_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without a GPU: the order of what it asks of PyTorch."""
    asked: list[str] = []

    def answer(name: str, value: int | None = None) -> None:
        monkeypatch.setattr(torch.cuda, name, lambda: (asked.append(name), value)[1])

    answer("synchronize")
    answer("reset_peak_memory_stats")
    answer("memory_allocated", 100)
    answer("max_memory_allocated", 130)
    assert peak_bytes(lambda: asked.append("call"), "cuda") == 30
    assert asked == [
        "synchronize", "reset_peak_memory_stats", "memory_allocated", "call", "synchronize", "max_memory_allocated",
    ]  # fmt: skip


def test_the_profiler_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    peak_bytes(lambda: torch.empty(KB), "cpu")
    assert capfd.readouterr() == ("", "")
    assert os.environ["KINETO_LOG_LEVEL"]


def test_expected_peak_grows_in_proportion_from_the_largest_smaller_case() -> None:
    small, middle, large = (LayerCase(weight=[n, n], tokens=1) for n in (10, 20, 40))
    assert expected_peak(large, []) is None
    assert expected_peak(small, [(large, 5)]) is None
    assert expected_peak(large, [(small, 7), (middle, 880)]) == 880 * (1600 + 80) // (400 + 40)
