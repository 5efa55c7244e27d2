"""Where adapters go, what they cost, and that a failed attempt leaves the model as it was."""

from __future__ import annotations

import pytest
import torch
from peft import TaskType, get_peft_model
from torch import nn
from transformers import RobertaConfig, RobertaModel

import structune
from structune.peft import StructuneLayer


def adapted(model: nn.Module) -> list[str]:
    return [
        name.removeprefix("base_model.model.").removeprefix("bert.encoder.layer.")
        for name, module in model.named_modules()
        if isinstance(module, StructuneLayer)
    ]


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"target_modules": ["query"]}, ["0.attention.self.query", "1.attention.self.query"]),
        ({"target_modules": r".*\.1\..*\.(key|value)"}, ["1.attention.self.key", "1.attention.self.value"]),
        ({"target_modules": ["query"], "layers_to_transform": 1}, ["1.attention.self.query"]),
        (
            {"target_modules": ["query"], "layers_to_transform": [0], "layers_pattern": "layer"},
            ["0.attention.self.query"],
        ),
        (
            {"target_modules": ["query", "key"], "exclude_modules": r".*\.0\..*"},
            ["1.attention.self.query", "1.attention.self.key"],
        ),
        (
            {},
            [f"{i}.attention.self.{part}" for i in (0, 1) for part in ("query", "value")],
        ),
        (
            {"target_modules": "all-linear", "task_type": TaskType.SEQ_CLS},
            [
                f"{i}.{part}"
                for i in (0, 1)
                for part in (
                    "attention.self.query",
                    "attention.self.key",
                    "attention.self.value",
                    "attention.output.dense",
                    "intermediate.dense",
                    "output.dense",
                )
            ]
            + ["bert.pooler.dense"],
        ),
    ],
)
def test_targets(kwargs, expected, bert) -> None:
    assert adapted(get_peft_model(bert(), structune.c3a(block_size=8, **kwargs))) == expected


def test_modules_to_save_are_trained_in_full(bert) -> None:
    model = get_peft_model(bert(), structune.c3a(block_size=8, modules_to_save=["classifier"]))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trainable if "classifier" in name} == {
        "base_model.model.classifier.modules_to_save.default.weight",
        "base_model.model.classifier.modules_to_save.default.bias",
    }


@pytest.mark.parametrize(("bias", "count"), [("none", 0), ("structune_only", 4), ("all", 19)])
def test_bias(bias, count, bert) -> None:
    model = get_peft_model(bert(), structune.c3a(block_size=8, bias=bias))
    trained = [name for name, p in model.named_parameters() if p.requires_grad and name.endswith("bias")]
    assert len(trained) == count


def test_sizes_by_pattern_reach_the_layers(bert) -> None:
    config = structune.hydra(
        "toeplitz", pool_size=30, target_modules=["query", "value"], pool_size_pattern={"value": 12, "query": 20}
    )
    model = get_peft_model(bert(), config)
    sizes = {name.rsplit(".", 2)[-2]: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    layers = [module for module in model.modules() if isinstance(module, StructuneLayer)]
    assert [layer.structune_delta["default"].num_trainable for layer in layers] == [20, 12, 20, 12]
    assert sizes


def test_layers_have_index_maps_of_their_own_that_the_seed_decides(bert) -> None:
    def maps(seed: int) -> list[torch.Tensor]:
        model = get_peft_model(bert(), structune.hydra("toeplitz", pool_size=30, seed=seed))
        return [m.structune_delta["default"].index for m in model.modules() if isinstance(m, StructuneLayer)]

    first, again, other = maps(0), maps(0), maps(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[1])


def test_counts_of_the_papers() -> None:
    """HyDRA: pool 384 on 24 matrices is 9,216 numbers. C3A on RoBERTa-base: one block 18,432, six blocks 110,592."""

    def count(config: structune.StructuneConfig) -> int:
        with torch.device("meta"):
            model = get_peft_model(RobertaModel(RobertaConfig()), config)
        assert len(adapted(model)) == 24
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    targets = {"target_modules": ["query", "value"]}
    for structure in structune.structures.names():
        assert count(structune.hydra(structure, pool_size=384, **targets)) == 9_216
    assert count(structune.c3a(block_size=768, **targets)) == 18_432
    assert count(structune.c3a(block_size=128, **targets)) == 110_592


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        (
            structune.c3a(block_size=40, target_modules="all-linear"),
            ValueError,
            "layer.0.attention.self.query: block_size=40 is larger than a weight of 32×32: choose at most 32",
        ),
        (
            structune.hydra("toeplitz", pool_size=9, target_modules=["query", "classifier"]),
            ValueError,
            "classifier: num_splits=4 cuts a weight of 3×32 finer",
        ),
        (
            structune.c3a(block_size=8, target_modules=["query", "LayerNorm"]),
            TypeError,
            "a layer of type LayerNorm cannot be adapted: target_modules may name Linear, Conv1D, Conv1d, ",
        ),
    ],
)
def test_a_layer_that_cannot_be_adapted_leaves_the_model_as_it_was(config, error, said, bert) -> None:
    model = bert()
    before = [(name, type(module)) for name, module in model.named_modules()]
    with pytest.raises(error, match=said):
        get_peft_model(model, config)
    assert [(name, type(module)) for name, module in model.named_modules()] == before


