"""Tokens of conversations put together into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from structune.tasks.parts.chats.packing import positions
from structune.tasks.task import IGNORED


class ChatBatches:
    """Puts encoded conversations together, filled up on the right.

    Args:
        filler: the token that stands where nothing is.
        asks: whether what stands before the last response is in the batch too (`prompt`, `prompt_mask`), filled up on
            the left, and that response (`expected`), so that the model may answer.
    """

    def __init__(self, filler: int, asks: bool) -> None:
        self.filler = filler
        self.asks = asks

    def __call__(self, rows: list[Mapping[str, Any]]) -> dict[str, Tensor]:
        ids = [row["input_ids"] for row in rows]
        most = max(map(len, ids))
        batch = {"input_ids": _right(ids, self.filler)}
        if "lengths" in rows[0]:
            batch["position_ids"] = torch.tensor([positions(row["lengths"], most) for row in rows])
        else:
            batch["attention_mask"] = _right([[1] * len(row) for row in ids], 0)
        if "labels" not in rows[0]:
            return batch
        batch["labels"] = _right([row["labels"] for row in rows], IGNORED)
        if self.asks:
            prompts = [row["input_ids"][: row["answer"]] for row in rows]
            batch |= {"prompt": _left(prompts, self.filler), "prompt_mask": _left([[1] * len(p) for p in prompts], 0)}
            batch["expected"] = _right([row["input_ids"][row["answer"] :] for row in rows], IGNORED)
        return batch


def _right(rows: Sequence[Any], filler: int) -> Tensor:
    filled = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    for place, row in zip(filled, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(filled)


def _left(rows: Sequence[Any], filler: int) -> Tensor:
    filled = np.full((len(rows), max(1, *map(len, rows))), filler, dtype=np.int64)
    for place, row in zip(filled, rows, strict=True):
        place[filled.shape[1] - len(row) :] = row
    return torch.from_numpy(filled)
