"""Adapters through transformers' own methods, without PEFT's wrapper; LoRA is the control where it is not obvious."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    pipeline,
)

import structune

WORDS = [f"w{n}" for n in range(40)]
IDS = torch.arange(2, 12)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, **ends, vocab_size=len(WORDS))).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="w3"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", bos_token="w1", eos_token="w2")
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def bare(base) -> Callable[[], nn.Module]:
    return lambda: AutoModelForCausalLM.from_pretrained(base)


def pooled(seed: int = 0, **options):
    targets = {"target_modules": ["q_proj", "v_proj"], "init_weights": False}
    return structune.hydra("toeplitz", num_splits=2, pool_size=12, seed=seed, **targets | options)


def one_pool(**options):
    return pooled(pool_scope="model", **options)


def circulant(**options):
    return structune.c3a(block_size=4, target_modules=["q_proj", "v_proj"], init_weights=False, **options)


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.fixture(params=[pooled, circulant, one_pool])
def adapter(request, bare, tmp_path) -> tuple[Path, Tensor]:
    """A folder, and what the model with the adapter in it gives."""
    model = bare()
    model.add_adapter(request.param(dropout=0.2))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", logits(model)


@pytest.mark.parametrize("cls", [AutoModelForCausalLM, LlamaForCausalLM])
def test_the_folder_of_an_adapter_is_a_model(cls, adapter, caplog) -> None:
    folder, expected = adapter
    logging.getLogger("transformers").propagate = True
    model = cls.from_pretrained(folder)
    assert "MISSING" not in caplog.text
    assert "UNEXPECTED" not in caplog.text
    assert model._hf_peft_config_loaded
    assert torch.equal(logits(model), expected)
    assert model.generate(IDS, max_new_tokens=3, do_sample=False).shape == (1, 13)


def test_only_the_adapter_is_saved(adapter, bare, tmp_path) -> None:
    folder, expected = adapter
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors", "generation_config.json"}
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert all("structune_delta" in key for key in model.get_adapter_state_dict())
    model.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "again")), expected)


def test_a_pipeline_takes_the_folder(adapter, base) -> None:
    folder, _ = adapter
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    pipe = pipeline("text-generation", str(folder), tokenizer=tokenizer)
    assert any(isinstance(module, BaseTunerLayer) for module in pipe.model.modules())
    assert pipe("w5 w6", max_new_tokens=2)[0]["generated_text"].startswith("w5 w6")


def test_adapters_are_added_switched_and_deleted(bare, tmp_path) -> None:
    model = bare()
    plain = logits(model)
    model.add_adapter(circulant(), "one")
    one = logits(model)
    model.add_adapter(pooled(), "two")
    assert model.active_adapters() == ["two"]
    two = logits(model)
    model.set_adapter(["two", "one"])
    assert model.active_adapters() == ["two", "one"]
    both = logits(model)
    pictures = [plain, one, two, both]
    for number, left in enumerate(pictures):
        assert all((left - right).abs().max() > 1e-4 for right in pictures[:number])
    with pytest.raises(ValueError, match="multiple active adapters"):
        model.save_pretrained(tmp_path)
    model.disable_adapters()
    torch.testing.assert_close(logits(model), plain)
    model.enable_adapters()
    assert torch.equal(logits(model), both)
    model.set_adapter("one")
    assert torch.equal(logits(model), one)
    with pytest.raises(ValueError, match="already exists"):
        model.add_adapter(circulant(), "one")
    with pytest.raises(ValueError, match="are not present and cannot be deleted: none"):
        model.delete_adapter(["one", "none"])
    model.delete_adapter([])
    assert list(model.peft_config) == ["one", "two"]
    model.delete_adapter("two")
    assert torch.equal(logits(model), one)
    model.delete_adapter("one")
    assert not model._hf_peft_config_loaded
    torch.testing.assert_close(logits(model), plain)
    model.add_adapter(circulant(), "one")
    assert torch.equal(logits(model), one)


def test_a_module_trained_in_full_goes_along(bare, tmp_path) -> None:
    model = bare()
    model.add_adapter(circulant(modules_to_save=["lm_head"]))
    (head,) = [module for module in model.modules() if isinstance(module, ModulesToSaveWrapper)]
    assert head.modules_to_save["default"].weight.requires_grad
    model(IDS).logits.square().mean().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        head.modules_to_save["default"].weight.normal_()
    assert "lm_head.weight" in model.get_adapter_state_dict()
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(model))


def test_gradient_checkpointing_reaches_the_adapter(bare) -> None:
    model = bare()
    model.add_adapter(circulant())
    assert not model.get_input_embeddings()(IDS).requires_grad
    enable = getattr(model, "activation_checkpointing_enable", None)  # its name since transformers 5.23
    (enable or model.gradient_checkpointing_enable)()
    assert model.get_input_embeddings()(IDS).requires_grad
    model.train()(IDS).logits.square().mean().backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 4
    assert all("structune_delta" in name and gradient.abs().max() > 0 for name, gradient in trained.items())


@pytest.mark.parametrize("is_trainable", [False, True])
@pytest.mark.parametrize("method", ["ours", "LoRA"])
def test_modes_and_gradients_after_loading(method, is_trainable, adapter, bare, tmp_path) -> None:
    folder, _ = adapter
    if method == "LoRA":
        folder = tmp_path / "lora"
        lora = LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.2)
        get_peft_model(bare(), lora).save_pretrained(folder)
    model = bare().eval()
    model.load_adapter(str(folder), is_trainable=is_trainable)
    prefix = "structune_" if method == "ours" else "lora_"
    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    own = [module for name, module in leaves if prefix in name]
    assert own
    assert all(module.training == is_trainable for module in own)
    assert all(p.requires_grad == is_trainable for module in own for p in module.parameters())
    for name, module in leaves:
        if prefix not in name:
            assert not module.training, name
            assert not any(p.requires_grad for p in module.parameters()), name


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_a_state_dict_instead_of_a_file(low_cpu_mem_usage, adapter, bare, caplog) -> None:
    folder, expected = adapter
    source = AutoModelForCausalLM.from_pretrained(folder)
    tensors, config = source.get_adapter_state_dict(), source.peft_config["default"]
    model = bare()
    with pytest.raises(ValueError, match="You should either pass a `peft_model_id` or"):
        model.load_adapter(peft_model_id=None)
    model.load_adapter(adapter_state_dict=tensors, peft_config=config, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(logits(model), expected)
    assert not any(parameter.is_meta for parameter in model.parameters())
    logging.getLogger("transformers").propagate = True
    missing, *_ = (key for key in tensors if key.endswith("pool"))
    partial = {key: tensor for key, tensor in tensors.items() if key != missing} | {"foobar": torch.zeros(3)}
    report = bare().load_adapter(adapter_state_dict=partial, peft_config=config)
    one = [f"model.layers.{n}.self_attn.{name}_proj.structune_delta.pool" for n in (0, 1) for name in "qv"]
    lacking = [missing] if config.pool_scope == "matrix" else one
    assert sorted(key.replace(".default", "") for key in report.missing_keys) == lacking
    assert "MISSING" in caplog.text
    assert "foobar" in caplog.text


def test_trainer_loads_the_best_checkpoint(bare, tmp_path) -> None:
    data = Dataset.from_list([{"input_ids": [n % 37 + 3] * 6, "labels": [n % 37 + 3] * 6} for n in range(16)])
    model = get_peft_model(bare(), circulant(task_type="CAUSAL_LM"))
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        learning_rate=0.05,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert min(losses) < losses[0]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-5)
