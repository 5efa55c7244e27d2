"""What a run costs: seconds a step, and peak memory."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

import psutil
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StepClock(TrainerCallback):
    """Times every optimizer step (forward, backward, update), without evaluation or saving.

    The seconds so far are added to each entry of the log, so that a resumed run goes on counting.
    """

    def __init__(self) -> None:
        self.durations: list[float] = []
        self.earlier = 0.0
        self.steps_before = 0
        self._begun = 0.0

    @property
    def total(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.earlier + sum(self.durations)

    def median(self) -> float:
        """Median seconds a step, after the first tenth (at most ten) of the steps.

        Resumed after the last step, the mean of those before.
        """
        warm = self.durations[min(10, len(self.durations) // 10) :]
        return statistics.median(warm) if warm else self.earlier / max(self.steps_before, 1)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.earlier = max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)
        self.steps_before = state.global_step

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if torch.cuda.is_available() and args.device.type == "cuda":
            torch.cuda.synchronize()
        self.durations.append(time.perf_counter() - self._begun)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        state.log_history[-1]["seconds"] = round(self.total, 3)


class MemoryMeter:
    """Peak memory while the `with` block runs.

    On a GPU, PyTorch's own peak of allocated bytes. On a CPU, how far the process's resident memory rose above its
    size at the start, looked at every 5 ms: what training adds to a loaded model. Memory that the process had freed
    and not returned is reused unseen, so compare methods in fresh processes.
    """

    def __init__(self, cuda: bool) -> None:
        self.cuda = cuda
        self.kind = "cuda max_memory_allocated" if cuda else "rss growth"
        self.peak = 0

    def __enter__(self) -> MemoryMeter:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._process = psutil.Process()
            self._start = self._process.memory_info().rss
            self._done = threading.Event()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            self.peak = torch.cuda.max_memory_allocated()
        else:
            self._done.set()
            self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss - self._start)
