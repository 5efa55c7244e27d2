"""What others read from and set on a wrapped layer is the base layer's, and our own errors stay readable."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import WhisperConfig, WhisperModel
from transformers.pytorch_utils import Conv1D

import structune
from structune.peft import StructuneLayer

LAYERS = {
    "linear": (lambda: nn.Linear(8, 12), ["in_features", "out_features", "bias"]),
    "conv": (
        lambda: nn.Conv2d(8, 12, 3, stride=2, padding=1, dilation=2, groups=2),
        ["stride", "padding", "dilation", "groups", "kernel_size", "in_channels", "out_channels", "padding_mode"],
    ),
    "embedding": (lambda: nn.Embedding(9, 8, padding_idx=2), ["num_embeddings", "embedding_dim", "padding_idx"]),
    "conv1d": (lambda: Conv1D(12, 8), ["nf", "nx"]),
    "attention": (lambda: nn.MultiheadAttention(8, 2), ["num_heads", "embed_dim", "head_dim", "batch_first"]),
}


def wrapped(make) -> StructuneLayer:
    torch.manual_seed(0)
    config = structune.c3a(block_size=4, target_modules=["0"], init_weights=False)
    return get_peft_model(nn.Sequential(make()), config).base_model.model[0]


@pytest.mark.parametrize(("make", "names"), LAYERS.values(), ids=LAYERS)
def test_read(make, names) -> None:
    layer, bare = wrapped(make), make()
    for name in names:
        found = getattr(layer, name)
        assert found is getattr(layer.get_base_layer(), name) if name == "bias" else found == getattr(bare, name)
    assert not hasattr(layer, "nothing_of_that_name")
    assert layer.reset_parameters.__self__ is layer.base_layer if hasattr(bare, "reset_parameters") else True


def test_attributes_of_another_class() -> None:
    class Grouped(nn.Linear):
        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.normalized_shape = (8,)
            self.inner = nn.ReLU()
            self.register_buffer("mean", torch.ones(3))
            self.table = nn.Parameter(torch.ones(2))

        @property
        def doubled(self) -> int:
            return 2 * self.out_features

        def halved(self) -> float:
            return self.out_features / 2

    layer = wrapped(lambda: Grouped(8, 12))
    assert layer.normalized_shape == (8,)
    assert (layer.doubled, layer.halved()) == (24, 6)
    assert layer.inner is layer.base_layer.inner
    assert layer.mean is layer.base_layer.mean
    assert layer.table is layer.base_layer.table


def test_sizes_are_set_where_they_are_read() -> None:
    layer = wrapped(lambda: nn.Linear(8, 12))
    layer.in_features, layer.out_features = 16, 20
    assert (layer.base_layer.in_features, layer.base_layer.out_features) == (16, 20)
    assert (layer.in_features, layer.out_features) == (16, 20)


def test_set() -> None:
    layer, x = wrapped(lambda: nn.Conv2d(8, 12, 3)), torch.randn(2, 8, 7, 7)
    y = layer(x)
    layer.stride = (2, 2)
    assert layer.base_layer.stride == (2, 2)
    assert "stride" not in vars(layer)
    torch.testing.assert_close(layer(x), y[..., ::2, ::2], rtol=1e-4, atol=1e-4)
    layer.of_another = 3
    assert not hasattr(layer.base_layer, "of_another")
    layer._mark, layer.base_layer._of_the_base = 1, 2
    assert not hasattr(layer.base_layer, "_mark")
    assert not hasattr(layer, "_of_the_base")


def test_weights_set_on_the_layer_are_the_base_layers() -> None:
    layer, x = wrapped(lambda: nn.Linear(8, 12)), torch.randn(3, 8)
    update = layer(x) - layer.base_layer(x)
    layer.weight, layer.bias = nn.Parameter(torch.ones(12, 8)), nn.Parameter(torch.ones(12))
    torch.testing.assert_close(layer(x), x.sum(-1, keepdim=True) + 1 + update, rtol=1e-4, atol=1e-5)
    assert list(layer._parameters) == []


@pytest.mark.parametrize("targets", [["lm_head"], ["wte"], ["lm_head", "wte"]])
def test_transformers_ties_weights_again(targets, gpt2, ids) -> None:
    bare = gpt2()
    config = structune.c3a(block_size=4, target_modules=targets, init_weights=False)
    model = get_peft_model(bare, config).eval()
    y = model(ids).logits
    bare.tie_weights()
    assert torch.equal(model(ids).logits, y)
    assert bare.lm_head.weight is bare.transformer.wte.weight


@pytest.mark.parametrize("make", [make for make, _ in LAYERS.values()], ids=LAYERS)
def test_copies_and_state_dicts(make) -> None:
    layer = wrapped(make)
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)):  # noqa: S301
        assert type(again) is type(layer)
        assert list(again.state_dict()) == list(layer.state_dict())
        assert torch.equal(again.get_delta_weight("default"), layer.get_delta_weight("default"))
    assert not any(key in layer.state_dict() for key in ("weight", "in_proj_weight"))


def test_errors_of_our_own_properties_say_what_they_lack() -> None:
    layer = wrapped(lambda: nn.Linear(8, 12))
    del layer.base_layer.bias
    with pytest.raises(AttributeError, match="'Linear' object has no attribute 'bias'"):
        _ = layer.bias

    class Broken(type(layer)):
        @property
        def strange(self) -> int:
            return self.base_layer.no_such_thing

    layer.__class__ = Broken
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = layer.strange


def test_whisper_reads_the_strides_of_its_convolutions() -> None:
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = WhisperConfig(
        vocab_size=64,
        num_mel_bins=8,
        d_model=16,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=16,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **sizes,
    )
    torch.manual_seed(0)
    bare = WhisperModel(config).eval()
    targets = structune.c3a(block_size=4, target_modules=["conv1", "conv2", "embed_positions"], init_weights=False)
    inputs = {"input_features": torch.randn(1, 8, 32), "decoder_input_ids": torch.tensor([[1, 5, 7]])}
    plain = bare(**inputs).last_hidden_state
    model = get_peft_model(bare, targets).eval()
    y = model(**inputs).last_hidden_state
    assert (y - plain).abs().max() > 1e-2
    torch.testing.assert_close(model.merge_and_unload()(**inputs).last_hidden_state, y, rtol=1e-4, atol=1e-4)
