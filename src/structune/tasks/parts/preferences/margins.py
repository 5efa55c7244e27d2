"""How much more likely a model finds two responses than a reference does, and what DPO makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

_MOST = 2**26  # numbers of logits at a time: 256 MB in fp32


class Margins(NamedTuple):
    """Log-probabilities of responses, summed over their tokens: (pairs,) each."""

    chosen: Tensor
    rejected: Tensor
    chosen_by_reference: Tensor
    rejected_by_reference: Tensor

    def scaled(self, beta: float) -> Any:
        """β (log π(chosen)/π_ref(chosen) − log π(rejected)/π_ref(rejected)): of tensors, or of arrays."""
        return beta * (self.chosen - self.chosen_by_reference - self.rejected + self.rejected_by_reference)


def dpo_loss(margins: Margins, beta: float) -> Tensor:
    """−log σ(margin), its mean over pairs (Rafailov et al. 2023, equation 7)."""
    loss: Tensor = -logsigmoid(margins.scaled(beta)).mean()
    return loss


def margins(model: nn.Module, batch: Mapping[str, Tensor]) -> Margins:
    """Of a batch whose first half are prompts with the chosen, its second half with the rejected responses.

    Args:
        model: gives logits for tokens; an adapter of PEFT is switched off for the reference. Without one, the model is
            its own reference.
        batch: `input_ids`, `attention_mask` and `completion_mask`, (2 pairs, tokens) each, padded on the right.
    """
    with torch.no_grad(), without_adapter(model) as changed:
        reference = log_probabilities(model, batch) if changed else None
    own = log_probabilities(model, batch)
    return Margins(*own.chunk(2), *(own.detach() if reference is None else reference).chunk(2))


def log_probabilities(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Σ over the tokens of its response of log p(token | all before it), in fp32 or better: (2 pairs,).

    Some rows at a time, so that the logits of a large vocabulary fit into memory.
    """
    ids, seen, counted = (batch[name] for name in ("input_ids", "attention_mask", "completion_mask"))
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", 1)
    rows = max(1, _MOST // (ids.shape[1] * vocabulary))
    parts = []
    for start in range(0, len(ids), rows):
        part = slice(start, start + rows)
        logits = model(input_ids=ids[part], attention_mask=seen[part], use_cache=False).logits[:, :-1]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        chosen = logits.gather(2, ids[part, 1:, None]).squeeze(2) - logits.logsumexp(2)
        parts.append((chosen * counted[part, 1:]).sum(1))
    return torch.cat(parts)


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[bool]:
    """The model as it was before it was adapted, and whether it is another one then."""
    inner = getattr(model, "module", model)  # of several processes
    if not isinstance(inner, PeftModel):
        yield False
        return
    with inner.disable_adapter():
        yield True
