"""Training one pool for a whole model, however the host goes about it."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

import structune
from structune.peft import StructuneLayer

TARGETS = ["c_attn", "c_proj", "c_fc"]


def config_of(**changes: Any) -> structune.StructuneConfig:
    options = {"structure": "toeplitz", "pool_size": 13, "pool_scope": "model", "target_modules": TARGETS}
    return structune.hydra(**options | {"task_type": "CAUSAL_LM"} | changes)


def pool_of(model: nn.Module) -> nn.Parameter:
    """The only thing that is trained."""
    (pool,) = (parameter for parameter in model.parameters() if parameter.requires_grad)
    layers = [module for module in model.modules() if isinstance(module, StructuneLayer)]
    assert all(layer.delta("default").pool is pool for layer in layers)
    return pool


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("family", ["toeplitz", "cauchy_like"])
def test_gradient_checkpointing(use_reentrant, family, gpt2, ids, randomise) -> None:
    model = randomise(get_peft_model(gpt2(), config_of(structure=family))).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    checkpointed = copy.deepcopy(model)
    model(ids, labels=ids).loss.backward()
    checkpointed.enable_input_require_grads()
    checkpointed.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    checkpointed(ids, labels=ids).loss.backward()
    assert pool_of(model).grad.any()
    torch.testing.assert_close(pool_of(checkpointed).grad, pool_of(model).grad, rtol=1e-4, atol=1e-6)


def test_files_of_a_whole_model_as_accelerate_reads_them(tmp_path: Path, gpt2, randomise) -> None:
    model = get_peft_model(gpt2(), config_of(pool_map="signed"))
    trained = randomise(copy.deepcopy(model))
    save_model(trained, str(tmp_path / "model.safetensors"))
    missing, _ = load_model(model, str(tmp_path / "model.safetensors"), strict=False)
    assert not missing
    assert pool_of(trained).any()
    assert torch.equal(pool_of(model), pool_of(trained))


def test_micro_batches_add_up(gpt2, randomise) -> None:
    model = randomise(get_peft_model(gpt2(), config_of())).eval()
    batch = torch.randint(0, 50, (4, 6))
    model(batch, labels=batch).loss.backward()
    whole, pool_of(model).grad = pool_of(model).grad, None
    for part in batch.chunk(2):
        (model(part, labels=part).loss / 2).backward()
    torch.testing.assert_close(pool_of(model).grad, whole)


def test_it_learns(gpt2, ids) -> None:
    """Thirteen numbers: little, and yet the loss goes down steadily."""
    model = get_peft_model(gpt2(), config_of(pool_map="projection")).train()
    optimizer = torch.optim.AdamW([pool_of(model)], lr=0.02)
    losses = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said to be idle
        for _ in range(30):
            optimizer.zero_grad()
            loss = model(ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05
    assert len(optimizer.state) == 1


def test_trainer_resumes(gpt2, tmp_path: Path) -> None:
    """Stopped and resumed: the same pool, bit for bit, still one."""
    rows = [{"input_ids": [n % 40 + 3] * 6, "labels": [n % 40 + 3] * 6} for n in range(8)]

    def trainer(folder: str, steps: int) -> Trainer:
        arguments = TrainingArguments(
            output_dir=str(tmp_path / folder),
            max_steps=steps,
            save_steps=2,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            learning_rate=0.05,
            lr_scheduler_type="constant",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        model = get_peft_model(gpt2(), config_of())
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return Trainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows))

    whole = trainer("whole", 4)
    whole.train()
    half = trainer("half", 2)
    half.train()
    resumed = trainer("half", 4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-2"))
    assert pool_of(whole.model).any()
    assert torch.equal(pool_of(resumed.model), pool_of(whole.model))
    again = PeftModel.from_pretrained(gpt2(), tmp_path / "whole" / "checkpoint-4", is_trainable=True)
    assert torch.equal(pool_of(again), pool_of(whole.model))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, gpt2, ids, randomise, tmp_path: Path) -> None:
    """The base in half precision, the pool in fp32; or all of it in half precision, to a file and back."""
    model = randomise(get_peft_model(gpt2().to(dtype), config_of()))
    assert pool_of(model).dtype == torch.float32
    model(ids, labels=ids).loss.backward()
    assert pool_of(model).grad.any()
    model.to(dtype)
    assert pool_of(model).dtype == dtype
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(gpt2().to(dtype), tmp_path, is_trainable=True, autocast_adapter_dtype=False)
    assert torch.equal(pool_of(loaded).to(dtype), pool_of(model))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        get_peft_model(gpt2(), config_of())(ids, labels=ids).loss.backward()


def test_quantised_bases(gpt2, randomise, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.nn import Linear4bit

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            for name in "ab":
                linear, quantised = nn.Linear(64, 64), Linear4bit(64, 64, compute_dtype=torch.float32)
                quantised.load_state_dict(linear.state_dict())
                setattr(self, name, quantised.to("cpu"))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x)))

    config = structune.hydra("toeplitz", pool_size=13, pool_scope="model", target_modules=["a", "b"])
    model = randomise(get_peft_model(Two(), config), std=0.1).eval()
    x = torch.randn(5, 64)
    expected = model(x)
    expected.sum().backward()
    assert pool_of(model).grad.any()
    model.save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(Two(), tmp_path)(x), expected)
    with pytest.warns(UserWarning, match="quantised weights"):
        model.merge_adapter()
    model.unmerge_adapter()
    assert torch.equal(model(x), expected)


def test_compiled(gpt2, ids, randomise) -> None:
    model = randomise(get_peft_model(gpt2(), config_of())).eval()
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    model(ids, labels=ids).loss.backward()
    expected, pool_of(model).grad = pool_of(model).grad, None
    compiled(ids, labels=ids).loss.backward()
    torch.testing.assert_close(pool_of(model).grad, expected, rtol=1e-4, atol=1e-6)
    torch.compiler.reset()


def test_functional_calls(gpt2, ids, randomise) -> None:
    """One name stands for the pool in all layers, and gradients of a function of it are those of the module."""
    model = randomise(get_peft_model(gpt2(), config_of())).eval()
    name = next(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    numbers = pool_of(model).detach().clone() + 0.1

    def loss(pool: Tensor) -> Tensor:
        return torch.func.functional_call(model, {name: pool}, (ids,), {"labels": ids}).loss

    found = torch.func.grad(loss)(numbers)
    with torch.no_grad():
        pool_of(model).copy_(numbers)
    model(ids, labels=ids).loss.backward()
    torch.testing.assert_close(found, pool_of(model).grad, rtol=1e-4, atol=1e-6)
