"""Interleaving: who is called when, and what is kept."""

from __future__ import annotations

import collections

import pytest
import torch

from structune.bench.clock import clock
from structune.bench.rounds import interleaved, order, repeats_for


def test_orders_are_permutations_that_change_and_repeat() -> None:
    orders = [order(7, number, seed=3) for number in range(50)]
    assert all(sorted(one) == list(range(7)) for one in orders)
    assert orders == [order(7, number, seed=3) for number in range(50)]
    assert orders != [order(7, number, seed=4) for number in range(50)]
    assert len({tuple(one) for one in orders}) > 40
    places = collections.Counter(one.index(0) for one in orders)
    assert set(places) == set(range(7))  # nobody always follows the same


def test_each_round_calls_everyone_once_before_anyone_twice() -> None:
    called: list[str] = []
    rounds: list[int] = []
    calls = [lambda name=name: called.append(name) for name in "abc"]
    ticks = iter(range(1000))

    def time(call: object, repeats: int) -> float:
        for _ in range(repeats):
            call()  # type: ignore[operator]
        return float(next(ticks))

    taken = interleaved(calls, [1, 2, 1], 4, 5, time, lambda: rounds.append(len(called)))
    assert rounds == [4, 8, 12, 16]
    for number in range(4):
        part = called[4 * number : 4 * number + 4]
        assert collections.Counter(part) == {"a": 1, "b": 2, "c": 1}
        expected = [name for index in order(3, number, 5) for name in "abc"[index] * (2 if index == 1 else 1)]
        assert part == expected
    # The time of place n in round r is 3r + n: it must have gone to whoever stood there.
    for number in range(4):
        for place, index in enumerate(order(3, number, 5)):
            assert taken[index][number] == 3 * number + place


@pytest.mark.parametrize(("milliseconds", "least", "expected"), [(4.0, 20.0, 5), (3.0, 20.0, 7), (50.0, 20.0, 1)])
def test_short_calls_are_repeated(milliseconds: float, least: float, expected: int) -> None:
    called: list[int] = []
    times = iter([9e9, milliseconds])  # the first is an outlier

    def time(call: object, repeats: int) -> float:
        assert repeats == 1
        return next(times)

    assert repeats_for(lambda: called.append(1), 6, least, time) == expected
    assert len(called) == 6


def test_the_wall_clock_gives_milliseconds_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    now = iter([10.0, 10.5])
    monkeypatch.setattr("structune.bench.clock.time.perf_counter", lambda: next(now))
    assert clock("cpu")(lambda: called.append(1), 5) == 100.0
    assert len(called) == 5


def test_the_cuda_clock_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without a GPU: the order of what it asks of PyTorch."""
    asked: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            asked.append("record")

        def elapsed_time(self, end: Event) -> float:
            assert end is not self
            asked.append("elapsed")
            return 12.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append("synchronize"))
    assert clock("cuda")(lambda: asked.append("call"), 3) == 4.0
    assert asked == ["synchronize", "record", "call", "call", "call", "record", "synchronize", "elapsed"]
