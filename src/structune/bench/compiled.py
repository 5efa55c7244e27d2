"""Compiling one module among many of its class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def compiled(module: nn.Module) -> Callable[..., Any]:
    """`torch.compile(fullgraph=True)` of a module.

    Dynamo keeps what it compiled by code object and gives up after a few of them. A code object of its own lets any
    number of layers of one class be compiled side by side.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return module(*args, **kwargs)

    call.__code__ = call.__code__.replace()
    return torch.compile(call, fullgraph=True)
