"""Training: gradient checkpointing, accumulation, and numbers that really move."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

import structune


@pytest.mark.parametrize("structure", structune.structures.names())
def test_gradient_checkpointing_gives_the_same_gradients(structure, gpt2, ids, randomise) -> None:
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        config = structune.hydra(structure, pool_size=40, target_modules=["c_attn", "c_fc"])
        model = randomise(get_peft_model(gpt2(), config)).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        model(ids, labels=ids).loss.backward()
        return [p.grad for p in model.parameters() if p.requires_grad]

    plain, checkpointed = gradients(False), gradients(True)
    assert all(g.abs().max() > 0 for g in plain)
    for expected, got in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("learning_rate", [1e-2])
@pytest.mark.parametrize("structure", structune.structures.names())
def test_a_tiny_language_model_learns(structure, learning_rate, gpt2, ids) -> None:
    model = get_peft_model(gpt2(), structune.hydra(structure, pool_size=200, target_modules=["c_attn", "c_fc"]))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    losses = []
    for _ in range(30):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
