"""Interleaved timing: every method once a round, in an order drawn anew, so that drift of the machine meets all."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from structune.bench.clock import Clock


def order(count: int, round_number: int, seed: int) -> list[int]:
    """The order of `count` methods in one round: a permutation that seed and round determine."""
    shuffled = list(range(count))
    random.Random(f"{seed} {round_number}").shuffle(shuffled)
    return shuffled


def repeats_for(call: Callable[[], object], warmup: int, least_ms: float, time: Clock) -> int:
    """Warm a call up; how often it has to be repeated so that one timing takes `least_ms`."""
    for _ in range(warmup):
        call()
    fastest = min(time(call, 1) for _ in range(2))
    return max(1, math.ceil(least_ms / max(fastest, 1e-3)))


def interleaved(
    calls: Sequence[Callable[[], object]],
    repeats: Sequence[int],
    rounds: int,
    seed: int,
    time: Clock,
    after_round: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Milliseconds of each call in each round, [call][round]."""
    taken: list[list[float]] = [[] for _ in calls]
    for round_number in range(rounds):
        for number in order(len(calls), round_number, seed):
            taken[number].append(time(calls[number], repeats[number]))
        after_round()
    return taken
