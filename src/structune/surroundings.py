"""What is at work around a call, and asks for more than the fastest product: transforms, exporters, onlookers."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

_PLAIN = (Tensor, Parameter)
_OLDER_VMAP = torch._C._parse_dispatch_key("VmapMode")


def transformed() -> bool:
    """Whether function transforms (`torch.func`) or forward-mode derivatives are at work.

    They know PyTorch's own operators. Ours, and functions with a backward pass of their own, need rules for them.
    """
    return bool(torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0)


def batched() -> bool:
    """Whether backward passes are at work for several gradients at once: `is_grads_batched`, `vectorize`, `gradcheck`.

    That is PyTorch's older vmap. Operators of ours that it meets are called once for each gradient.
    """
    return bool(torch._C._dispatch_tls_is_dispatch_key_included(_OLDER_VMAP))  # type: ignore[arg-type]


def traced() -> bool:
    """Whether TorchScript's tracer writes a program down."""
    return torch._C._get_tracing_state() is not None


def natively() -> bool:
    """Whether everything should be in operators that PyTorch has rules for: for transforms, for the tracer."""
    return transformed() or traced()


def exported() -> bool:
    """Whether a program is written down that shall run for other numbers of tokens, by `torch.export` or a tracer."""
    return traced() or (torch.compiler.is_compiling() and torch.compiler.is_exporting())


def translated() -> bool:
    """Whether an exported program shall run of PyTorch's own operators, without this package: TorchScript, ONNX."""
    return traced() or torch.onnx.is_in_onnx_export()


def looked_on() -> bool:
    """Whether somebody sees, and may keep, what PyTorch's operators give: a compiler, a transform, a mode of dispatch.

    Selective checkpointing is such a mode, and so are fake tensors and counters of operations.
    """
    return torch.compiler.is_compiling() or transformed() or torch._C._len_torch_dispatch_stack() > 0


def autocasts(device: torch.device) -> bool:
    """Whether autocast is at work on a device; on meta, which knows none, it is not."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def multiplied_in(x: Tensor) -> torch.dtype:
    """The dtype in which PyTorch multiplies matrices by x: its own, under autocast that one's, but for fp64."""
    if x.dtype == torch.float64 or not autocasts(x.device):
        return x.dtype
    return torch.get_autocast_dtype(x.device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Full precision while it lasts, whatever autocast would choose."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def plain(*tensors: Tensor) -> bool:
    """Whether these are numbers in memory and nothing else: no subclass, no transform's wrapper, not on meta."""
    for tensor in tensors:
        if type(tensor) not in _PLAIN or tensor.is_meta:
            return False
    return not (transformed() or batched())
