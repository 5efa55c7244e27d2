"""Several conversations in a row: none sees another, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from structune.errors import UserError
from structune.tasks.parts.chats.batches import ChatBatches
from structune.tasks.parts.chats.packing import pack, positions, refuse_mixing
from structune.tasks.task import IGNORED


def rows(lengths: list[int]) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    made = []
    for length in lengths:
        ids = generator.integers(5, 300, length).astype(np.int32)
        made.append(
            {
                "input_ids": ids,
                "labels": np.where(np.arange(length) >= (length // 2 if length % 2 else 0), ids, IGNORED),
            }
        )
    return made


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_logits_are_those_of_each_alone(tiny_llama: Path, attention: str) -> None:
    """In batches of several rows, with what fills them up; and a change in one example changes no other."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation=attention).eval()
    alone = rows([9, 4, 7, 3, 6, 2])
    packed = pack(alone, 12)
    assert 1 < len(packed) < 6
    batch = ChatBatches(0, asks=False)(packed)
    assert "attention_mask" not in batch
    of = {tuple(row["input_ids"].tolist()): row["input_ids"] for row in alone}

    def logits(ids: torch.Tensor) -> torch.Tensor:
        return model(input_ids=ids, position_ids=batch["position_ids"], use_cache=False).logits

    with torch.no_grad():
        together = logits(batch["input_ids"])
        changed = batch["input_ids"].clone()
        changed[0, 0] += 1
        seen = 0
        for number, row in enumerate(packed):
            start = 0
            for length in row["lengths"]:
                ids = row["input_ids"][start : start + length]
                assert tuple(ids.tolist()) in of
                expected = model(input_ids=torch.tensor(ids)[None].long(), use_cache=False).logits[0]
                own = together[number, start : start + length]
                assert expected.abs().max() > 0.1
                torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)
                moved = (logits(changed)[number, start : start + length] - own).abs().max()
                assert (moved > 1e-3) == (number == 0 and start == 0)
                start += length
                seen += 1
    assert seen == 6
    refuse_mixing(model)


def test_nothing_is_lost_and_no_token_is_learned_from_another_example() -> None:
    alone = rows([5, 30, 8, 17, 3, 12, 9, 22, 4, 30])
    packed = pack(alone, 30)
    assert max(len(row["input_ids"]) for row in packed) <= 30
    assert len(packed) == 5  # 140 tokens, of which 30 twice fill a row
    parts = [
        part
        for row in packed
        for part in np.split(np.stack([row["input_ids"], row["labels"]]), np.cumsum(row["lengths"])[:-1], axis=1)
    ]
    assert sorted(tuple(part[0].tolist()) for part in parts) == sorted(
        tuple(row["input_ids"].tolist()) for row in alone
    )
    labels = {tuple(row["input_ids"].tolist()): row["labels"] for row in alone}
    for ids, learned in parts:
        assert learned[0] == IGNORED
        assert learned[1:].tolist() == labels[tuple(ids.tolist())][1:].tolist()
    assert positions([3, 2], 7) == [0, 1, 2, 0, 1, 0, 1]


def test_a_model_that_mixes_them_is_refused(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    forward = model.forward
    model.forward = lambda *args, position_ids=None, **kwargs: forward(*args, **kwargs)
    with pytest.raises(UserError, match=r"task\.packing: LlamaForCausalLM does not keep examples in one row apart"):
        refuse_mixing(model)
