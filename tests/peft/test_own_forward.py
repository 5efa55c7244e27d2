"""Base layers of subclasses that do more than their parents: unmerged is merged, or there is a clear word."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate.hooks import ModelHook, SequentialHook, add_hook_to_module
from peft import get_peft_model
from torch import Tensor, nn
from transformers.models.bart.modeling_bart import BartLearnedPositionalEmbedding, BartScaledWordEmbedding
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.models.gemma.modeling_gemma import GemmaTextScaledWordEmbedding
from transformers.pytorch_utils import Conv1D

import structune
from structune.peft import StructuneLayer


class Cosine(nn.Linear):
    """A normalised head."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, nn.functional.normalize(self.weight, dim=1))


class Ternary(nn.Linear):
    """Weights of three values with a straight-through gradient, as in BitNet."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean()
        rounded = (self.weight / scale).round().clamp(-1, 1) * scale
        return nn.functional.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


class Gained(nn.Linear):
    """A learned gain that is 1 at first."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gain


class Called(nn.Linear):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x).square()


class Noisy(nn.Linear):
    """Another product in training than in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if self.training else 1)


class Louder(Conv1D):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Shifted(nn.Embedding):
    """Positions with an offset."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 2)


class CosineConv(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv1d(x, nn.functional.normalize(self.weight, dim=1))


class SquaredConv(nn.Conv1d):
    """One that changes only what its parent's forward calls."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight.square(), bias)


class Normed(nn.MultiheadAttention):
    def forward(self, x: Tensor, *args: Tensor, **kwargs: bool) -> Tensor:
        return nn.functional.layer_norm(super().forward(x, *args, **kwargs)[0], (8,))


class Clipped(nn.Linear):
    """One that does more for large inputs only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(-5, 5))


