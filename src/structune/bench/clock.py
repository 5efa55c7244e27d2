"""How long a call takes, on a CPU and on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Clock = Callable[[Callable[[], object], int], float]
"""(call, repeats) to milliseconds a call."""


def clock(device: str) -> Clock:
    """The clock for `cpu` or `cuda`."""
    return _cuda if device == "cuda" else _wall


def _wall(call: Callable[[], object], repeats: int) -> float:
    begun = time.perf_counter()
    for _ in range(repeats):
        call()
    return 1e3 * (time.perf_counter() - begun) / repeats


def _cuda(call: Callable[[], object], repeats: int) -> float:
    """Between two events on the stream, with nothing left to do before the first."""
    begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begun.record()
    for _ in range(repeats):
        call()
    ended.record()
    torch.cuda.synchronize()
    return float(begun.elapsed_time(ended)) / repeats
