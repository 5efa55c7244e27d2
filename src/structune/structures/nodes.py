"""Nodes, which must stay in an interval, as functions of raw numbers, which may be any."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def nodes_on_interval(raw: Tensor) -> Tensor:
    """sin(π raw / 2): any real to [−1, 1], and raw numbers uniform on (−1, 1) to Chebyshev-distributed nodes."""
    return torch.sin(raw * (math.pi / 2))


def raw_of_nodes(nodes: Tensor) -> Tensor:
    """The raw numbers in [−1, 1] of nodes on the interval.

    Raises:
        ValueError: a node lies outside.
    """
    if (outside := nodes.abs() > 1).any():
        raise ValueError(f"a node of {nodes[outside][0]:g} lies outside of [−1, 1]: no raw number is mapped there")
    return torch.asin(nodes) / (math.pi / 2)
