"""Where training starts: the raw numbers θ⁰, and whether their matrix is subtracted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from structune.numerics import draws
from structune.options import InitWeights
from structune.structures import Structure, usable


@dataclass(frozen=True)
class Start:
    """θ⁰: each generator's own start, or numbers uniform on (−bound, bound), or zeros throughout.

    Args:
        random: whether anything of θ⁰ is other than zero.
        step: what one unit of the integers is worth that θ⁰ is drawn as.
        by_generator: whether each generator has its own start; else all numbers are drawn alike.
        subtracted: whether S(θ⁰) is taken off ΔW, because it is not zero by itself.
        is_default: whether ΔW starts at zero; else the papers' random start.
    """

    random: bool
    step: float
    by_generator: bool
    subtracted: bool
    is_default: bool

    @classmethod
    def of(cls, init_weights: InitWeights, structure: Structure, *, pooled: bool, sizes: tuple[int, int]) -> Start:
        """The start that `init_weights` asks for.

        Args:
            init_weights: True, False or a name: see `StructuredDelta`.
            structure: the family of the blocks.
            pooled: whether blocks share their numbers.
            sizes: (out_features, in_features) of ΔW.

        Raises:
            ValueError: "lora", and blocks are of a family that does not start so.
        """
        if init_weights == "lora" and structure.learning_rate_as_lora is None:
            able = ", ".join(family.name for family in usable() if family.learning_rate_as_lora is not None)
            raise ValueError(f"init_weights='lora' is for {able} blocks: take True for {structure.name}")
        is_default = init_weights in (True, "lora")
        # Numbers of a pool play every generator's part at once, so they have no generator's start.
        by_generator = is_default and not pooled
        zero = by_generator and any(generator.starts_at_zero for generator in structure.generators().values())
        random = not (is_default and structure.is_linear)
        return cls(
            random=random,
            step=_bound(init_weights, structure, *sizes) / draws.ONE,
            by_generator=by_generator,
            subtracted=is_default and random and not zero,
            is_default=is_default,
        )

    def integers(self, structure: Structure, pool_size: int, seed: int) -> Tensor:
        """θ⁰ / step, int32 (pool_size,) on the CPU: integers, which no cast of a module changes.

        Where generators have their own starts, the numbers are the blocks' own, one block after the other.
        """
        position = torch.arange(pool_size, device="cpu")
        if not self.by_generator:
            return draws.uniform(position, seed)
        generators = list(structure.generators().values())
        parts = position.view(-1, structure.numel).split([math.prod(g.shape) for g in generators], dim=1)
        drawn = [g.start(part.unflatten(1, g.shape), seed) for g, part in zip(generators, parts, strict=True)]
        return torch.cat([values.flatten(1) for values in drawn], dim=1).flatten()


def _bound(init_weights: InitWeights, structure: Structure, out_features: int, in_features: int) -> float:
    """θ⁰ is uniform on (−bound, bound), or a generator's own start that many times."""
    if init_weights is True:
        return 1.0
    if init_weights == "lora":  # of LoRA's A, where a block is the whole matrix
        return math.sqrt(1 / structure.cols)
    if init_weights == "kaiming_uniform":
        return math.sqrt(1 / in_features)
    return math.sqrt(6 / (in_features + out_features))
