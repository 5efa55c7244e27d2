"""The order of training examples: random, complete, and of similar lengths within a batch."""

from __future__ import annotations

import random

from structune.finetune.trainer.sampler import SimilarLengths

LENGTHS = random.Random(0).choices(range(5, 65), k=330)


def padded(order: list[int]) -> int:
    batches = [order[start : start + 16] for start in range(0, len(order), 16)]
    return sum(max(LENGTHS[example] for example in batch) * len(batch) for batch in batches)


def test_every_example_once_and_little_padding() -> None:
    order = list(SimilarLengths(LENGTHS, 16, seed=0, epoch=lambda: 0))
    assert sorted(order) == list(range(330))
    shuffled = random.Random(1).sample(range(330), 330)
    assert padded(order) - sum(LENGTHS) < 0.3 * (padded(shuffled) - sum(LENGTHS))


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return list(SimilarLengths(LENGTHS, 16, seed, lambda: epoch))

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_long_batches_do_not_come_at_the_end() -> None:
    order = list(SimilarLengths(LENGTHS, 16, seed=0, epoch=lambda: 0))
    halves = [sum(LENGTHS[example] for example in half) / len(half) for half in (order[:165], order[165:])]
    assert abs(halves[0] - halves[1]) < 8
