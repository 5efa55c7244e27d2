"""Every type of base layer: forward is what plain torch gives with W + ΔW, in every mode; merged and reloaded too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import GptOssConfig, GptOssForCausalLM, MixtralConfig, MixtralForCausalLM

import structune
from structune import StructuneConfig
from structune.peft import StructuneLayer

ADAPTERS: dict[str, dict[str, Any]] = {
    "c3a": {"structure": "circulant", "block_size": 4},
    "hydra": {"structure": "toeplitz", "num_splits": 2, "pool_size": 9},
    "rank": {"structure": "low_rank", "num_splits": 1, "rank": 2},
    "curved": {"structure": "cauchy_like", "num_splits": 2, "rank": 2, "pool_size": 40, "fixed_ratio": 0.2},
}


class Attention(nn.Module):
    """Self-attention with a packed projection."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Experts(nn.Module):
    """Two stacks of matrices, as fused experts are stored."""

    def __init__(self, is_transposed: bool) -> None:
        super().__init__()
        self.is_transposed = is_transposed
        self.num_experts = 3
        up, down = (3, 12, 8), (3, 8, 12)
        self.up = nn.Parameter(torch.randn(up if not is_transposed else (3, 8, 12)))
        self.down = nn.Parameter(torch.randn(down if not is_transposed else (3, 12, 8)))

    def forward(self, x: Tensor) -> Tensor:
        up, down = (self.up.mT, self.down.mT) if self.is_transposed else (self.up, self.down)
        hidden = torch.einsum("eoi,bi->beo", up, x).tanh()
        return torch.einsum("eoi,bei->bo", down, hidden) / self.num_experts


class Mixture(nn.Module):
    def __init__(self, is_transposed: bool = False) -> None:
        super().__init__()
        self.experts = Experts(is_transposed)

    def forward(self, x: Tensor) -> Tensor:
        return self.experts(x) + self.experts.num_experts


@dataclass(frozen=True)
class Case:
    model: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    targets: dict[str, Any]
    weights: tuple[str, ...]
    """Where ΔW goes, by parameter name in the bare model."""


def conv(cls: type[nn.Module], *size: int, **kwargs: Any) -> Case:
    return Case(
        lambda: nn.Sequential(cls(8, 16, 3, **kwargs)),
        lambda: torch.randn(2, 8, *size),
        {"target_modules": ["0"]},
        ("0.weight",),
    )


def on_attention(targets: list[str], *weights: str, **kwargs: Any) -> Case:
    return Case(lambda: Attention(**kwargs), lambda: torch.randn(3, 5, 8), {"target_modules": targets}, weights)


def experts(targets: list[str], is_transposed: bool = False) -> Case:
    return Case(
        lambda: Mixture(is_transposed), lambda: torch.randn(4, 8), {"target_parameters": targets}, tuple(targets)
    )


CASES: dict[str, Case] = {
    "conv1d": conv(nn.Conv1d, 11),
    "conv1d-grouped": conv(nn.Conv1d, 11, groups=4, stride=2),
    "conv1d-depthwise": conv(nn.Conv1d, 11, groups=8, bias=False),
    "conv2d": conv(nn.Conv2d, 9, 9, padding=1, dilation=2),
    "conv2d-circular": conv(nn.Conv2d, 9, 9, padding=1, padding_mode="circular"),
    "conv2d-grouped": conv(nn.Conv2d, 9, 9, groups=2),
    "conv3d": conv(nn.Conv3d, 5, 5, 5),
    "conv3d-grouped": conv(nn.Conv3d, 5, 5, 5, groups=4, padding="same"),
    "embedding": Case(
        lambda: nn.Sequential(nn.Embedding(21, 10, padding_idx=0)),
        lambda: torch.randint(0, 21, (3, 5)),
        {"target_modules": ["0"]},
        ("0.weight",),
    ),
    "attention": on_attention(["attention"], "attention.in_proj_weight", "attention.out_proj.weight"),
    "attention-batch-first": on_attention(
        ["attention"], "attention.in_proj_weight", "attention.out_proj.weight", batch_first=True, bias=False
    ),
    "attention-output": on_attention(["out_proj"], "attention.out_proj.weight", batch_first=True),
    "attention-named-twice": on_attention(
        ["attention", "out_proj"], "attention.in_proj_weight", "attention.out_proj.weight"
    ),
    "experts": experts(["experts.up"]),
    "experts-both": experts(["experts.down", "experts.up"]),
    "experts-transposed": experts(["experts.down", "experts.up"], is_transposed=True),
}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_adapter = pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)


