"""Quantised base weights: forward and backward are those of the de-quantised weight, merging says what it costs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.utils.quantization_utils import ForwardOnlyQuantizationBackend
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TorchAoConfig

import structune
from structune.peft import StructuneLayer

# bitsandbytes computes 8-bit products from 8-bit inputs
TOLERANCE = {"8bit": 3e-2}
EXACT = 1e-5


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(64, 128)
        self.b = nn.Linear(128, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


def replaced(model: Two, make: Callable[[nn.Linear], nn.Module]) -> Two:
    for name in ("a", "b"):
        setattr(model, name, make(getattr(model, name)))
    return model


def bnb8(model: Two) -> Two:
    bnb = pytest.importorskip("bitsandbytes")

    def make(linear: nn.Linear) -> nn.Module:
        quantised = bnb.nn.Linear8bitLt(linear.in_features, linear.out_features, has_fp16_weights=False)
        quantised.load_state_dict(linear.state_dict())
        return quantised.to("cpu")

    return replaced(model, make)


def bnb4(kind: str) -> Callable[[Two], Two]:
    def quantise(model: Two) -> Two:
        bnb = pytest.importorskip("bitsandbytes")

        def make(linear: nn.Linear) -> nn.Module:
            sizes = linear.in_features, linear.out_features
            quantised = bnb.nn.Linear4bit(*sizes, quant_type=kind, compute_dtype=torch.float32)
            quantised.load_state_dict(linear.state_dict())
            return quantised.to("cpu")

        return replaced(model, make)

    return quantise


def torchao(bits: int) -> Callable[[Two], Two]:
    def quantise(model: Two) -> Two:
        pytest.importorskip("torchao")
        import torchao.quantization as ao

        how = {
            8: lambda: ao.Int8WeightOnlyConfig(),
            4: lambda: ao.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=ao.PerGroup(32)),
        }[bits]()
        ao.quantize_(model, how)

        class Quantizer:  # where transformers' models keep it
            class quantization_config:
                get_apply_tensor_subclass = staticmethod(lambda: how)

        model.hf_quantizer = Quantizer
        return model

    return quantise


def hqq(model: Two) -> Two:
    pytest.importorskip("hqq")
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    how = BaseQuantizeConfig(nbits=4, group_size=32)
    return replaced(model, lambda linear: HQQLinear(linear, how, compute_dtype=torch.float32, device="cpu"))


KINDS = {
    "8bit": bnb8,
    "nf4": bnb4("nf4"),
    "fp4": bnb4("fp4"),
    "torchao-int8": torchao(8),
    "torchao-int4": torchao(4),
    "hqq": hqq,
}
every_kind = pytest.mark.parametrize("kind", KINDS)
FOLDED = 9000
"""Tokens enough for one product with W + ΔW."""


def quantised(kind: str) -> Two:
    torch.manual_seed(0)
    return KINDS[kind](Two().eval())


def adapted(kind: str, randomise, **kwargs: Any):
    model = get_peft_model(quantised(kind), structune.c3a(block_size=16, target_modules=["a", "b"], **kwargs))
    return randomise(model, std=0.05).eval()


def layers_of(model) -> dict[str, StructuneLayer]:
    return {n.rpartition(".")[2]: m for n, m in model.named_modules() if isinstance(m, StructuneLayer)}


def dequantised(model) -> Two:
    """A plain model with W + ΔW, from the layers' de-quantised weights."""
    plain = Two()
    for name, layer in layers_of(model).items():
        linear = getattr(plain, name)
        with torch.no_grad():
            linear.weight.copy_(layer.get_base_weight() + layer.get_delta_weight("default"))
            linear.bias.copy_(layer.get_base_layer().bias)
    return plain


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@every_kind
@pytest.mark.parametrize("tokens", [5, FOLDED])
def test_forward_and_backward_are_those_of_the_dequantised_weight(kind, tokens, randomise) -> None:
    model = adapted(kind, randomise)
    x = torch.randn(tokens, 64, requires_grad=True)
    plain = dequantised(model)
    bound = TOLERANCE.get(kind, EXACT)
    expected = plain(x)
    assert error(quantised(kind)(x), expected) > 5 * bound  # ΔW matters
    assert error(model(x), expected) < bound
    model.train()
    (of_input,) = torch.autograd.grad(model(x).square().sum(), x, retain_graph=False)
    (expected_of_input,) = torch.autograd.grad(plain(x).square().sum(), x)
    assert error(of_input, expected_of_input) < bound
    model(x).square().sum().backward()
    plain(x).square().sum().backward()
    for name, layer in layers_of(model).items():
        pool = layer.delta("default").pool
        (of_pool,) = torch.autograd.grad(layer.get_delta_weight("default"), pool, getattr(plain, name).weight.grad)
        assert error(pool.grad, of_pool) < bound


