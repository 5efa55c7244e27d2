"""The processes of one launch that train one run: which of them speaks and writes, and how they agree."""

from __future__ import annotations

import atexit
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from structune.finetune.distributed.launch import launched_together

_PATIENCE = timedelta(hours=2)  # for the first process, which may fetch a model

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train one run; alone by default.

    Attributes:
        rank: its number. The first speaks for all, and writes.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls, cpu: bool) -> Processes:
        """This process among those of its launch, with a process group where there are several.

        Args:
            cpu: whether they compute on the CPU.

        Raises:
            UserError: there are several, and they cannot find each other.
        """
        if not launched_together():
            return cls()
        if not distributed.is_initialized():
            distributed.init_process_group(
                "gloo" if cpu or not torch.cuda.is_available() else "cpu:gloo,cuda:nccl", timeout=_PATIENCE
            )
            atexit.register(_part)
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order, on each of them."""
        if not self.several:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def any(self, value: bool) -> bool:
        """Whether it is true in one of them."""
        return any(self.gather(value))

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of the processes' numbers; not finite where one is not."""
        return value if not self.several else self.sum(value) / self.count

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of the processes' numbers, without a gradient."""
        if not self.several:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """What raises in one process at the end of the block raises in all of them; inside they do not meet."""
        error: Exception | None = None
        try:
            yield
        except Exception as raised:  # noqa: BLE001  (whatever it is, the others must not wait for this process)
            error = raised
        errors = self.gather(None if error is None or not self.several else _sent(error))
        if error is not None:
            raise error
        for other in errors:
            if other is not None:
                raise other

    def in_turn(self, make: Callable[[], T]) -> T:
        """What `make` gives: the first process goes ahead, so that the others find what it fetched.

        Raises:
            Exception: what it raised in one of them.
        """
        made: list[T] = []
        for turn in (True, False) if self.several else (True,):
            with self.agreeing():
                if self.first is turn:
                    made.append(make())
        return made[0]

    def shared(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, on all of them.

        Raises:
            Exception: what it raised.
        """
        made: T | None = None
        with self.agreeing():
            made = make() if self.first else None
        result: Any = self.gather(made)[0]
        return result


def _sent(error: Exception) -> Exception:
    """An error as another process can have it."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):  # noqa: S301  (our own, just made)
            return error
    except Exception:  # noqa: BLE001  (an error that needs more than its message)
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")


def _part() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