def made(case: Case) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return case.model().eval(), case.inputs()


def config(case: Case, adapter: dict[str, Any], **changes: Any) -> StructuneConfig:
    return StructuneConfig(**adapter | case.targets | changes)


def layers_of(model: nn.Module) -> list[StructuneLayer]:
    return [module for module in model.modules() if isinstance(module, StructuneLayer)]


def deltas(case: Case, model: nn.Module, names: tuple[str, ...] = ("default",)) -> dict[str, Tensor]:
    """Σ ΔW by parameter name, from `get_delta_weight`."""
    found = {}
    for layer in layers_of(model):
        owner = layer.get_base_layer()
        (parameter,) = (
            name for name in case.weights if name.rpartition(".")[2] == layer.weight_name and _holds(name, owner)
        )
        found[parameter] = torch.stack([layer.get_delta_weight(name) for name in names]).sum(0)
    assert set(found) == set(case.weights)
    return found


def _holds(name: str, owner: nn.Module) -> bool:
    return isinstance(owner, nn.MultiheadAttention) == name.endswith("in_proj_weight")


def with_delta(case: Case, bare: nn.Module, delta: dict[str, Tensor]) -> nn.Module:
    """The bare model with ΔW added to its weights by plain torch."""
    changed = copy.deepcopy(bare)
    with torch.no_grad():
        for name, change in delta.items():
            changed.get_parameter(name).add_(change)
    return changed


@every_adapter
@every_case
def test_starts_as_a_no_op_that_can_learn(case, adapter) -> None:
    bare, x = made(case)
    model = get_peft_model(copy.deepcopy(bare), config(case, adapter))
    torch.testing.assert_close(model(x), bare(x), rtol=1e-6, atol=1e-6)
    model(x).square().sum().backward()
    for layer in layers_of(model):
        assert layer.structune_delta["default"].pool.grad.abs().max() > 1e-7
        assert layer.in_features > 0 < layer.out_features


@every_adapter
@every_case
def test_every_mode_is_the_model_with_delta_added(case, adapter, randomise, tmp_path: Path) -> None:
    bare, x = made(case)
    model = randomise(get_peft_model(copy.deepcopy(bare), config(case, adapter))).eval()
    expected = with_delta(case, bare, deltas(case, model))(x)
    assert (expected - bare(x)).abs().max() > 1e-2
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(model(x), expected, **close)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, **close)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), bare(x), rtol=1e-6, atol=1e-6)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(copy.deepcopy(bare), tmp_path)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(model(x), expected, **close)
    with model.disable_adapter():  # unmerges
        torch.testing.assert_close(model(x), bare(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(x), expected, **close)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected, **close)
    model.unmerge_adapter()
    torch.testing.assert_close(model(x), expected, **close)
    for parameter in case.weights:
        torch.testing.assert_close(
            copy.deepcopy(model).unload().get_parameter(parameter), bare.get_parameter(parameter), rtol=1e-5, atol=1e-5
        )
    merged = model.merge_and_unload()
    assert [type(module) for module in merged.modules()] == [type(module) for module in bare.modules()]
    torch.testing.assert_close(merged(x), expected, **close)


