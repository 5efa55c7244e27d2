"""A saved adapter, read without the base model's weights, holds the ΔW of the live model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import structune
from structune.errors import UserError
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.training import train
from structune.inspection.adapter import read_adapter

Save = Callable[..., tuple[Path, nn.Module]]
TARGETS = {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}

CONFIGS: dict[str, Callable[[], peft.PeftConfig]] = {
    "c3a": lambda: structune.c3a(block_size=8, **TARGETS),
    "padded": lambda: structune.c3a(block_size=7, scale="1/in_features", **TARGETS),
    "pool": lambda: structune.hydra("toeplitz", pool_size=50, fixed_ratio=0.3, seed=5, **TARGETS),
    "centred": lambda: structune.hydra("vandermonde", pool_size=20, seed=3, **TARGETS),
    "random start": lambda: structune.hydra("cauchy_like", pool_size=90, init_weights=False, **TARGETS),
    "patterns": lambda: structune.StructuneConfig(
        structure="circulant", block_size=8, structure_pattern={"query": "toeplitz"}, block_size_pattern={"value": 16},
        **TARGETS,
    ),
    "rectangular": lambda: structune.c3a(
        block_size=16, target_modules=["intermediate.dense", "output.dense"], task_type="SEQ_CLS"
    ),
    "one pool": lambda: structune.hydra("toeplitz", pool_size=50, pool_scope="model", fixed_ratio=0.3, **TARGETS),
    "two pools": lambda: structune.hydra(
        "vandermonde", pool_size=20, pool_scope={"queries": "query"}, **TARGETS
    ),
    "lora": lambda: peft.LoraConfig(r=3, lora_alpha=12, **TARGETS),
    "rslora": lambda: peft.LoraConfig(
        r=4, lora_alpha=6, use_rslora=True, rank_pattern={"0.attention.self.query": 2}, alpha_pattern={"value": 9},
        **TARGETS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_updates_are_those_of_the_live_model(name: str, save_adapter: Save) -> None:
    folder, model = save_adapter(CONFIGS[name]())
    live: dict[str, Any] = {
        key.removeprefix("base_model.model."): layer
        for key, layer in model.named_modules()
        if hasattr(layer, "get_delta_weight")
    }
    updates = read_adapter(folder).updates
    assert [update.module for update in updates] == list(live)
    for update in updates:
        expected = live[update.module].get_delta_weight("default")
        assert float(expected.detach().norm()) > 0.1
        torch.testing.assert_close(update.dense(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_and_bytes_add_up(name: str, save_adapter: Save) -> None:
    folder, model = save_adapter(CONFIGS[name]())
    adapter = read_adapter(folder)
    adapted = [p for key, p in model.named_parameters() if p.requires_grad and ("structune_" in key or "lora_" in key)]
    assert sum(update.trainable for update in adapter.updates) == sum(p.numel() for p in adapted) > 0
    stored = load_file(folder / "adapter_model.safetensors")
    head = sum(tensor.nbytes for key, tensor in stored.items() if "classifier" in key)
    assert adapter.other_bytes == head > 0
    assert sum(update.num_bytes for update in adapter.updates) == sum(t.nbytes for t in stored.values()) - head
    assert adapter.file_bytes == (folder / "adapter_model.safetensors").stat().st_size


def test_what_a_layer_is(save_adapter: Save) -> None:
    folder, _ = save_adapter(CONFIGS["pool"]())
    update = read_adapter(folder).updates[0]
    assert (update.structure, update.grid) == ("toeplitz", "4×4 blocks of 8×8")
    assert (update.trainable, update.frozen) == (35, 15)
    assert update.algorithm in structune.products.ALGORITHMS


def test_base_weights_are_not_needed(save_adapter: Save, tiny_model: Path, tmp_path: Path) -> None:
    folder, _ = save_adapter(CONFIGS["c3a"]())
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(tiny_model / "config.json", bare)
    named = [update.module for update in read_adapter(folder, base=str(bare)).updates]
    assert named == [f"bert.encoder.layer.{n}.attention.self.{kind}" for n in (0, 1) for kind in ("query", "value")]


def test_layers_come_in_numeric_order(save_adapter: Save) -> None:
    folder, _ = save_adapter(CONFIGS["lora"]())
    path = folder / "adapter_model.safetensors"
    renamed = {
        key.replace("layer.1.", "layer.10.").replace("layer.0.", "layer.9."): t for key, t in load_file(path).items()
    }
    save_file(renamed, path)
    assert [update.module.split(".")[3] for update in read_adapter(folder).updates] == ["9", "9", "10", "10"]


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def only_a_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: edit_config(folder, base_model_name_or_path="./gone"), r"'./gone'.*--base"),
        (lambda folder: edit_config(folder, base_model_name_or_path=None), "names no base model.*--base"),
        (lambda folder: edit_config(folder, block_size=16), "damaged.*size mismatch"),
        (lambda folder: edit_config(folder, seed=[]), "damaged.*seed"),
        (lambda folder: edit_config(folder, peft_type="IA3"), "type IA3; inspect reads structune's and LoRA's"),
        (truncate, "not a whole safetensors file"),
        (only_a_pickle, "is a pickle"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no such file"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "neither a run"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told(spoil: Callable[[Path], Any], message: str, save_adapter: Save) -> None:
    folder, _ = save_adapter(CONFIGS["c3a"]())
    read_adapter(folder)
    spoil(folder)
    with pytest.raises(UserError, match=message):
        read_adapter(folder)


def test_another_base_is_told(save_adapter: Save, tmp_path: Path) -> None:
    folder, _ = save_adapter(CONFIGS["c3a"]())
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1}))
    with pytest.raises(UserError, match=r"has no layer 'bert.encoder.layer.0.attention.self.query'"):
        read_adapter(folder, base=str(other))


def test_dora_is_refused(save_adapter: Save) -> None:
    folder, _ = save_adapter(peft.LoraConfig(r=2, use_dora=True, **TARGETS))
    with pytest.raises(UserError, match="DoRA"):
        read_adapter(folder)


def test_a_run_without_its_adapter_is_told_from_a_method_without_one(recipe_file: Path, tmp_path: Path) -> None:
    run = train(Recipe.load(recipe_file, [f"output={tmp_path / 'run'}", "train.max_steps=1"]))
    (run.adapter / "adapter_config.json").unlink()
    with pytest.raises(UserError, match=r"adapter_config\.json is missing: restore it, or train again"):
        read_adapter(run.folder)
    head = train(Recipe.load(recipe_file, [f"output={tmp_path / 'head'}", "train.max_steps=1", "method=head"]))
    with pytest.raises(UserError, match="the method head adds no adapter"):
        read_adapter(head.folder)
