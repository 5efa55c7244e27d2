"""A pretrained model that goes on with a text, and what it gives for tokens that are learned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from structune.errors import UserError
from structune.tasks.parts.chats.tokens import stop_token
from structune.tasks.parts.generation.complete import end_tokens, remember_tokenizer
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.text.texts import load_text_model
from structune.tasks.task import IGNORED, Base


def load_chat_model(section: ModelSection, tokenizer: Any, seed: int) -> Base:
    """The model of transformers that goes on with a text; it ends where its tokenizer or the chat template ends a turn.

    Called with `fused_lm_head`, it gives the log-probabilities of labels without keeping logits of all tokens (TRL).

    Raises:
        UserError: there is no such model, it is of another kind, or trl is not installed.
    """
    try:
        from trl.trainer.utils import add_fused_lm_head
    except ImportError as error:
        raise UserError(
            f"task: models that write need trl 1.16 or later, on Python 3.11 or later ({error}); run `pip install "
            f"'structune[language]'`"
        ) from None
    from structune.tasks.parts.chats.kernels import use_what_compiles

    use_what_compiles()
    base = load_text_model(
        AutoModelForCausalLM,
        section,
        seed,
        tokenizer,
        with_its_head="it cannot go on with a text; name a model that can",
    )
    model = base.model
    ends = end_tokens(model, tokenizer)
    stop = stop_token(tokenizer)
    model.generation_config.eos_token_id = ends if stop is None or stop in ends else [*ends, stop]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    add_fused_lm_head(model, outputs=("log_probs", "is_top1"))
    remember_tokenizer(model, tokenizer)
    return Base(model, tokenizer)


def log_likelihoods(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row of a batch: Σ log p of its labels, how many there are, and how many are the likeliest token.

    Args:
        model: with a fused head.
        batch: of `ChatBatches`, with labels.
    """
    names = ("input_ids", "attention_mask", "position_ids", "labels")
    found = model(**{name: batch[name] for name in names if name in batch}, fused_lm_head=True)
    counts = (batch["labels"][:, 1:] != IGNORED).sum(1)
    return found.log_probs.float().sum(1), counts, found.is_top1.detach().float().sum(1)


def device_of(model: Any) -> torch.device:
    """Where it takes its inputs."""
    return next(iter(model.parameters())).device