@every_case
def test_gradients_are_those_of_plain_torch(case, randomise) -> None:
    """The pool's gradient through the layer equals the chain rule through ΔW, by autograd of the bare model."""
    bare, x = made(case)
    model = randomise(get_peft_model(copy.deepcopy(bare), config(case, ADAPTERS["hydra"]))).eval()
    model(x).square().sum().backward()
    reference = with_delta(case, bare, deltas(case, model)).requires_grad_(True)
    reference(x).square().sum().backward()
    for layer in layers_of(model):
        pool = layer.structune_delta["default"].pool
        (name,) = (
            name for name in case.weights if name.endswith(layer.weight_name) and _holds(name, layer.get_base_layer())
        )
        (expected,) = torch.autograd.grad(layer.get_delta_weight("default"), pool, reference.get_parameter(name).grad)
        torch.testing.assert_close(pool.grad, expected, rtol=1e-3, atol=1e-3)


@every_case
def test_two_adapters_add_up_and_one_can_be_deleted(case, randomise) -> None:
    bare, x = made(case)
    model = get_peft_model(copy.deepcopy(bare), config(case, ADAPTERS["c3a"]))
    model.add_adapter("other", config(case, ADAPTERS["hydra"], seed=3))
    model.base_model.set_adapter(["default", "other"])
    randomise(model).eval()
    expected = with_delta(case, bare, deltas(case, model, ("default", "other")))(x)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    model.set_adapter("default")
    model.delete_adapter("other")
    assert all(list(layer.structune_delta) == ["default"] for layer in layers_of(model))
    expected = with_delta(case, bare, deltas(case, model))(x)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["conv2d", "embedding"])
def test_half_precision_adds_outputs_and_not_weights(name, dtype, randomise) -> None:
    """An update far below W's rounding still reaches the output."""
    case = CASES[name]
    bare, x = made(case)
    x = x.to(dtype) if x.is_floating_point() else x
    with torch.no_grad():
        bare[0].weight.fill_(1.0)
    model = get_peft_model(bare.to(dtype), config(case, ADAPTERS["c3a"])).eval()
    layer = layers_of(model)[0]
    with torch.no_grad():
        layer.structune_delta["default"].pool.fill_(1e-4)
    update = layer.update("default", x)
    expected = 1e-4 * (
        nn.functional.conv2d(x.double(), torch.ones(16, 8, 3, 3).double(), padding=1, dilation=2)
        if name == "conv2d"
        else torch.ones(*x.shape, 10).double()
    )
    torch.testing.assert_close(update.double(), expected, rtol=0.02, atol=2e-5)
    assert model(x).dtype == dtype


def test_a_convolution_is_the_matrix_times_what_each_filter_sees(randomise) -> None:
    model = randomise(
        get_peft_model(
            nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1)), structune.c3a(block_size=5, target_modules=["0"])
        )
    )
    layer, x = layers_of(model)[0], torch.randn(2, 4, 7, 8)
    seen = nn.functional.unfold(x, 3, stride=2, padding=1)
    expected = (layer.delta("default").dense() @ seen).unflatten(-1, (4, 4))
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(model(x) - layer.base_layer(x), expected, rtol=1e-4, atol=1e-5)


def test_the_projections_of_attention_draw_numbers_of_their_own() -> None:
    adapter = structune.hydra("toeplitz", num_splits=2, pool_size=20, target_modules=["attention"])
    model = get_peft_model(Attention(), adapter)
    first, second = (layer.delta("default").seed for layer in layers_of(model))
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_dropout_drops_what_a_convolution_reads(randomise) -> None:
    bare, x = made(CASES["conv2d"])
    model = randomise(get_peft_model(copy.deepcopy(bare), config(CASES["conv2d"], ADAPTERS["c3a"], dropout=0.5)))
    (layer,) = layers_of(model)
    model.train()
    torch.manual_seed(5)
    dropped = model(x)
    torch.manual_seed(5)
    expected = bare(x) + nn.functional.conv2d(
        nn.functional.dropout(x, 0.5), layer.get_delta_weight("default"), padding=1, dilation=2
    )
    torch.testing.assert_close(dropped, expected, rtol=1e-4, atol=1e-4)


class Standardised(nn.Conv2d):
    """A convolution whose weight is normalised before use: not linear in it."""

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


