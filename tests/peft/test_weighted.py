"""Weighted sums of adapters: ΔW of the new one is the sum, layer by layer, and survives saving."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import PeftModel, get_peft_model

import structune
from structune import StructuneConfig
from structune.peft import StructuneLayer

TARGETS = ["query", "value"]
WEIGHTS = {"default": 0.7, "second": -1.5}
PAIRS: dict[str, tuple[StructuneConfig, StructuneConfig, dict]] = {
    "circulant": (
        structune.c3a(block_size=5, target_modules=TARGETS),
        structune.c3a(block_size=5, target_modules=TARGETS, init_weights=False, scale=0.3),
        {"pool_size": None},
    ),
    "one pool": (
        structune.hydra("toeplitz", pool_size=30, target_modules=TARGETS, seed=4),
        structune.hydra("toeplitz", pool_size=30, target_modules=TARGETS, seed=4),
        {"pool_size": 30, "seed": 4},
    ),
    "one pool, partly frozen": (
        structune.hydra("hankel", pool_size=30, fixed_ratio=0.5, target_modules=TARGETS, seed=4),
        structune.hydra("hankel", pool_size=30, fixed_ratio=0.5, target_modules=TARGETS, seed=4),
        {"pool_size": 30, "fixed_ratio": 0.5},
    ),
    "two pools of one size": (
        structune.hydra("toeplitz", pool_size=30, target_modules=TARGETS, seed=4),
        structune.hydra("toeplitz", pool_size=30, target_modules=TARGETS, seed=5),
        {"pool_size": None},
    ),
    "two pools": (
        structune.hydra("hankel", pool_size=30, target_modules=TARGETS, seed=1),
        structune.hydra("hankel", pool_size=50, target_modules=TARGETS, fixed_ratio=0.3, init_weights=False, seed=2),
        {"pool_size": None, "fixed_ratio": 0.0},
    ),
    "low rank": (
        StructuneConfig(structure="low_rank", num_splits=1, rank=2, target_modules=TARGETS),
        StructuneConfig(structure="low_rank", num_splits=1, rank=3, target_modules=TARGETS, pool_size=90, seed=2),
        {"rank": 8},  # 2, and 2 · 3 with the start taken off
    ),
    "ranks by pattern": (
        StructuneConfig(structure="low_rank", num_splits=1, rank=2, rank_pattern={"value": 3}, target_modules=TARGETS),
        StructuneConfig(structure="low_rank", num_splits=1, target_modules=TARGETS),
        {"rank": 3},  # 2 + 1, and for values 3 + 1
    ),
    "toeplitz-like": (
        StructuneConfig(structure="toeplitz_like", num_splits=2, rank=1, target_modules=TARGETS),
        StructuneConfig(structure="toeplitz_like", num_splits=2, rank=2, target_modules=TARGETS, seed=8),
        {"rank": 3},
    ),
    "hankel-like": (
        StructuneConfig(structure="hankel_like", block_size=7, rank=1, target_modules=TARGETS, pool_size=70),
        StructuneConfig(structure="hankel_like", block_size=7, rank=2, target_modules=TARGETS, init_weights=False),
        {"rank": 4},
    ),
    "on other layers": (
        structune.c3a(block_size=8, target_modules=["query", "output.dense"], block_size_pattern={"output.dense": 6}),
        structune.c3a(block_size=8, target_modules=["query", "key"], exclude_modules=r".*\.0\..*"),
        {"pool_size": None},
    ),
    "by pattern": (
        structune.hydra("toeplitz", pool_size=30, target_modules=TARGETS, pool_size_pattern={"value": 12}, seed=4),
        structune.hydra("toeplitz", pool_size=30, target_modules=TARGETS, pool_size_pattern={"value": 12}, seed=4),
        {"pool_size": 30},
    ),
}


def layers_of(model) -> dict[str, StructuneLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, StructuneLayer)}


def pair_of(bert, randomise, first, second):
    model = get_peft_model(bert(), first)
    model.add_adapter("second", second)
    model.base_model.set_adapter(["default", "second"])
    return randomise(model).eval()


@pytest.mark.parametrize(("first", "second", "expected"), PAIRS.values(), ids=PAIRS)
def test_the_sum_is_exact(first, second, expected, bert, ids, randomise, tmp_path) -> None:
    model = pair_of(bert, randomise, first, second)
    for layer in layers_of(model).values():
        layer.set_scale("second", 2.0)
    model.base_model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "sum")
    for name, layer in layers_of(model).items():
        assert "sum" in layer.structune_delta, name
        terms = [w * layer.get_delta_weight(a) for a, w in WEIGHTS.items() if a in layer.structune_delta]
        total = torch.stack(terms).sum(0)
        assert total.abs().max() > 1e-3
        torch.testing.assert_close(layer.get_delta_weight("sum"), total, rtol=1e-4, atol=1e-5)
    config = model.peft_config["sum"]
    assert {key: getattr(config, key) for key in expected} == expected
    assert model.active_adapters == ["default", "second"]
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".sum." in n)
    model.set_adapter("sum")
    logits = model(ids).logits
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    again = PeftModel.from_pretrained(bert(), tmp_path / "sum")
    assert layers_of(again).keys() == layers_of(model).keys()
    torch.testing.assert_close(again(ids).logits, logits, rtol=0, atol=0)
    assert any(p.requires_grad for n, p in model.named_parameters() if ".sum." in n)


def test_a_sum_draws_from_the_pool_as_its_terms_do(bert, randomise) -> None:
    """Also where they came from modules of other names, with other streams of the seed."""
    config = structune.hydra("toeplitz", pool_size=30, target_modules=["query"], seed=4)
    model = pair_of(bert, randomise, config, config)
    for layer in layers_of(model).values():
        for name in WEIGHTS:
            layer.delta(name).identify(replace(layer.delta(name).identity, stream=12345))
    expected = {
        layer: sum(w * layer.get_delta_weight(name) for name, w in WEIGHTS.items())
        for layer in layers_of(model).values()
    }
    model.base_model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "sum")
    for layer, delta in expected.items():
        assert layer.delta("sum").pool_size == 30
        torch.testing.assert_close(layer.get_delta_weight("sum"), delta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            structune.hydra("toeplitz", pool_size=30),
            "a sum of circulant and toeplitz blocks is not one structured matrix",
        ),
        (structune.c3a(block_size=4), "the adapters are cut into blocks of different sizes"),
    ],
)
def test_sums_that_are_no_adapter_are_refused(second, said, bert, randomise) -> None:
    model = pair_of(bert, randomise, structune.c3a(block_size=8), second)
    before = {name: list(layer.structune_delta) for name, layer in layers_of(model).items()}
    with pytest.raises(ValueError, match=said):
        model.base_model.add_weighted_adapter(["default", "second"], [1.0, 1.0], "sum")
    assert {name: list(layer.structune_delta) for name, layer in layers_of(model).items()} == before
    assert set(model.peft_config) == {"default", "second"}


def test_nodes_do_not_add_up(bert, randomise) -> None:
    config = StructuneConfig(structure="cauchy_like", rank=1, num_splits=2)
    model = pair_of(bert, randomise, config, StructuneConfig(structure="cauchy_like", rank=1, num_splits=2, seed=1))
    with pytest.raises(ValueError, match="a sum of these cauchy_like blocks is not one cauchy_like block"):
        model.base_model.add_weighted_adapter(["default", "second"], [1.0, 1.0], "sum")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((["default", "second"], [1.0], "sum"), "adapters has 2 names, weights 1 numbers"),
        (([], [], "sum"), "adapters has 0 names"),
        (
            (["default", "third"], [1.0, 1.0], "sum"),
            r"adapters has \['third'\], but the model has \['default', 'second'\]",
        ),
        ((["default", "second"], [1.0, 1.0], "second"), "adapter_name='second' is taken"),
        ((["default", "second"], [1.0, float("nan")], "sum"), r"weights has nan"),
    ],
)
def test_wrong_arguments(arguments, said, bert, randomise) -> None:
    model = pair_of(bert, randomise, structune.c3a(block_size=8), structune.c3a(block_size=8))
    with pytest.raises(ValueError, match=said):
        model.base_model.add_weighted_adapter(*arguments)
