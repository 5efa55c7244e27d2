"""Weights that are computed when they are read: refused before anything is changed, and noticed afterwards too."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm

import structune
from structune import StructuneConfig


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


class Masked(nn.Linear):
    """A weight that its class computes."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.raw = nn.Parameter(self.weight.detach().clone())
        del self.weight

    @property
    def weight(self) -> Tensor:
        return self.raw.tril()


def _pruned(module: nn.Module, name: str = "weight") -> nn.Module:
    prune.l1_unstructured(module, name, 0.5)
    return module


def _parametrised(module: nn.Module, name: str = "weight") -> nn.Module:
    parametrize.register_parametrization(module, name, Halved())
    return module


def _by_a_hook(module: nn.Module) -> nn.Module:
    raw = module.weight.detach().clone()
    del module.weight
    module.weight = raw
    module.register_forward_pre_hook(lambda module, _: setattr(module, "weight", raw / 2))
    return module


def _plain_tensor(module: nn.Module) -> nn.Module:
    raw = module.weight.detach().clone()
    del module.weight
    module.weight = raw
    return module


def _unparametrised(module: nn.Module) -> None:
    parametrize.remove_parametrizations(module, "weight")


COMPUTED = {
    "weight_norm-old": (old_weight_norm, r"\(WeightNorm\): call nn.utils.remove_weight_norm", remove_weight_norm),
    "weight_norm": (parametrizations.weight_norm, "remove_parametrizations", _unparametrised),
    "spectral_norm-old": (old_spectral_norm, "remove_spectral_norm", remove_spectral_norm),
    "spectral_norm": (parametrizations.spectral_norm, r"parametrization \(SpectralNorm\)", _unparametrised),
    "orthogonal": (parametrizations.orthogonal, r"parametrization \(Orthogonal\)", _unparametrised),
    "pruned": (_pruned, r"prune.remove\(module, 'weight'\)", lambda module: prune.remove(module, "weight")),
    "own": (_parametrised, r"parametrization \(Halved\)", _unparametrised),
    "hook": (_by_a_hook, "remove the hook", None),
    "tensor": (_plain_tensor, "no parameter of", None),
}
LAYERS = {
    "linear": (lambda: nn.Linear(8, 8), torch.randn(3, 8)),
    "conv": (lambda: nn.Conv1d(8, 8, 3), torch.randn(2, 8, 5)),
    "embedding": (lambda: nn.Embedding(9, 8), torch.arange(5)),
}
TARGETED = [(layer, {"target_modules": ["0"]}) for layer in LAYERS] + [
    (layer, {"target_parameters": ["0.weight"]}) for layer in ("linear", "embedding")
]


@pytest.mark.parametrize(("layer", "targets"), TARGETED)
@pytest.mark.parametrize(("compute", "said", "undo"), COMPUTED.values(), ids=COMPUTED)
def test_refused_with_the_fix_which_works(compute, said, undo, layer, targets) -> None:
    torch.manual_seed(0)
    make, x = LAYERS[layer]
    model = nn.Sequential(compute(make())).eval()
    config = StructuneConfig(block_size=4, init_weights=False, **targets)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TypeError, match=rf"^0(\.weight)?: 'weight' is.*{said}"):
        get_peft_model(model, copy.deepcopy(config))
    assert {name: tensor.tolist() for name, tensor in model.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in before.items()
    }
    assert not any("structune" in name for name, _ in model.named_modules())
    if undo is not None:
        expected = model(x)
        undo(model[0])
        torch.testing.assert_close(model(x), expected)
        adapted = get_peft_model(model, config)
        y = adapted(x)
        assert (y - expected).abs().max() > 1e-2
        torch.testing.assert_close(adapted.merge_and_unload()(x), y, rtol=1e-4, atol=1e-5)


def test_a_property_of_the_class_is_refused() -> None:
    with pytest.raises(TypeError, match="'weight' is no parameter of Masked"):
        get_peft_model(nn.Sequential(Masked(8, 8)), structune.c3a(block_size=4, target_modules=["0"]))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)


@pytest.mark.parametrize("name", ["in_proj_weight", "out_proj.weight"])
@pytest.mark.parametrize("compute", [_pruned, _parametrised])
def test_attention(compute, name) -> None:
    model = Attention()
    owner, _, parameter = f"attention.{name}".rpartition(".")
    compute(model.get_submodule(owner), parameter)
    with pytest.raises(TypeError, match=f"attention.*: {parameter!r} is computed"):
        get_peft_model(model, structune.c3a(block_size=4, target_modules=["attention"]))
    assert not any("structune" in key for key, _ in model.named_modules())


@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_a_computed_bias_is_fine(layer) -> None:
    make, x = LAYERS[layer]
    bare = nn.Sequential(nn.Identity(), make())
    nn.init.ones_(bare[1].bias)
    _parametrised(bare[1], "bias")
    config = structune.c3a(block_size=4, target_modules=r"1", init_weights=False)
    model = get_peft_model(copy.deepcopy(bare), config)
    y = model(x)
    assert (y - bare(x)).abs().max() > 1e-2
    torch.testing.assert_close(model.merge_and_unload()(x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compute", [old_weight_norm, parametrizations.weight_norm, _pruned, _parametrised])
@pytest.mark.parametrize("layer", LAYERS)
def test_computed_after_the_adapter_was_put_on(layer, compute) -> None:
    """The forward is right or refused, merging is refused, and nothing is lost."""
    make, x = LAYERS[layer]
    bare = nn.Sequential(make())
    model = get_peft_model(copy.deepcopy(bare), structune.c3a(block_size=4, target_modules=["0"], init_weights=False))
    for module in (bare[0], model.base_model.model[0].base_layer):
        compute(module)
    delta = model.base_model.model[0].get_delta_weight("default")
    if layer == "conv" and not bare[0]._forward_pre_hooks:
        with pytest.raises(TypeError, match="'weight' is computed"):
            model(x)
    else:
        product = {"conv": nn.functional.conv1d, "linear": nn.functional.linear, "embedding": nn.functional.embedding}
        torch.testing.assert_close(model(x), bare(x) + product[layer](x, delta), rtol=1e-4, atol=1e-5)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(TypeError, match="'weight' is computed"):
            merge()
    assert not model.base_model.model[0].merged


def test_a_layer_without_a_size_is_refused() -> None:
    with pytest.raises(TypeError, match="'weight' has no size yet: run the model once"):
        get_peft_model(nn.Sequential(nn.LazyLinear(8)), structune.c3a(block_size=4, target_modules=["0"]))
