"""What methods of structured updates say of their rates."""

from __future__ import annotations

from collections.abc import Callable

import peft
import pytest
from torch import nn

import structune
from structune.doubt import DataWarning
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.training import train
from structune.methods import update
from structune.methods.hydra import Hydra


class Layers(nn.Module):
    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, 8) for width in widths)


@pytest.mark.parametrize(
    ("widths", "rate", "said"),
    [
        (
            (384, 1536, 6144),
            2e-3,
            "1,536 wide (median), where a step moves 2 to 4 times as much: try 0.001 and 0.0005 as well",
        ),
        (
            (6144, 6144, 8),
            2e-3,
            "6,144 wide (median), where a step moves 4 to 16 times as much: try 0.0005 and 0.0001 as well",
        ),
        ((384, 1535, 6144), 2e-3, None),  # near enough
        ((6144, 6144, 8), 1e-3, None),  # somebody's own choice
    ],
)
def test_the_general_rate_is_doubted_in_wide_layers(widths: tuple[int, ...], rate: float, said: str | None) -> None:
    targets = [f"layers.{number}" for number in range(len(widths))]
    model = peft.get_peft_model(Layers(*widths), structune.hydra("toeplitz", 8, num_splits=1, target_modules=targets))
    found = list(Hydra(structure="toeplitz").doubts(model, rate))
    assert [doubt.partition("are adapted here are ")[2] for doubt in found] == ([] if said is None else [said])
    assert all(doubt.startswith("train.learning_rate = 0.002: was compared in layers 384 wide") for doubt in found)


def test_it_is_said_before_training(recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "FOUND_AT", 8)
    with pytest.warns(DataWarning, match=r"compared in layers 8 wide; those that are adapted here are 32 wide"):
        train(recipe({"name": "c3a", "block_size": 8}, max_steps=1))
