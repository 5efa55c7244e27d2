"""What a kind of device must say."""

from __future__ import annotations

from typing import Protocol

import torch

from structune.products.devices.case import Case


class Device(Protocol):
    """Costs are counted in multiplications of a large matrix product in x's dtype: so long does it take."""

    chunk_bytes: int
    """Of what is worked out for tokens, how much at once: see `structune.products.chunks`."""

    strip_entries: int
    """Of a matrix that is built, how many entries at once: see `structune.products.strips`."""

    def transform_cost(self, dtype: torch.dtype) -> int:
        """Of transforming one number of a token of that dtype."""

    def choose(self, case: Case) -> str:
        """The algorithm that takes least."""
