"""TRL's trainer for preferences, on batches that are made already and with the base model as the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from trl.trainer.dpo_trainer import DPOTrainer


class PairTrainer(DPOTrainer):
    """The reference is the model with its adapter switched off: no second model, and no second adapter.

    Given a model of PEFT, TRL makes the reference by adding an adapter and copying the parameters of the first. What an
    adapter has beside parameters would not be copied, so the reference would be another one than the start; and where
    the start is the base model, the copy is not needed.
    """

    def __init__(self, model: Any, *arguments: Any, **options: Any) -> None:
        nothing: Any = _Nothing(model.config)
        super().__init__(model, nothing, *arguments, **options)
        self.ref_model = None  # from here on as for an adapter that TRL itself made: it is switched off

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """As it is: what stands in for examples that are encoded already."""
        return dataset

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """TRL's, without what is no input of a model. What is logged beside it is of this process's part of the batch.

        TRL would gather that from all processes, and wait for ever where parts are of different sizes.
        """
        theirs: Any = super()
        with _alone(self.accelerator):
            pairs = {name: tensor for name, tensor in inputs.items() if name != "labels"}
            return theirs._compute_loss(model, pairs, return_outputs)


class _Nothing(nn.Module):
    """Stands for a reference model while TRL's trainer is made, so that it makes none."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self) -> torch.Tensor:
        raise AssertionError("is never called")


@contextmanager
def _alone(accelerator: Any) -> Iterator[None]:
    """What is gathered from all processes is this one's."""
    accelerator.gather = accelerator.gather_for_metrics = _as_it_is
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics


def _as_it_is(value: Any, *_: Any, **__: Any) -> Any:
    return value
