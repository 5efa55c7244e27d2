"""AdaLoRA's allocation of ranks in a trainer's steps, so that a stopped run goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerState

_AVERAGES = ("exp_avg_ipt", "exp_avg_unc")
"""What PEFT's allocator keeps for each parameter."""


class RankAllocation(TrainerCallback):
    """Asks PEFT's AdaLoRA after each step which ranks to set to 0, and adds the gradient of the penalty before it.

    The allocator's averages are kept in the optimizer's state, and so in every checkpoint. Which ranks are left is not
    in the configuration, where it would cut what is saved: what is set to 0 is saved as 0.

    Args:
        tuner: PEFT's model.
        begin: the share of the steps before ranks fall.
        end: the share of the steps after they have fallen.
        penalty: see `AdaLoRA`.
    """

    def __init__(self, tuner: Any, begin: float, end: float, penalty: float) -> None:
        self.tuner, self.begin, self.end, self.penalty = tuner, begin, end, penalty
        self.config = tuner.peft_config[tuner.trainable_adapter_name]
        self._left: dict[str, list[bool]] | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        steps = state.max_steps
        self.config.total_step = steps
        self.config.tinit, self.config.tfinal = int(self.begin * steps), int(self.end * steps)

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self._left is None and state.global_step >= self._last:  # gone on with: what is 0 has not moved yet
            self._left = {name: (part != 0).view(-1).tolist() for name, part in self._parts() if "lora_E" in name}
        factors = {name: part for name, part in self._parts() if "lora_A" in name or "lora_B" in name}
        if not self.penalty:
            return
        with torch.enable_grad():
            products = [part @ part.T if "lora_A" in name else part.T @ part for name, part in factors.items()]
            ones = [torch.eye(len(product), device=product.device, dtype=product.dtype) for product in products]
            norms = [torch.linalg.norm(product - one) for product, one in zip(products, ones, strict=True)]
            loss = self.penalty * torch.stack(norms).mean()
        for part, gradient in zip(factors.values(), torch.autograd.grad(loss, list(factors.values())), strict=True):
            part.grad = gradient if part.grad is None else part.grad + gradient

    def on_optimizer_step(self, args: Any, state: TrainerState, control: Any, optimizer: Any = None, **_: Any) -> None:
        allocator, step = self.tuner.rankallocator, state.global_step + 1
        if not allocator.exp_avg_ipt:
            self._take_up(optimizer)
        if step != self._last or allocator.exp_avg_ipt:  # of the first step alone nothing is known
            self.config.rank_pattern = self._left
            self.tuner.update_and_allocate(step)
            self._left, self.config.rank_pattern = self.config.rank_pattern, None
        for name, part in self._parts():
            for key in _AVERAGES:
                if (kept := getattr(allocator, key).get(name)) is not None:
                    optimizer.state[part][key] = kept

    @property
    def _last(self) -> int:
        """The step in which ranks fall for the last time."""
        return int(self.config.total_step - self.config.tfinal)

    def _take_up(self, optimizer: Any) -> None:
        """What an earlier process left in a checkpoint."""
        allocator = self.tuner.rankallocator
        for name, part in self._parts():
            found: dict[str, Tensor] = optimizer.state.get(part, {})
            if all(key in found for key in _AVERAGES):
                allocator.ipt[name] = torch.zeros_like(part)
                for key in _AVERAGES:
                    getattr(allocator, key)[name] = found[key]

    def _parts(self) -> Iterator[tuple[str, Tensor]]:
        """What of the adapter trains, by the allocator's names."""
        for name, part in self.tuner.model.named_parameters():
            if "lora_" in name and self.tuner.trainable_adapter_name in name:
                yield name, part