class BySize(nn.Linear):
    """Another product for many rows than for few."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if len(x) <= 4 else 2)


class Masked(nn.Embedding):
    """The slot of another modality is blank."""

    def forward(self, i: Tensor) -> Tensor:
        return super().forward(i).masked_fill((i == 6)[..., None], 0.0)


class MaskedScaled(BartScaledWordEmbedding):
    """One that scales and does more."""

    def forward(self, i: Tensor) -> Tensor:
        return super().forward(i).masked_fill((i == 6)[..., None], 0.0)


class FalconLike(Conv1D):
    """The words of FalconLinear over a weight that is laid out the other way."""

    def forward(self, input: Tensor) -> Tensor:
        hidden_states = input @ self.weight.T
        if self.bias is None:
            return hidden_states
        return hidden_states + self.bias


class Switched(nn.Linear):
    """Fake quantisation that is switched on after some steps."""

    fake = False

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, (self.weight * 4).round() / 4 if self.fake else self.weight, self.bias)


class Blended(nn.Linear):
    """A strength that is set later."""

    alpha = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.alpha


class Optional(nn.Linear):
    """More than its parent only for a caller that says so."""

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        return super().forward(x) * gain


class Plain(nn.Linear):
    """A subclass that is as good as its parent."""

    extra = 3


class Sharded:
    """What FSDP2 mixes in, here copyable."""


def generated(layer: nn.Module) -> nn.Module:
    """With a class that FSDP2 would make."""
    layer.__class__ = type("FSDP" + type(layer).__name__, (Sharded, type(layer)), {})
    return layer


def marked(layer: nn.Module) -> nn.Module:
    """With a scale that somebody else uses."""
    layer.embed_scale = 3.0
    return layer


TOKENS = torch.tensor([[1, 4, 0], [2, 2, 6]])
WHOLE = {
    "cosine": (lambda: Cosine(8, 12), torch.randn(3, 8)),
    "ternary": (lambda: Ternary(8, 12), torch.randn(3, 8)),
    "gained": (lambda: Gained(8, 12), torch.randn(3, 8)),
    "called": (lambda: Called(8, 12), torch.randn(3, 8)),
    "noisy": (lambda: Noisy(8, 12), torch.randn(3, 8)),
    "louder": (lambda: Louder(12, 8), torch.randn(3, 8)),
    "shifted": (lambda: Shifted(9, 8), TOKENS),
    "positions": (lambda: BartLearnedPositionalEmbedding(9, 8), TOKENS),
    "clipped": (lambda: Clipped(8, 12), 50 * torch.randn(3, 8)),
    "by-size": (lambda: BySize(8, 12), torch.randn(9, 8)),
    "masked": (lambda: Masked(9, 8), TOKENS),
    "masked-scaled": (lambda: MaskedScaled(9, 8, None, embed_scale=3.0), TOKENS),
    "falcon-like": (lambda: FalconLike(8, 8), torch.randn(3, 8)),
    "conv": (lambda: CosineConv(8, 12, 1), torch.randn(2, 8, 5)),
    "conv-inside": (lambda: SquaredConv(8, 12, 3), torch.randn(2, 8, 5)),
}
ADDED = {
    "falcon": (lambda: FalconLinear(8, 12), torch.randn(3, 8)),
    "scaled": (lambda: BartScaledWordEmbedding(9, 8, None, embed_scale=3.0), TOKENS),
    "scaled-as-gemma": (lambda: GemmaTextScaledWordEmbedding(9, 8, None, embed_scale=3.0), TOKENS),
    "of-a-generated-class": (lambda: generated(BartScaledWordEmbedding(9, 8, None, embed_scale=3.0)), TOKENS),
    "plain": (lambda: Plain(8, 12), torch.randn(3, 8)),
    "marked": (lambda: marked(nn.Embedding(9, 8)), TOKENS),
}
C3A = structune.c3a(block_size=4, target_modules=["0"], init_weights=False)


def made(make) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(make())


def with_delta(bare: nn.Module, layer: StructuneLayer) -> nn.Module:
    changed = copy.deepcopy(bare)
    with torch.no_grad():
        changed[0].weight += layer.get_delta_weight("default")
    return changed


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("make", "x"), [*WHOLE.values(), *ADDED.values()], ids=[*WHOLE, *ADDED])
def test_forward_and_gradient_are_those_of_the_class_with_delta_added(make, x, mode) -> None:
    bare = made(make)
    model = get_peft_model(copy.deepcopy(bare), C3A).train(mode)
    layer = model.base_model.model[0]
    reference = with_delta(bare, layer).train(mode)
    y, expected = model(x), reference(x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    assert (y - bare.train(mode)(x)).abs().max() > 1e-2
    pool = layer.structune_delta["default"].pool
    factor = torch.randn_like(y)
    (found,) = torch.autograd.grad((y * factor).sum(), pool)
    (of_weight,) = torch.autograd.grad((expected * factor).sum(), reference[0].weight)
    (wanted,) = torch.autograd.grad(layer.get_delta_weight("default"), pool, of_weight)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), bare(x))
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.merge_and_unload()(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "x"), WHOLE.values(), ids=WHOLE)
def test_where_delta_has_no_output_dropout_and_mixed_batches_are_refused(make, x) -> None:
    bare = made(make)
    if not isinstance(bare[0], nn.Embedding):
        config = structune.c3a(block_size=4, target_modules=["0"], dropout=0.5)
        with pytest.raises(TypeError, match=rf"0: {type(bare[0]).__name__} may do more than"):
            get_peft_model(copy.deepcopy(bare), config)
    model = get_peft_model(bare, C3A).eval()
    with pytest.raises(TypeError, match="neither dropout nor adapter_names"):
        model(x, adapter_names=["default", *["__base__"] * (len(x) - 1)])


@pytest.mark.parametrize(("make", "x"), ADDED.values(), ids=ADDED)
def test_where_the_class_only_writes_its_parent_otherwise_all_is_as_for_the_parent(make, x) -> None:
    bare = made(make)
    model = get_peft_model(copy.deepcopy(bare), structune.c3a(block_size=4, target_modules=["0"], dropout=0.5))
    layer = model.base_model.model[0]
    layer.structune_delta["default"].pool.data.normal_()
    expected = bare(x)
    expected[0] = with_delta(bare, layer)(x)[0]
    found = model.eval()(x, adapter_names=["default", "__base__", "__base__"][: len(x)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_update_far_below_the_rounding_of_a_half_precision_weight_reaches_the_output() -> None:
    bare = made(lambda: FalconLinear(8, 12)).bfloat16()
    with torch.no_grad():
        bare[0].weight.fill_(1.0)
    layer = get_peft_model(bare, structune.c3a(block_size=4, target_modules=["0"])).base_model.model[0]
    layer.structune_delta["default"].pool.data.fill_(1e-4)
    x = torch.eye(8).bfloat16() * 256
    update = layer.update("default", x)
    assert not layer.runs_whole()
    torch.testing.assert_close(update.float(), torch.full((8, 12), 0.0256), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("kind", "name", "value", "kwargs"),
    [(Switched, "fake", True, {}), (Blended, "alpha", 0.5, {}), (Optional, "extra", 0, {"gain": 3.0})],
    ids=["switch", "strength", "argument"],
)
def test_switches_and_arguments_that_come_later(kind, name, value, kwargs) -> None:
    bare, x = made(lambda: kind(8, 12)), torch.randn(3, 8)
    layer = get_peft_model(copy.deepcopy(bare), C3A).base_model.model[0]
    layer(x)
    reference = with_delta(bare, layer)[0]
    setattr(layer.base_layer, name, value)
    setattr(reference, name, value)
    expected = reference(x, **kwargs)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(layer(x, **kwargs), expected)
    layer.merge()
    torch.testing.assert_close(layer(x, **kwargs), expected)


def test_a_forward_that_was_put_on_one_layer_runs_with_delta_in_its_weight() -> None:
    bare, x = made(lambda: nn.Linear(8, 12)), torch.randn(3, 8)
    original = bare[0].forward
    bare[0].forward = lambda x: original(x).square()
    model = get_peft_model(bare, C3A)
    y = model(x)
    assert (y - bare[0].base_layer(x)).abs().max() > 1e-2
    model.merge_adapter()
    torch.testing.assert_close(bare[0].base_layer(x), y)
    config = structune.c3a(block_size=4, target_modules=["0"], dropout=0.5)
    with pytest.raises(TypeError, match="Linear may do more than multiply by its weight"):
        get_peft_model(nn.Sequential(bare[0].base_layer), config)


@pytest.mark.parametrize("kind", [nn.Linear, FalconLinear, Cosine])
def test_hooks_of_accelerate_leave_a_layer_what_it_is(kind) -> None:
    bare, x = made(lambda: kind(8, 12)), torch.randn(3, 8)
    add_hook_to_module(bare[0], SequentialHook(ModelHook()))
    layer = get_peft_model(bare, C3A).base_model.model[0]
    assert layer.runs_whole() == (kind is Cosine)
    y = layer(x)
    layer.merge()
    torch.testing.assert_close(layer(x), y)


def test_attention_of_another_class() -> None:
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Normed(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x)

    bare, x = Net().eval(), torch.randn(3, 5, 8)
    config = structune.c3a(block_size=4, target_modules=["attention"], init_weights=False)
    model = get_peft_model(copy.deepcopy(bare), config).eval()
    y = model(x)
    assert (y - bare(x)).abs().max() > 1e-2
    torch.testing.assert_close(model.merge_and_unload()(x), y, rtol=1e-4, atol=1e-5)


class Packed(nn.Linear):
    """Its weight is copied at the first call."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "packed"):
            self.packed = self.weight.detach().clone()
        return nn.functional.linear(x, self.packed, self.bias)


