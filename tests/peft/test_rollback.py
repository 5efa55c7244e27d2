"""Whatever fails, at whatever stage and in whoever's loader, the model is as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import structune
from structune.peft import StructuneLayer
from structune.peft.storage.rollback import as_before_if_failing

QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.fixture
def saved(bert, randomise, tmp_path) -> Path:
    """An adapter with everything that one can have: numbers, a head, rows of the embedding."""
    config = structune.hydra(
        "toeplitz",
        pool_size=30,
        target_modules=["query"],
        modules_to_save=["classifier"],
        trainable_token_indices={"word_embeddings": [3, 5]},
        task_type="SEQ_CLS",
    )
    randomise(get_peft_model(bert(), config)).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def state_of(model: nn.Module) -> dict[str, Any]:
    """Everything that a failed load must leave alone."""
    layers = [module for module in model.modules() if hasattr(module, "active_adapters")]
    return {
        "modules": [(name, type(module), module.training) for name, module in model.named_modules()],
        "trained": [(name, parameter.requires_grad) for name, parameter in model.named_parameters()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "adapters": sorted(getattr(model, "peft_config", {})),
        "active": [str(getattr(layer, "active_adapter", None)) for layer in layers],
        "marked": getattr(model, "_hf_peft_config_loaded", None),
    }


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def change(folder: Path, tensors=None, **options: Any) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | options))
    if tensors is not None:
        found = load_file(folder / "adapter_model.safetensors")
        tensors(found)
        save_file(found, folder / "adapter_model.safetensors")


def key(tensors: dict[str, Tensor], part: str) -> str:
    (found,) = [name for name in tensors if part in name]
    return found


def in_file(edit: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    return lambda folder: change(folder, edit)


def in_config(**options: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, **options)


FILES = {
    "names": in_file(lambda t: t.update({"base_model.model.x": t.pop(key(t, f"{QUERY}.structune_delta.pool"))})),
    "shapes": in_file(lambda t: t.update({key(t, f"{QUERY}.structune_delta.pool"): torch.zeros(7)})),
    "head of another shape": in_file(lambda t: t.update({key(t, "classifier.weight"): torch.zeros(5, 32)})),
    "no head": in_file(lambda t: t.pop(key(t, "classifier.weight"))),
    "rows of another shape": in_file(lambda t: t.update({key(t, "token"): torch.zeros(3, 32)})),
    "no rows": in_file(lambda t: t.pop(key(t, "token"))),
}
CONFIGS = {
    "blocks that do not fit": in_config(num_splits=None, block_size=10**6, pool_size=None),
    "rows of an adapted embedding": in_config(target_modules=["query", "word_embeddings"]),
    "rows that there are not": in_config(trainable_token_indices={"word_embeddings": [3, 50]}),
    "rows of no embedding": in_config(trainable_token_indices={"wte": [3, 5]}),
    "no such target": in_config(target_modules=["keyring"]),
    "not a layer": in_config(modules_to_save=["layer"]),
}
SECOND = {"an adapted module in full": in_config(modules_to_save=["dense"], target_modules=["query"])}

LOAD = {
    "PEFT": lambda model, folder: PeftModel.from_pretrained(model, folder),
    "PEFT, to be trained": lambda model, folder: PeftModel.from_pretrained(model, folder, is_trainable=True),
    "PEFT, low memory": lambda model, folder: PeftModel.from_pretrained(model, folder, low_cpu_mem_usage=True),
    "ours": lambda model, folder: structune.load_adapter(model, folder),
    "transformers": lambda model, folder: model.load_adapter(str(folder)),
}
ADD = {"transformers, add": lambda model, folder: model.add_adapter(PeftConfig.from_pretrained(str(folder)))}
LOAD_SECOND = {
    "PEFT, second": lambda model, folder: model.load_adapter(folder, "second"),
    "ours, second": lambda model, folder: structune.load_adapter(model, folder, "second"),
    "transformers, second": lambda model, folder: model.load_adapter(str(folder), "second"),
}
ADD_SECOND = {
    "PEFT, add second": lambda model, folder: model.add_adapter("second", PeftConfig.from_pretrained(str(folder))),
    "transformers, add second": lambda m, folder: m.add_adapter(PeftConfig.from_pretrained(str(folder)), "second"),
}
CASES = [
    (load, broken, has_one)
    for loaders, stages, has_one in (
        (LOAD, FILES | CONFIGS, False),
        (ADD, CONFIGS, False),
        (LOAD_SECOND, FILES | CONFIGS | SECOND, True),
        (ADD_SECOND, CONFIGS | SECOND, True),
    )
    for load in loaders.items()
    for broken in stages.items()
]


@pytest.mark.parametrize(
    ("load", "broken", "has_one"), CASES, ids=[f"{load[0]}: {broken[0]}" for load, broken, _ in CASES]
)
@pytest.mark.parametrize("training", [False, True])
def test_a_failed_load_leaves_the_model_as_it_was(load, broken, has_one, training, saved, bert, ids, randomise) -> None:
    model = bert()
    first = structune.c3a(block_size=4, target_modules=["dense"], exclude_modules=["pooler.dense"])
    if has_one and load[0].startswith("PEFT"):
        model = randomise(get_peft_model(model, first))
    elif has_one:
        model.add_adapter(first)
        randomise(model)
    model.train(training)
    broken[1](saved)
    before, tensors = state_of(model), tensors_of(model)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - PEFT's, transformers', torch's or ours
        load[1](model, saved)
    assert str(raised.value)
    assert state_of(model) == before
    after = tensors_of(model)
    assert after.keys() == tensors.keys()
    assert all(torch.equal(after[name], tensors[name]) for name in tensors)
    assert torch.isfinite(model.eval()(ids).logits).all()


def test_after_a_failure_another_adapter_goes_in_as_into_a_new_model(saved, bert, ids) -> None:
    expected = PeftModel.from_pretrained(bert(), saved)(ids).logits
    model = bert()
    with pytest.raises(ValueError, match="block_size=40"):
        model.add_adapter(structune.c3a(block_size=40, target_modules=["query"]))
    model.load_adapter(str(saved))
    assert torch.equal(model(ids).logits, expected)


def test_loading_into_an_adapter_that_is_there_is_all_or_nothing(saved, bert, ids, randomise) -> None:
    """torch copies what fits before it says what does not."""
    model = PeftModel.from_pretrained(bert(), saved)
    expected = model(ids).logits
    other = randomise(get_peft_model(bert(), PeftConfig.from_pretrained(str(saved))), seed=5)
    other.save_pretrained(saved)
    FILES["head of another shape"](saved)
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_adapter(saved, "default")
    assert torch.equal(model(ids).logits, expected)
    with pytest.raises(RuntimeError, match="size mismatch"):
        structune.hotswap_adapter(model, saved)
    assert torch.equal(model(ids).logits, expected)


def test_words_for_what_is_both_adapted_and_trained_in_full(saved, bert) -> None:
    CONFIGS["rows of an adapted embedding"](saved)
    with pytest.raises(TypeError, match=r"StructuneEmbedding'>, for it is adapted: leave the module out of target_mod"):
        PeftModel.from_pretrained(bert(), saved)


def test_the_head_of_another_size_may_be_left_out(saved, bert) -> None:
    FILES["head of another shape"](saved)
    with pytest.warns(UserWarning, match="classifier"):
        PeftModel.from_pretrained(bert(), saved, ignore_mismatched_sizes=True)


@pytest.mark.parametrize("load", [*LOAD.items(), *LOAD_SECOND.items()], ids=[*LOAD, *LOAD_SECOND])
@pytest.mark.parametrize("is_trainable", [False, True])
def test_what_is_loaded_to_be_trained_is_in_training_mode(load, is_trainable, saved, bert, monkeypatch) -> None:
    """As LoRA's parts are, whatever mode the model around them is in."""
    change(saved, dropout=0.5)
    name, _ = load
    model = bert()
    if "second" in name:
        first = structune.c3a(block_size=4, target_modules=["query"], dropout=0.5)
        model = get_peft_model(model, first) if "PEFT" in name else inject_adapter_in_model(first, model)
        model.eval()
    own = "second" if "second" in name else "default"
    if name.startswith("PEFT") and own == "default":
        model = PeftModel.from_pretrained(model, saved, is_trainable=is_trainable)
    elif name.startswith("ours"):
        structune.load_adapter(model, saved, own, is_trainable=is_trainable)
    else:
        model.load_adapter(str(saved), own, is_trainable=is_trainable)
    layers = [module for module in model.modules() if isinstance(module, StructuneLayer)]
    assert len(layers) == 2
    for layer in layers:
        modes = {layer.training, layer.delta(own).training, layer.structune_dropout[own].training}
        assert modes == {is_trainable}
        assert not layer.base_layer.training
        if own == "second":
            assert not layer.structune_dropout["default"].training


