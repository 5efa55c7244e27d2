"""Where training starts: the raw numbers θ⁰, and whether their matrix is subtracted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from structune import pool
from structune.arguments import InitWeights, start_bound
from structune.structures import Structure


@dataclass(frozen=True)
class Start:
    """θ⁰, uniform on (−bound, bound) but for the generators that start at zero; or zeros throughout.

    Args:
        random: whether anything of θ⁰ is other than zero.
        step: what one unit of the integers is worth that θ⁰ is drawn as.
        zeroed: generators that are zero, in every block.
        subtracted: whether S(θ⁰) is taken off ΔW, because it is not zero by itself.
        is_default: whether ΔW starts at zero; else the papers' random start.
    """

    random: bool
    step: float
    zeroed: tuple[str, ...]
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
            ValueError: no such start.
        """
        bound = start_bound(init_weights, *sizes)
        # Own generators can be zeroed where W is linear in them; numbers of a pool play every part at once.
        zeroed = structure.linear_in if bound is None and not pooled else ()
        random = bound is not None or not structure.is_linear
        return cls(
            random=random,
            step=(1.0 if bound is None else bound) * pool.UNIFORM_STEP,
            zeroed=zeroed,
            subtracted=bound is None and random and not zeroed,
            is_default=bound is None,
        )

    def integers(self, structure: Structure, pool_size: int, seed: int) -> Tensor:
        """θ⁰ / step, int32 (pool_size,) on the CPU: integers, which no cast of a module changes.

        Where generators are zeroed, the numbers are the blocks' own, one block after the other.
        """
        values = pool.uniform_integers(pool_size, seed)
        if self.zeroed:
            per_block, offset = values.view(-1, structure.numel), 0
            for name, shape in structure.generators().items():
                size = math.prod(shape)
                if name in self.zeroed:
                    per_block[:, offset : offset + size] = 0
                offset += size
        return values
