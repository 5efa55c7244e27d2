"""In which dtype a product is worked out."""

from __future__ import annotations

import torch
from torch import Tensor


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """fp64 if any tensor is fp64, else fp32: blocks are built and transformed in nothing narrower."""
    return torch.float64 if torch.float64 in [t.dtype for t in tensors] else torch.float32
