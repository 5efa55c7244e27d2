"""AdaLoRA: it does what PEFT's own loop does, its ranks fall, and it is loaded, merged and gone on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

from structune.errors import UserError
from structune.finetune.adapters import check_method
from structune.finetune.evaluate import evaluate
from structune.finetune.merge import merge
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.training import train
from structune.methods.parts.rank_allocation import RankAllocation
from structune.testing.tasks import stopped_after

MakeRecipe = Callable[..., Recipe]
METHOD = {"name": "adalora", "rank": 2, "initial_rank": 4}
STEPS = 8


def adapted(penalty: float) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(0)
    base = BertForSequenceClassification(
        BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8,
                   hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3)
    )  # fmt: skip
    config = peft.AdaLoraConfig(
        init_r=4, target_r=2, total_step=STEPS, tinit=1, tfinal=2, orth_reg_weight=penalty, target_modules=["query"]
    )
    model: Any = peft.get_peft_model(base, config)
    return model, torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], 0.05)


def gradient(model: Any, step: int) -> None:
    torch.manual_seed(step)
    model.base_model(input_ids=torch.randint(0, 30, (4, 8)), labels=torch.tensor([0, 1, 0, 1])).loss.backward()


def test_it_does_what_pefts_loop_does() -> None:
    theirs, optimizer = adapted(0.5)
    for step in range(STEPS):
        gradient(theirs, step)
        optimizer.step()
        theirs.base_model.update_and_allocate(step + 1)
        optimizer.zero_grad()
    ours, optimizer = adapted(0.0)
    allocation = RankAllocation(ours.base_model, 0.125, 0.25, 0.5)
    state: Any = SimpleNamespace(max_steps=STEPS, global_step=0)
    allocation.on_train_begin(None, state, None)
    for step in range(STEPS):
        state.global_step = step
        gradient(ours, step)
        allocation.on_pre_optimizer_step(None, state, None)
        optimizer.step()
        allocation.on_optimizer_step(None, state, None, optimizer=optimizer)
        optimizer.zero_grad()
    expected = {name: part for name, part in theirs.named_parameters() if "lora_" in name}
    zeros = sum(int((part == 0).sum()) for name, part in expected.items() if "lora_E" in name)
    assert zeros == 2 * (4 - 2)
    for name, part in ours.named_parameters():
        if name in expected:
            torch.testing.assert_close(part, expected[name], rtol=1e-4, atol=1e-5)


def test_ranks_fall_and_the_run_is_scored_and_merged(recipe: MakeRecipe, tmp_path: Path) -> None:
    run = train(recipe(METHOD, max_steps=STEPS, learning_rate=0.05))
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    ranks = [int((tensor != 0).sum()) for name, tensor in tensors.items() if "lora_E" in name]
    assert (len(ranks), sum(ranks)) == (4, 4 * 2)
    assert run.metrics()["trainable_adapter"] == 4 * 4 * (32 + 32 + 1)
    assert evaluate(run.folder).loss == pytest.approx(run.metrics()["eval_loss"], rel=1e-5)
    assert merge(run.folder, tmp_path / "merged") < 1e-4


@pytest.mark.parametrize("step", [3, 7])
def test_a_stopped_run_goes_on_bit_for_bit(step: int, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """While ranks fall, and after they have."""
    settings = {"max_steps": STEPS, "learning_rate": 0.05}
    whole = train(recipe(METHOD, "whole", **settings))
    stopped = recipe(METHOD, "stopped", **settings)
    stopped_after(step, stopped, monkeypatch)
    resumed = train(stopped, resume=True)
    first, second = (run.adapter / "adapter_model.safetensors" for run in (whole, resumed))
    assert first.read_bytes() == second.read_bytes()


def test_what_does_not_go_together(recipe: MakeRecipe) -> None:
    with pytest.raises(UserError, match="initial_rank = 8: ranks fall to rank = 8; give a larger one"):
        recipe({"name": "adalora", "rank": 8, "initial_rank": 8})
    with pytest.raises(UserError, match=r"begin = 0\.5 and end = 0\.5 leave no step"):
        recipe({"name": "adalora", "begin": 0.5, "end": 0.5})
    with pytest.raises(UserError, match=r"type = 'ADALORA': allocates ranks .* there is \{name: adalora\}"):
        check_method(recipe({"name": "peft", "type": "ADALORA", "total_step": 5}).method)
