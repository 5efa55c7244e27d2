"""Several short conversations in one row of a batch, that do not see each other."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from structune.errors import UserError
from structune.tasks.task import IGNORED

_TOLERANCE = 1e-3  # of the largest logit


def pack(rows: Sequence[Mapping[str, Any]], most: int) -> list[dict[str, Any]]:
    """Rows of at most so many tokens, each of several examples: the longest first, each where it leaves least room.

    `input_ids` and `labels` one behind the other, and `lengths` of the examples. The first label of each is no label:
    the token before it is another's.
    """
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]["input_ids"]))
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # what is left in each, and which it is; the least first
    for row in order:
        length = len(rows[row]["input_ids"])
        place = bisect_left(room, (length, -1))
        left, number = room.pop(place) if place < len(room) else (most, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(row)
        insort(room, (left - length, number))
    return [_packed([rows[row] for row in chosen]) for chosen in bins]


def _packed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    labels = []
    for row in rows:
        own = row["labels"].copy()
        own[:1] = IGNORED
        labels.append(own)
    return {
        "input_ids": np.concatenate([row["input_ids"] for row in rows]),
        "labels": np.concatenate(labels),
        "lengths": [len(row["input_ids"]) for row in rows],
    }


def positions(lengths: Sequence[int], most: int) -> list[int]:
    """Places within each example, from 0 on in every one, and in what fills up the row."""
    filled = [*lengths, *([most - sum(lengths)] if sum(lengths) < most else [])]
    return [place for length in filled for place in range(length)]


@torch.no_grad()
def refuse_mixing(model: Any) -> None:
    """Raises `UserError` where examples in one row are not to the model what they are alone."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    one, two = (torch.randint(vocabulary, (1, length), generator=generator) for length in (5, 7))
    ids = torch.cat([one, two], 1).to(model.device)
    training = model.training
    model.eval()
    try:
        places = torch.tensor([positions([5, 7], 12)], device=model.device)
        together = model(input_ids=ids, position_ids=places, use_cache=False).logits  # a cache would have them mixed
        alone = torch.cat([model(input_ids=part.to(model.device), use_cache=False).logits for part in (one, two)], 1)
    except (TypeError, ValueError) as error:
        raise _cannot(model, f"it takes no position_ids ({error})") from None
    finally:
        model.train(training)
    difference = float((together - alone).abs().max() / alone.abs().max().clamp_min(1e-30))
    if not difference <= _TOLERANCE:
        raise _cannot(model, f"its logits of packed examples differ by {difference:.1e} of the largest")


def _cannot(model: Any, reason: str) -> UserError:
    return UserError(
        f"task.packing: {type(model).__name__} does not keep examples in one row apart: {reason}; leave packing out"
    )