@every_kind
def test_training_goes_on_after_an_evaluation(kind, randomise) -> None:
    """bitsandbytes repacks 4-bit weights in evaluation on some CPUs and then has no input gradient."""
    model = adapted(kind, randomise)
    x = torch.randn(5, 64)
    with torch.no_grad():
        before = model(x)
    model.train()
    model(x).square().sum().backward()
    below = layers_of(model)["a"].delta("default").pool.grad
    assert below is not None and below.abs().max() > 1e-3
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(x), before)


@every_kind
def test_merging_reports_its_error_and_can_be_undone_exactly(kind, randomise) -> None:
    model = adapted(kind, randomise)
    x = torch.randn(5, 64)
    with torch.no_grad():
        before = model(x)
        wanted = {
            n: layer.get_base_weight() + layer.get_delta_weight("default") for n, layer in layers_of(model).items()
        }
        changes = {n: layer.get_delta_weight("default") for n, layer in layers_of(model).items()}
        with pytest.warns(
            UserWarning, match=r"merged into 2 quantised weights: quantising W \+ ΔW anew left an error of"
        ):
            model.merge_adapter(safe_merge=True)
        for name, layer in layers_of(model).items():
            lost = layer.get_base_weight().float() - wanted[name]
            assert layer.merge_error == pytest.approx(float(lost.norm() / changes[name].norm()), rel=0.05)
            assert 1e-4 < layer.merge_error < 0.7
            assert error(layer.get_base_weight().float(), wanted[name]) < 0.2
        merged = model(x)
        assert error(merged, before) < 0.25
        model.unmerge_adapter()
        assert all(layer.merge_error is None for layer in layers_of(model).values())
        assert torch.equal(model(x), before)
        with pytest.warns(UserWarning, match="merged into 2 quantised weights"):
            unloaded = model.merge_and_unload()
        assert not layers_of(unloaded)
        assert type(unloaded.a) is type(quantised(kind).a)
        assert error(unloaded(x), merged) < 2e-2  # 4-bit layers may repack now


@pytest.mark.filterwarnings("ignore:adapters were merged", "ignore:Already following adapters")
def test_adapters_merged_one_by_one_are_quantised_once(randomise) -> None:
    """The second merge starts from the first weight again, not from a weight that was rounded for the first."""
    model = adapted("nf4", randomise)
    model.add_adapter("second", structune.c3a(block_size=8, target_modules=["a", "b"]))
    model.base_model.set_adapter(["default", "second"])
    randomise(model, std=0.05)
    together, one_by_one = copy.deepcopy(model), model
    together.merge_adapter()
    one_by_one.merge_adapter(["second"])
    one_by_one.merge_adapter(["default"])
    for name, layer in layers_of(together).items():
        assert torch.equal(layer.get_base_weight(), layers_of(one_by_one)[name].get_base_weight())


