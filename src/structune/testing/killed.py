"""Runs that are killed: SIGKILL comes at a chosen moment, as from a machine that runs out of memory or is taken away.

The runs are children of a fork server, a process that has imported everything: each costs little more than its steps.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from structune.finetune import adapters, training
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.trainer.trainer import RecipeTrainer
from structune.registry import section_name
from structune.tasks import registry
from structune.tasks.task import Task


def killed_in_step(number: int) -> None:
    """Die in that step, when its gradient is there and nothing is updated."""
    take = RecipeTrainer.training_step

    def training_step(self: RecipeTrainer, *arguments: Any, **options: Any) -> torch.Tensor:
        loss = take(self, *arguments, **options)
        if self.state.global_step == number - 1:
            _die()
        return loss

    RecipeTrainer.training_step = training_step  # type: ignore[method-assign]


def killed_in_checkpoint(number: int) -> None:
    """Die while the checkpoint of that step is written: half of a file is there."""
    save = RecipeTrainer._save_optimizer_and_scheduler

    def save_optimizer_and_scheduler(self: RecipeTrainer, folder: str) -> None:
        save(self, folder)
        if self.state.global_step == number:
            _halve(Path(folder) / "optimizer.pt")
            _die()

    RecipeTrainer._save_optimizer_and_scheduler = save_optimizer_and_scheduler  # type: ignore[assignment, method-assign]


def killed_in_results(_: int) -> None:
    """Die while the adapter is written, after the last step."""
    save = adapters.save_trained

    def save_trained(model: Any, folder: Path, base_name: str) -> None:
        save(model, folder, base_name)
        _halve(folder / "adapter_model.safetensors")
        _die()

    vars(training)["save_trained"] = save_trained


def train_until_killed(
    content: Mapping[str, Any], task: type[Task], moment: Callable[[int], None], number: int, resume: bool
) -> None:
    """Train in a process of its own that dies at a moment.

    Args:
        content: a recipe with its output.
        task: its task, which the process registers where it does not know it.
        moment: one of `killed_in_…`.
        number: of the step.
        resume: whether to go on with what is there.

    Raises:
        RuntimeError: it ended in another way.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["structune.study.workers.preloaded", __name__])  # one server with that of studies
    place = (task.__module__, task.__name__)
    process = context.Process(
        target=_train, args=(dict(content), place, moment, number, resume, torch.get_num_threads())
    )
    process.start()
    process.join()
    if process.exitcode != -signal.SIGKILL:
        raise RuntimeError(
            f"it should have been killed ({moment.__name__}, {number}), and ended with {process.exitcode}"
        )


def _train(
    content: dict[str, Any],
    place: tuple[str, str],
    moment: Callable[[int], None],
    number: int,
    resume: bool,
    threads: int,
) -> None:
    torch.set_num_threads(threads)  # sums are added up in an order that depends on it
    task = getattr(importlib.import_module(place[0]), place[1])
    if section_name(task) not in registry.names():
        registry.register(task)
    moment(number)
    training.train(Recipe.parse(content), resume=resume)


def _halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