def test_convolutions_of_other_classes_run_their_own_forward(randomise) -> None:
    torch.manual_seed(0)
    bare, x = nn.Sequential(Standardised(8, 16, 3)), torch.randn(2, 8, 9, 9)
    case = Case(lambda: bare, lambda: x, {"target_modules": ["0"]}, ("0.weight",))
    model = randomise(get_peft_model(copy.deepcopy(bare), config(case, ADAPTERS["c3a"]))).eval()
    torch.testing.assert_close(model(x), with_delta(case, bare, deltas(case, model))(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(TypeError, match="Standardised may do more than convolve"):
        get_peft_model(copy.deepcopy(bare), config(case, ADAPTERS["c3a"], dropout=0.5))


class Scaled(nn.Embedding):
    """An embedding that is multiplied, as in Gemma."""

    embed_scale = 3.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.embed_scale


def test_scaled_embeddings_scale_the_update(randomise) -> None:
    bare, x = nn.Sequential(Scaled(21, 10)), torch.randint(0, 21, (3, 5))
    case = Case(lambda: bare, lambda: x, {"target_modules": ["0"]}, ("0.weight",))
    model = randomise(get_peft_model(copy.deepcopy(bare), config(case, ADAPTERS["c3a"]))).eval()
    torch.testing.assert_close(model(x), with_delta(case, bare, deltas(case, model))(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("structure", structune.structures.names())
@pytest.mark.parametrize("source", [{}, {"pool_size": 30}], ids=["own", "pooled"])
def test_looking_rows_up_is_indexing_the_matrix(structure, source) -> None:
    delta = structune.StructuredDelta(23, 10, structure=structure, num_splits=3, seed=2, dtype=torch.float64, **source)
    with torch.no_grad():
        delta.pool.normal_()
    index = torch.tensor([[22, 0, 7], [8, 8, 15]])
    found = delta.lookup(index)
    torch.testing.assert_close(found, delta.dense()[index], rtol=1e-10, atol=1e-12)
    assert found.abs().max() > 1e-3
    (of_lookup,) = torch.autograd.grad(found.square().sum(), delta.pool)
    (of_matrix,) = torch.autograd.grad(delta.dense()[index].square().sum(), delta.pool)
    torch.testing.assert_close(of_lookup, of_matrix, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("targets", [["self_attn"], ["linear1", "linear2"], ["out_proj"], "all-linear"])
def test_the_fast_path_of_transformer_layers_sees_the_adapters(targets, randomise, monkeypatch) -> None:
    """Without gradients nn.TransformerEncoder hands all weights to one kernel: it must be handed W + ΔW."""
    calls = []
    kernel = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *args: calls.append(1) or kernel(*args))
    torch.manual_seed(0)
    bare = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2).eval()
    x = torch.randn(3, 5, 8)
    model = randomise(get_peft_model(copy.deepcopy(bare), structune.c3a(block_size=4, target_modules=targets))).eval()
    slow = model(x)
    assert not calls
    with torch.no_grad():
        fast, base = model(x), bare(x)
    assert len(calls) == 4  # two layers, adapted and bare
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)
    assert (fast - base).abs().max() > 1e-2


def test_experts_of_one_pool_differ_and_are_what_the_pool_says() -> None:
    delta = structune.StructuredDelta(6, 4, stack=3, structure="hankel", num_splits=2, pool_size=11, seed=4)
    with torch.no_grad():
        delta.pool.normal_()
    matrices = delta.dense()
    assert matrices.shape == (3, 6, 4)
    block = 3 + 2 - 1
    for expert in range(3):
        for p in range(2):
            for q in range(2):
                index = delta.index[expert * 4 + p * 2 + q]
                for i in range(3):
                    for j in range(2):
                        assert matrices[expert, 3 * p + i, 2 * q + j] == delta.pool[index[i + j]]
    assert delta.index.shape == (12, block)
    assert not torch.equal(matrices[0], matrices[1])
    with pytest.raises(TypeError, match="a stack of 3 matrices has no product with one x"):
        delta(torch.randn(2, 4))
    with pytest.raises(ValueError, match="stack=0 must be an integer of at least 1"):
        structune.StructuredDelta(6, 4, stack=0, num_splits=2)


@pytest.mark.parametrize(
    ("cls", "config_cls", "targets"),
    [
        (MixtralForCausalLM, MixtralConfig, ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
        (GptOssForCausalLM, GptOssConfig, ["mlp.experts.gate_up_proj"]),
    ],
)
def test_fused_experts_of_transformers_models(cls, config_cls, targets, randomise, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    bare = cls(config_cls(vocab_size=40, num_key_value_heads=2, num_local_experts=4, head_dim=8, **sizes)).eval()
    ids = torch.arange(2, 12)[None]
    model = get_peft_model(copy.deepcopy(bare), structune.c3a(block_size=8, target_parameters=targets))
    assert len(layers_of(model)) == 2 * len(targets)
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(layer.structune_delta["default"].pool.grad.abs().max() > 0 for layer in layers_of(model))
    randomise(model).eval()
    adapted = model(ids).logits
    assert (adapted - bare(ids).logits).abs().max() > 1e-3
    model.save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(copy.deepcopy(bare), tmp_path).eval()(ids).logits, adapted)
    torch.testing.assert_close(model.merge_and_unload()(ids).logits, adapted, rtol=1e-4, atol=1e-5)


def test_adapters_with_other_parameters_are_refused() -> None:
    model = get_peft_model(Mixture(), config(CASES["experts"], ADAPTERS["c3a"]))
    with pytest.raises(
        ValueError, match=r"target_parameters=\['experts.down'\] differ from those of adapter 'default'"
    ):
        model.add_adapter("other", config(CASES["experts"], ADAPTERS["c3a"], target_parameters=["experts.down"]))


@pytest.mark.parametrize(
    ("model", "kwargs", "said"),
    [
        (
            nn.Sequential(nn.ConvTranspose2d(8, 8, 3)),
            {"target_modules": ["0"]},
            "type ConvTranspose2d cannot be adapted",
        ),
        (
            Attention(kdim=6, vdim=6),
            {"target_modules": ["attention"]},
            "q_proj_weight, k_proj_weight and v_proj_weight",
        ),
        (Attention(), {"target_modules": ["attention"], "dropout": 0.1}, "dropout=0.1 has no input to act on here"),
        (Mixture(), {"target_parameters": ["experts.up"], "dropout": 0.1}, "dropout=0.1 has no input to act on here"),
        (Attention(), {"target_parameters": ["attention.in_proj_bias"]}, "'in_proj_bias' has shape"),
        (
            Attention(),
            {"target_modules": ["attention"], "block_size": 20},
            "block_size=20 is larger than a weight of 8×8",
        ),
        (
            Mixture(),
            {"target_parameters": ["experts.down", "experts.up"], "pool_size_pattern": {"up": -1}},
            "pool_size",
        ),
    ],
    ids=["transposed", "unpacked", "dropout", "dropout-experts", "vector", "inner", "pattern"],
)
def test_what_cannot_be_adapted_leaves_the_model_as_it_was(model, kwargs, said) -> None:
    before = [(name, type(module)) for name, module in model.named_modules()]
    with pytest.raises((TypeError, ValueError), match=said):
        get_peft_model(model, StructuneConfig(**{"block_size": 4} | kwargs))
    assert [(name, type(module)) for name, module in model.named_modules()] == before


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(21, 10)
        self.head = nn.Linear(10, 21, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x))


@pytest.mark.parametrize("target", ["embed", "head"])
def test_tied_weights_part_when_one_of_them_is_merged(target, randomise) -> None:
    torch.manual_seed(0)
    bare, x = Tied().eval(), torch.randint(0, 21, (3, 5))
    model = randomise(get_peft_model(copy.deepcopy(bare), structune.c3a(block_size=4, target_modules=[target]))).eval()
    adapted = model(x)
    assert (adapted - bare(x)).abs().max() > 1e-2
    with pytest.warns(UserWarning, match=f"{target} shares its weight with"):
        merged = model.merge_and_unload()
    torch.testing.assert_close(merged(x), adapted, rtol=1e-4, atol=1e-4)
    other = "head" if target == "embed" else "embed"
    assert torch.equal(getattr(merged, other).weight, getattr(bare, other).weight)
