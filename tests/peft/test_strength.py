"""Adapters' strengths, and who is trained."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

import structune
from structune import StructuneConfig
from structune.peft import StructuneLayer


@pytest.fixture
def pair(bert, randomise):
    """Two adapters on query and value, the second on key as well."""
    model = get_peft_model(bert(), structune.c3a(block_size=8, target_modules=["query", "value"]))
    second = structune.hydra("toeplitz", pool_size=30, target_modules=["query", "value", "key"], seed=2)
    model.add_adapter("second", second)
    model.base_model.set_adapter(["default", "second"])
    return randomise(model, std=0.1).eval()


def layers_of(model) -> list[StructuneLayer]:
    return [module for module in model.modules() if isinstance(module, StructuneLayer)]


@pytest.mark.parametrize("algorithm", ["dense", "fft", "auto"])
def test_strength_multiplies_the_output_of_an_adapter(algorithm) -> None:
    model = get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(12, 8)),
        StructuneConfig(block_size=4, scale=0.5, algorithm=algorithm, target_modules=["0"], init_weights=False),
    ).eval()
    (layer,) = layers_of(model)
    x = torch.randn(5, 12)
    with torch.no_grad():
        base = layer.base_layer(x)
        once = model(x) - base
        assert once.abs().max() > 1e-2
        for strength in (3.0, 0.0, -0.25):
            layer.set_scale("default", strength)
            torch.testing.assert_close(model(x) - base, strength * once, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(x @ layer.get_delta_weight("default").T, strength * once, rtol=1e-4, atol=1e-6)
    layer.set_scale("default", 2.0)
    layer.scale_layer(3.0)
    assert layer.delta("default").scale == 3.0
    layer.unscale_layer(3.0)
    assert layer.delta("default").scale == 1.0
    layer.unscale_layer()
    assert layer.delta("default").scale == 0.5
    layer.set_scale("no such adapter", 7.0)


def test_only_active_adapters_are_scaled_together(pair) -> None:
    pair.set_adapter("default")
    for layer in layers_of(pair):
        layer.scale_layer(5.0)
    strengths = {name: d.strength for layer in layers_of(pair) for name, d in layer.structune_delta.items()}
    assert strengths == {"default": 5.0, "second": 1.0}


def test_scaling_reads_the_adapters_that_there_are(pair) -> None:
    layer = next(layer for layer in layers_of(pair) if len(layer.structune_delta) == 2)
    scaling = layer.scaling
    before = scaling.copy()
    layer.set_scale("second", 3.0)
    assert before == {"default": 1.0, "second": 1.0}
    assert dict(scaling) == {"default": 1.0, "second": 3.0}
    layer.scaling = {"default": 0.5}
    assert (scaling["default"], len(scaling)) == (0.5, 2)
    pair.delete_adapter("second")
    assert "second" not in scaling


def test_strength_is_not_saved(pair, bert, tmp_path) -> None:
    from peft import PeftModel

    pair.set_adapter("default")
    for layer in layers_of(pair):
        layer.set_scale("default", 4.0)
    pair.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(bert(), tmp_path)
    assert {layer.delta("default").scale for layer in layers_of(again)} == {1.0}


def test_gradients_can_be_switched_by_adapter(pair) -> None:
    def trained() -> set[str]:
        return {n.split(".structune_delta.")[1] for n, p in pair.named_parameters() if p.requires_grad}

    pair.base_model.set_requires_grad("second", False)
    assert trained() == {"default.pool"}
    pair.base_model.set_requires_grad(["default"], False)
    assert trained() == set()
    pair.base_model.set_requires_grad(["default", "second"])
    assert trained() == {"default.pool", "second.pool"}


def test_deleting_an_adapter_leaves_the_other(pair, ids) -> None:
    pair.set_adapter("default")
    expected = pair(ids).logits
    pair.delete_adapter("second")
    assert torch.equal(pair(ids).logits, expected)


@pytest.mark.parametrize("scale", [1e308, -1e19, float("inf"), float("nan")])
def test_a_strength_that_overflows_is_refused(pair, scale: float) -> None:
    """Nothing is changed; 0 switches an adapter off."""
    layer = layers_of(pair)[0]
    layer.set_scale("default", 0.5)
    with pytest.raises(ValueError, match="must be a finite number of at most"):
        layer.set_scale("default", scale)
    with pytest.raises(
        ValueError, match="weights must be finite numbers|a weight=.* must be a finite number of at most"
    ):
        pair.add_weighted_adapter(["default"], [scale], "sum")
    assert layer.delta("default").strength == 0.5
    layer.set_scale("default", 0)
    assert layer.delta("default").scale == 0