def test_broken_numbers_leave_a_quantised_weight_as_it_was(randomise) -> None:
    model = adapted("nf4", randomise)
    x = torch.randn(5, 64)
    model.base_model.disable_adapter_layers()
    before = model(x)
    model.base_model.enable_adapter_layers()
    with torch.no_grad():
        layers_of(model)["a"].delta("default").pool[0] = float("nan")
    with pytest.raises(ValueError, match="would put NaN or infinite values into the weight"):
        model.merge_adapter(safe_merge=True)
    model.base_model.disable_adapter_layers()
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("kind", ["nf4", "hqq"])
def test_a_weight_dequantised_for_one_product_is_not_kept(kind, randomise, monkeypatch) -> None:
    from structune.peft.base_layers.linear import StructuneLinear

    model = adapted(kind, randomise).train()
    calls: list[int] = []
    dequantise = StructuneLinear._dequantised
    monkeypatch.setattr(StructuneLinear, "_dequantised", lambda self, dtype: calls.append(1) or dequantise(self, dtype))
    y = model(torch.randn(FOLDED, 64))
    assert len(calls) == 2  # once for each layer, forward
    y.square().sum().backward()
    assert len(calls) in (3, 4)  # made again for the backward pass where the input needs a gradient
    model(torch.randn(5, 64))
    assert len(calls) in (3, 4)


class ReadOnly(nn.Linear):
    """Stands for GPTQ, AWQ, AQLM and EETQ layers, which can be run but not made anew."""


@pytest.fixture
def read_only(monkeypatch):
    import structune.peft.base_layers as base_layers

    backend = ForwardOnlyQuantizationBackend("gptq")
    resolve = base_layers.backend_of
    monkeypatch.setattr(
        base_layers, "backend_of", lambda base, model: backend if isinstance(base, ReadOnly) else resolve(base, model)
    )
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), ReadOnly(8, 8))


def test_weights_that_can_only_be_run_are_not_merged_into(read_only, randomise) -> None:
    bare, x = copy.deepcopy(read_only), torch.randn(3, 8)
    model = randomise(get_peft_model(read_only, structune.c3a(block_size=4, target_modules=["0", "1"]))).eval()
    adapted = model(x)
    assert error(bare(x), adapted) > 1e-2
    layer = layers_of(model)["1"]
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ layer.delta("default").dense().T)
    for merge in (model.merge_adapter, model.merge_and_unload, layer.merge):
        with pytest.raises(TypeError, match=r"gptq"):
            merge()
        assert torch.equal(layers_of(model)["0"].get_base_layer().weight, bare[0].weight)
        assert torch.equal(model(x), adapted)
    assert torch.equal(model.unload()(x), bare(x))


def test_torchao_weights_without_a_recipe_are_not_merged_into(randomise) -> None:
    model = quantised("torchao-int8")
    del model.hf_quantizer
    model = randomise(get_peft_model(model, structune.c3a(block_size=16, target_modules=["a", "b"]))).eval()
    x = torch.randn(5, 64)
    before = model(x)
    with pytest.raises(TypeError, match=r"cannot be merged into torchao \(quantised outside transformers\) weights"):
        model.merge_adapter()
    assert torch.equal(model(x), before)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("how", ["8bit", "4bit", "torchao"])
def test_models_that_transformers_quantises(how, llama, randomise, tmp_path) -> None:
    """The usual way: load quantised, prepare, train a step, save, load again."""
    pytest.importorskip("torchao" if how == "torchao" else "bitsandbytes")
    if how == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        recipe = TorchAoConfig(Int8WeightOnlyConfig())
    else:
        recipe = BitsAndBytesConfig(load_in_8bit=how == "8bit", load_in_4bit=how == "4bit", bnb_4bit_quant_type="nf4")
    ids = torch.arange(2, 12)[None]

    def base():
        return AutoModelForCausalLM.from_pretrained(llama, quantization_config=recipe, dtype=torch.float32)

    model = prepare_model_for_kbit_training(base(), use_gradient_checkpointing=True)
    config = structune.hydra("toeplitz", pool_size=100, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config).train()
    assert len(layers_of(model)) == 7
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(layer.delta("default").pool.grad.abs().max() > 0 for layer in layers_of(model).values())
    randomise(model, std=0.1).eval()
    with torch.no_grad():
        logits = model(ids).logits
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(base(), tmp_path).eval()
        torch.testing.assert_close(again(ids).logits, logits, rtol=1e-3, atol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged = again.merge_and_unload()
        assert error(merged(ids).logits, logits) < 0.3
