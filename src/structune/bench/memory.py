"""Bytes that a forward pass saves for backward, and the peak of what forward and backward allocate."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Saved:
    """Bytes kept for backward.

    Attributes:
        total: of all storages, each once, those of the model's own tensors left out.
        inputs: of the inputs among them, which whoever made them keeps anyway.
    """

    total: int
    inputs: int


def saved_bytes(forward: Callable[[], object], own: Iterable[Tensor], inputs: Iterable[Tensor]) -> Saved:
    """What `forward` saves for backward.

    Args:
        forward: builds the graph and returns its end, which keeps it alive.
        own: parameters and buffers of the model, which do not count.
        inputs: tensors that count separately.
    """
    left_out = {_address(tensor) for tensor in own}
    given = {_address(tensor) for tensor in inputs}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if (address := _address(tensor)) not in left_out:
            found[address] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        end = forward()
    del end
    return Saved(sum(found.values()), sum(size for address, size in found.items() if address in given))


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """The most that `call` has allocated at one time, beyond what was allocated before.

    On `cpu`, from the allocator's events in PyTorch's profiler: scratch memory inside MKL and oneDNN is not seen.
    On `cuda`, PyTorch's own peak of allocated bytes.
    """
    return _peak_cuda(call) if device == "cuda" else _peak_cpu(call)


def _peak_cpu(call: Callable[[], object]) -> int:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it announces itself on the terminal
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    results: Any = profiler.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    allocated = peak = 0
    for _, size in sorted(((event.start_ns(), event.nbytes()) for event in events), key=lambda event: event[0]):
        allocated += size
        peak = max(peak, allocated)
    return peak


def _peak_cuda(call: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