def test_other_methods_load_as_before(bert, ids, randomise, tmp_path) -> None:
    randomise(get_peft_model(bert(), LoraConfig(target_modules=["query"]))).save_pretrained(tmp_path / "lora")
    expected = PeftModel.from_pretrained(bert(), tmp_path / "lora")(ids).logits
    native = bert()
    native.load_adapter(str(tmp_path / "lora"))
    assert torch.equal(native(ids).logits, expected)
    assert not torch.equal(expected, bert()(ids).logits)
    change(tmp_path / "lora", lambda t: t.update({key(t, f"{QUERY}.lora_A"): torch.zeros(3, 3)}))
    model = bert()
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(model, tmp_path / "lora")
    assert hasattr(model, "peft_config")  # none of our business


def test_everything_that_a_module_holds_comes_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model.names, model.table, model.kept = ["a"], {"b": 1}, nn.Linear(2, 2)
    names, table = model.names, model.table

    def change_and_stop() -> None:
        model.names.append("c")
        model.table["b"] = 2
        model.new = 3
        del model.kept
        model[0] = nn.Linear(2, 5)
        model[1].requires_grad_(False).train(False)
        nn.utils.parametrizations.weight_norm(model[1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), as_before_if_failing(model):
        change_and_stop()
    assert (model.names, model.table) == (["a"], {"b": 1})
    assert model.names is names
    assert model.table is table
    assert not hasattr(model, "new")
    assert isinstance(model.kept, nn.Linear)
    assert model[0].out_features == 2
    assert model[1].training
    assert type(model[1]) is nn.Linear
    assert model[1](torch.ones(1, 2)).shape == (1, 2)
    assert all(parameter.requires_grad for parameter in model.parameters())
