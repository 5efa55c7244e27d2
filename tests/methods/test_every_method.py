"""Every method of the documentation's table: it trains, all of its numbers move, and the head is none of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BertConfig, BertForSequenceClassification

from structune import structures
from structune.finetune.adapters import apply_method, split_parameters
from structune.finetune.recipe.recipe import Recipe
from structune.methods import registry
from structune.study.study_file import MethodGroup
from structune.tasks.task import Base

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| [^|]+ \| `(\{name: .*\})` \|$", PAGE.partition("Every method by its line")[2], re.MULTILINE)
LINES = [
    line.replace("FAMILY", family) for line in ROWS for family in (structures.names() if "FAMILY" in line else [""])
]


def model() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=30,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
            initializer_range=0.2,
        )
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", LINES)
def test_it_trains_and_its_head_is_not_counted(line: str) -> None:
    section: dict[str, Any] = yaml.safe_load(line)
    assert list(MethodGroup(label="x", method=section).each()) == [("x", section)]
    recipe = Recipe.parse({"data": {"embedded": "tweets"}, "method": section})
    adapted = apply_method(Base(model(), None, head=["classifier"]), recipe.method, recipe.task)
    own, head = split_parameters(adapted, ["classifier"])
    assert sum(part.numel() for part in head.values()) == 2 * 64 + 2
    assert bool(own) == (section["name"] != "head")
    before = {name: part.detach().clone() for name, part in (own | head).items()}
    optimizer = torch.optim.AdamW([*own.values(), *head.values()], 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        adapted(input_ids=torch.randint(5, 30, (4, 8)), labels=torch.tensor([0, 1, 0, 1])).loss.backward()
        optimizer.step()
    unused = {"token_type"} if section["name"] == "full" else set()
    still = [name for name, part in (own | head).items() if torch.equal(before[name], part)]
    assert [name for name in still if not any(each in name for each in unused)] == []


def test_the_table_has_every_method_and_family() -> None:
    named = {yaml.safe_load(line)["name"] for line in ROWS}
    assert named == set(registry.METHODS.places)
    prose = PAGE.partition("FAMILY stands for")[2].partition("Each is one file")[0]
    for family in structures.names():
        assert f"`{family}`" in prose or family.endswith("_like")
    assert not {"low_rank_like", "circulant_like"} & set(structures.names())
