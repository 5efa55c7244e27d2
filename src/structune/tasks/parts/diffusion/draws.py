"""Random draws that are functions of what they are for: the same in a resumed run, in any process, for any method."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(*names: object) -> torch.Generator:
    """Random numbers that belong to these names."""
    digest = hashlib.blake2b("/".join(map(str, names)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def share_and_noise(shape: Sequence[int], normal: bool, *names: object) -> tuple[Tensor, Tensor]:
    """A share of the noise levels, and noise, for these names.

    The share is of the uniform distribution, or of the logit-normal one (Esser et al. 2024, section 3.1): the sigmoid
    of a normal number.
    """
    numbers = generator(*names)
    share = torch.randn((), generator=numbers).sigmoid() if normal else torch.rand((), generator=numbers)
    return share, torch.randn(tuple(shape), generator=numbers)


def number(*names: object) -> int:
    """A whole number from 0 to 2**31 − 1 that belongs to these names."""
    return int(torch.randint(2**31, (), generator=generator(*names)))