def test_a_second_adapter_that_fails_leaves_the_first(bert, ids, randomise) -> None:
    model = randomise(get_peft_model(bert(), structune.c3a(block_size=8)))
    expected = model(ids).logits
    with pytest.raises(ValueError, match="block_size=40"):
        model.add_adapter("second", structune.c3a(block_size=40))
    layers = [module for module in model.modules() if isinstance(module, StructuneLayer)]
    assert all(list(layer.structune_delta) == ["default"] for layer in layers)
    assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ({"block_size_pattern": {"quary": 4}}, r"block_size_pattern: 'quary' decides about no adapted module"),
        ({"block_size_pattern": {"query": 4, r"layer\.7\.x": 2, "k": 4}}, "'k' decides about no"),
        (
            {"scale_pattern": {"key": 0.5, "self.key": 0.25}},
            "scale_pattern: 'self.key' decides about no",
        ),
        ({"structure_pattern": {"encoder": "hankel"}}, "structure_pattern: 'encoder' decides"),
        ({"num_splits_pattern": {"value": 2}}, "num_splits_pattern: 'value' decides"),
        ({"pool_size_pattern": {"dense": 20}}, "pool_size_pattern: 'dense' decides"),
        ({"fixed_ratio_pattern": {"QUERY": 0.5}}, "fixed_ratio_pattern: 'QUERY' decides"),
        ({"rank_pattern": {"quary": 2}, "structure": "low_rank"}, "rank_pattern keys did not match.*quary"),
    ],
)
def test_patterns_that_decide_nothing_are_said(patterns, said, bert) -> None:
    """Mistyped, of a module that is not adapted, or after one that matches the same modules."""
    options = {"structure": "circulant", "block_size": 8, "target_modules": ["query", "key"]} | patterns
    with pytest.warns((UserWarning, RuntimeWarning), match=said) as warned:
        get_peft_model(bert(), structune.StructuneConfig(**options))
    assert len([w for w in warned if "_pattern" in str(w.message)]) == 1


def test_patterns_that_decide_something_are_not_said(bert, mlp, recwarn) -> None:
    patterns = {r"layer\.1\..*key": 4, "query": 16}
    adapter = structune.c3a(block_size=8, target_modules=["query", "key"], block_size_pattern=patterns)
    model = get_peft_model(bert(), adapter)
    sizes = {layer.delta("default").grid.rows for layer in model.modules() if isinstance(layer, StructuneLayer)}
    assert sizes == {4, 8, 16}
    parameters = {"block_size_pattern": {"lin0.weight": 2}, "target_parameters": ["lin0.weight", "lin1.weight"]}
    get_peft_model(mlp(), structune.c3a(block_size=8, **parameters))
    assert [str(w.message) for w in recwarn if "decide" in str(w.message)] == []
