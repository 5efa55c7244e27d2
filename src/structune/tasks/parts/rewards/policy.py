"""Minus the mean reward of completions, with the policy gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structune.tasks.parts.generation.complete import Completions


def minus_mean_reward(model: Any, prompts: dict[str, Tensor], made: Completions, rewards: Tensor) -> Tensor:
    """−(1/n) Σ r_i, whose gradient is −(1/n) Σ r_i ∇ log p(completion i), where gradients are recorded.

    Args:
        model: gives logits.
        prompts: `input_ids` and `attention_mask`, padded on the left.
        made: the completions, drawn from the model.
        rewards: r_i, (completions,).
    """
    if not torch.is_grad_enabled():
        return -rewards.mean()
    ids = torch.cat([prompts["input_ids"], made.ids], 1)
    seen = torch.cat([prompts["attention_mask"], made.counted], 1)
    length = made.ids.shape[1]
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, -length - 1 : -1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen = logits.gather(2, made.ids.unsqueeze(2)).squeeze(2) - logits.logsumexp(2)
    likelihood = (chosen * made.counted).sum(1)
    loss: Tensor = -(rewards * torch.exp(likelihood - likelihood.detach())).mean()
    return loss
