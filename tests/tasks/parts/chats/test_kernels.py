"""TRL's kernels: what is done where Triton is there and cannot compile."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch

from structune.doubt import DataWarning

kernels = pytest.importorskip("structune.tasks.parts.chats.kernels", exc_type=ImportError)


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine with Triton and a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(kernels.chunked_logprob, "_TRITON_AVAILABLE", True)
    monkeypatch.setattr(kernels.utils, "is_triton_available", lambda: True)
    kernels.use_what_compiles.cache_clear()
    yield
    kernels.use_what_compiles.cache_clear()


def test_what_does_not_compile_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(kernels, "_score_a_token", broken)
    with pytest.warns(DataWarning, match="do not compile here .*Failed to find C compiler"):
        kernels.use_what_compiles()
    assert not kernels.chunked_logprob._use_triton(torch.device("cuda"))
    assert not kernels.utils.is_triton_available()
    with warnings.catch_warnings():  # told once
        warnings.simplefilter("error")
        kernels.use_what_compiles()


def test_what_compiles_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_score_a_token", lambda device: None)
    kernels.use_what_compiles()
    assert kernels.chunked_logprob._use_triton(torch.device("cuda"))
    assert kernels.utils.is_triton_available()


def test_the_trial_is_a_call_that_trl_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is compiled: of 16 equal logits each has log-probability −log 16."""
    found = []
    function = kernels.chunked_logprob.ChunkedLogProbFunction
    original = function.apply
    monkeypatch.setattr(function, "apply", lambda *given: found.append(original(*given)))
    kernels._score_a_token(torch.device("cpu"))
    assert found[0][0].item() == pytest.approx(-math.log(16))