class PackedConv(nn.Conv2d):
    """Likewise."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not hasattr(self, "packed"):
            self.packed = weight.detach().clone()
        return super()._conv_forward(x, self.packed, bias)


class PackedTable(nn.Embedding):
    """A table that is filled when the model is made."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("table", self.weight.detach().clone())

    def forward(self, i: Tensor) -> Tensor:
        return self.table[i]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Packed(8, 12),
        lambda: PackedConv(8, 12, 3, dilation=2, groups=2),
        lambda: PackedConv(8, 12, 3, padding=4, padding_mode="reflect", dilation=2),
        lambda: PackedTable(9, 8),
    ],
    ids=["linear", "conv", "padded-conv", "embedding"],
)
def test_a_class_that_does_not_read_its_weight_is_refused(make) -> None:
    model = made(make)
    kind = type(model[0])
    with pytest.raises(TypeError, match=rf"0: what {kind.__name__} gives does not depend on its weight, or on a copy"):
        get_peft_model(model, C3A)
    assert type(model[0]) is kind
    assert not hasattr(model[0], "packed")


def test_an_embedding_that_changes_its_frozen_weight_is_refused() -> None:
    with pytest.raises(TypeError, match=r"0: max_norm=0.5 changes the rows .* set the embedding's max_norm to None"):
        get_peft_model(made(lambda: nn.Embedding(9, 8, max_norm=0.5)), C3A)


def test_trying_a_class_leaves_no_trace() -> None:
    class Counting(nn.Linear):
        calls = 0

        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.register_buffer("mean", torch.zeros(8))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.mean += x.mean(0)
            return super().forward(x - self.mean)

    bare = made(lambda: Counting(8, 12))
    weight = bare[0].weight.clone()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    layer = get_peft_model(bare, structune.c3a(block_size=4, target_modules=["0"])).base_model.model[0]
    assert torch.equal(torch.rand(3), expected)
    assert layer.runs_whole()
    assert layer.base_layer.calls == 0
    assert not layer.base_layer.mean.any()
    assert torch.equal(layer.base_layer.weight, weight)
