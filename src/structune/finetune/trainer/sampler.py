"""The order of training examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

_BATCHES_TOGETHER = 8


class SimilarLengths(Sampler[int]):
    """Random order in which the examples of a batch have similar lengths, so that little of it is padding.

    The examples are shuffled, cut into pieces of 8 batches, sorted by length within each, and the batches of all pieces
    shuffled. The order is a function of seed and epoch alone, so a resumed run finds it again.

    Args:
        lengths: tokens of each example.
        batch_size: examples in a batch.
        seed: of the order.
        epoch: the present one, asked for when an epoch begins.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, epoch: Callable[[], int]) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch())
        shuffled = torch.randperm(len(self.lengths), generator=generator).tolist()
        pieces = [
            sorted(piece, key=lambda example: self.lengths[example])
            for piece in _cut(shuffled, self.batch_size * _BATCHES_TOGETHER)
        ]
        batches = [batch for piece in pieces for batch in _cut(piece, self.batch_size)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]  # at most one, and it stays last
        for number in torch.randperm(len(whole), generator=generator).tolist():
            yield from whole[number]
        for batch in rest:
            yield from batch


class Shares(Sampler[list[int]]):
    """One process's part of every batch: the batches are those of one process, each cut into as many parts.

    Of a batch of k examples process r has those from ⌊r k / N⌋ to ⌊(r + 1) k / N⌋. Where that is none, it has one that
    does not count, named by −1 − index, so that it takes part in the step all the same.

    Args:
        order: of the examples.
        batch_size: examples in a whole batch.
        rank: the process.
        count: N, how many there are.
    """

    def __init__(self, order: Sampler[int], batch_size: int, rank: int, count: int) -> None:
        self.order, self.batch_size, self.rank, self.count = order, batch_size, rank, count

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)  # type: ignore[arg-type]  # samplers of examples have a length

    def __iter__(self) -> Iterator[list[int]]:
        for batch in _cut(list(self.order), self.batch_size):
            first, last = (place * len(batch) // self.count for place in (self.rank, self.rank + 1))
            yield batch[first:last] or [-1 - batch[0]]


class Turns(Sampler[list[int]]):
    """Every N-th batch of examples in their order, as many for each of N processes; what is over begins from the front.

    Args:
        examples: how many there are.
        batch_size: examples in a batch; the last may have fewer.
        rank: the process.
        count: N, how many there are.
    """

    def __init__(self, examples: int, batch_size: int, rank: int, count: int) -> None:
        self.batches = _cut(list(range(examples)), batch_size)
        self.rank, self.count = rank, count

    def __len__(self) -> int:
        return -(-len(self.batches) // self.count)

    def __iter__(self) -> Iterator[list[int]]:
        for turn in range(len(self)):
            yield self.batches[(turn * self.count + self.rank) % len(self.batches)]


class Uncounted(dict[str, Any]):
    """An example that takes part in a step and does not count."""


class Counted(Sequence[Mapping[str, Any]]):
    """Examples; one that is asked for as −1 − index does not count."""

    def __init__(self, examples: Sequence[Mapping[str, Any]]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        return self.examples[index] if index >= 0 else Uncounted(self.examples[-1 - index])


class Shuffled(Sampler[int]):
    """The random order in which the Trainer takes examples in one process, by seed and epoch alone."""

    def __init__(self, examples: int, seed: int, epoch: Callable[[], int]) -> None:
        self.examples, self.seed, self.epoch = examples, seed, epoch

    def __len__(self) -> int:
        return self.examples

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch())
        yield from torch.randperm(self.examples, generator=generator).tolist()


def _cut(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
