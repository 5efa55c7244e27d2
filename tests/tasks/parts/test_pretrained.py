"""Which parts of a model are its head, which layers an adapter goes to, and where a model comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from structune.errors import UserError
from structune.finetune import adapters
from structune.finetune.adapters import apply_method, check_method, split_parameters
from structune.methods.bitfit import BitFit
from structune.methods.full import Full
from structune.methods.head import Head
from structune.methods.lora import LoRA
from structune.methods.registry import preset, preset_names
from structune.tasks.parts import pretrained as model
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.pretrained import EMBEDDED_HUB_NAME, hub_name
from structune.tasks.task import Base
from structune.tasks.text_classification import TextClassification

TASK = TextClassification()

SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 30}
DISTIL = {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 64, "vocab_size": 30}


def save(folder: Path, tiny_model: Path, backbone: PreTrainedModel) -> ModelSection:
    """A pretrained backbone in a folder of its own, with the tiny model's tokenizer."""
    folder.mkdir(exist_ok=True)
    for file in tiny_model.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    backbone.save_pretrained(folder)
    return ModelSection(name=str(folder))


def base_of(tmp_path: Path, tiny_model: Path, backbone: PreTrainedModel) -> Base:
    return TASK.load(save(tmp_path / "model", tiny_model, backbone), {"classes": ["no", "yes"]}, 0)


@pytest.mark.parametrize(
    ("cls", "config", "head"),
    [
        (BertModel, BertConfig(**SHAPE), ["classifier"]),
        (RobertaModel, RobertaConfig(**SHAPE), ["classifier"]),
        (DistilBertModel, DistilBertConfig(**DISTIL), ["pre_classifier", "classifier"]),
        (MPNetModel, MPNetConfig(**SHAPE), ["classifier"]),
    ],
)
def test_the_head_is_what_was_not_pretrained(
    cls: type[PreTrainedModel], config: PretrainedConfig, head: list[str], tmp_path: Path, tiny_model: Path
) -> None:
    base = base_of(tmp_path, tiny_model, cls(config))
    assert base.head == head
    adapter, trained = split_parameters(apply_method(base, LoRA(rank=2), TASK), base.head)
    assert adapter
    assert {name.split(".")[2] for name in trained} == set(head)
    assert all("lora" in name for name in adapter)


def test_a_pooler_that_was_not_pretrained_is_part_of_the_head(tmp_path: Path, tiny_model: Path) -> None:
    base = base_of(tmp_path, tiny_model, BertModel(BertConfig(**SHAPE), add_pooling_layer=False))
    assert base.head == ["classifier", "bert.pooler.dense"]
    _, head = split_parameters(apply_method(base, LoRA(rank=2), TASK), base.head)
    assert sum(parameter.numel() for parameter in head.values()) == 32 * 32 + 32 + 32 * 2 + 2


def test_the_head_comes_from_the_seed(tiny_model: Path) -> None:
    weights = [
        TASK.load(ModelSection(name=str(tiny_model)), {"classes": ["a", "b"]}, seed).model.classifier.weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_labels_are_kept_in_the_configuration(tiny_model: Path) -> None:
    config = TASK.load(ModelSection(name=str(tiny_model)), {"classes": ["a", "b", "c"]}, 0).model.config
    assert config.id2label == {0: "a", 1: "b", 2: "c"}
    assert config.label2id == {"a": 0, "b": 1, "c": 2}


def test_methods_of_the_models_own_numbers(tiny_model: Path) -> None:
    counts = {}
    for method in (Head(), BitFit(), Full()):
        base = TASK.load(ModelSection(name=str(tiny_model)), {"classes": ["a", "b"]}, 0)
        adapter, head = split_parameters(apply_method(base, method, TASK), base.head)
        assert sum(parameter.numel() for parameter in head.values()) == 2 * 33
        assert all(name.endswith(".bias") for name in adapter) or method.name == "full"
        counts[method.name] = sum(parameter.numel() for parameter in adapter.values())
    base = TASK.load(ModelSection(name=str(tiny_model)), {"classes": ["a", "b"]}, 0)
    total = sum(parameter.numel() for parameter in base.model.parameters())
    biases = 32 + 2 * (4 * 32 + 64 + 3 * 32) + 32  # embeddings' norm; q, k, v, out, up, down and two norms; pooler
    assert counts == {"head": 0, "bitfit": biases, "full": total - 66}


def test_an_architecture_without_default_layers_lists_its_own(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(adapters.QUERY_AND_VALUE, "mpnet")
    base = base_of(tmp_path, tiny_model, MPNetModel(MPNetConfig(**SHAPE)))
    with pytest.raises(UserError, match=r"no default is known for the architecture 'mpnet'; .* out of .*k, o, .*q, v"):
        apply_method(base, LoRA(), TASK)
    assert apply_method(base, LoRA(target_modules=["q", "v"]), TASK)


def test_the_embedded_model_goes_by_its_name_on_the_hub() -> None:
    assert hub_name(ModelSection()) == EMBEDDED_HUB_NAME


def test_a_missing_embedded_model_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "EMBEDDED_PACKAGE", "no_such_package_here")
    with pytest.raises(UserError, match=r"pip install 'structune\[demo\]'"):
        model.embedded_folder()


def test_a_damaged_embedded_model_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "fake_embedded_model"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package must not be run')")
    (package / "model" / "model.safetensors").write_bytes(b"damaged")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(model, "EMBEDDED_PACKAGE", "fake_embedded_model")
    with pytest.raises(UserError, match="missing or damaged"):
        model.embedded_folder()


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be(name: str) -> None:
    check_method(preset(name))
    check_method(preset(name).model_copy(update={"target_modules": ".*query"}))
