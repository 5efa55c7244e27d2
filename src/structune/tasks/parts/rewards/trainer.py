"""TRL's trainer by rewards (GRPO), on prompts that are encoded already, in an order that a resumed run finds again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import RepeatSampler


class PromptTrainer(GRPOTrainer):
    """Completions are drawn anew for each step, from the model as it is then, without an adapter's dropout.

    So nothing is left over between steps that a checkpoint would have to hold. The reference, where `beta` is given, is
    the model with its adapter switched off: TRL would add a second adapter with the parameters of the first, and what
    an adapter has beside parameters would stay behind.

    Args:
        beta: the weight of the divergence from the reference.
        more: see TRL's.
    """

    def __init__(self, *, beta: float, **more: Any) -> None:
        super().__init__(**more)  # its arguments have a beta of 0, so that it adds no adapter
        self.beta = beta

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        theirs: Any = super()._get_train_sampler(dataset)
        return _ByEpoch(theirs, self.args.seed, lambda: int(self.state.epoch or 0))

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(prompt) for prompt in prompts], None, {}

    def _generate_single_turn(self, *arguments: Any, **options: Any) -> Any:
        assert self.model is not None  # given at the start
        theirs: Any = super()
        training = self.model.training
        self.model.eval()
        try:
            return theirs._generate_single_turn(*arguments, **options)
        finally:
            self.model.train(training)


class _ByEpoch(RepeatSampler):
    """TRL's order of prompts, each epoch's by seed and epoch alone: TRL's own goes on from that of the epoch before."""

    def __init__(self, theirs: RepeatSampler, seed: int, epoch: Callable[[], int]) -> None:
        super().__init__(
            theirs.data_source, theirs.mini_repeat_count, theirs.batch_size, theirs.repeat_count, True, seed
        )
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed((self.seed or 0) * 1_000_003 + self.epoch())
        theirs: Any = super()
        yield from theirs.__iter__()
