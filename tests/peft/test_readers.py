"""Modules that read the weight of a layer below them see W + ΔW there, in every way of writing it."""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftMixedModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DebertaV2Config, DebertaV2Model, MambaConfig, MambaForCausalLM

import structune
from structune.peft import StructuneLayer


class Base(nn.Module):
    """Two projections, read or called."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 8, bias=False)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.inner = nn.ModuleDict({"proj": nn.Linear(8, 8)})
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.embed = nn.Embedding(8, 8)


class Keyword(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(input=x, weight=self.qkv.weight)


class Transposed(Base):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.qkv.weight.t()


class Named(Base):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.qkv.weight
        return torch.einsum("oi,...i->...o", weight, x)


class Helped(Base):
    def project(self, x: Tensor) -> Tensor:
        return F.linear(x, self.qkv.weight[:6])

    def forward(self, x: Tensor) -> Tensor:
        return self.project(x)


class Below(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.inner.proj.weight, self.inner.proj.bias)


class Looped(Base):
    def forward(self, x: Tensor) -> Tensor:
        for k, layer in enumerate(self.layers):
            x = F.linear(x, layer.weight) + k
        return F.linear(x, self.layers[0].weight)


class Listed(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.cat([layer.weight for layer in self.layers]))


class Aliased(Base):
    def forward(self, x: Tensor) -> Tensor:
        layer = self.layers[1]
        return F.linear(x, layer.weight)


class Both(Base):
    """Called, and read to give the output."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.embed(x.abs().argmax(-1)), self.embed.weight)


class Convolved(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x.mT, self.conv.weight.view(8, 8, 3), padding=2)


class Inherited(Keyword):
    pass


class ByName(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, getattr(self.qkv, "weight"))  # noqa: B009


class Walrus(Base):
    def forward(self, x: Tensor) -> Tensor:
        if (layer := self.qkv).bias is not None:
            x = x + layer.bias
        return F.linear(x, layer.weight)


class Chosen(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, (self.qkv if x.ndim == 3 else self.conv).weight)


class Entries(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.cat([layer.weight for layer in self.inner.values()]))


class Items(Base):
    def forward(self, x: Tensor) -> Tensor:
        for number, (_, layer) in enumerate(self.inner.items()):
            x = F.linear(x, layer.weight) + number
        return x


class Children(Base):
    def forward(self, x: Tensor) -> Tensor:
        for layer in reversed(list(self.layers.children())):
            x = F.linear(x, layer.weight)
        return x


class Sliced(Base):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[1:]:
            x = F.linear(x, layer.weight)
        return x


class Looked(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.get_submodule("inner.proj").weight)


class Composed(Base):
    """The name is made when it runs."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, getattr(self, "q" + "kv").weight)


class Cast(Base):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.qkv.weight
        return x @ weight.type(x.dtype).t()


READERS = {
    "keyword": (Keyword, ["qkv"]),
    "transposed": (Transposed, ["qkv"]),
    "named": (Named, ["qkv"]),
    "helped": (Helped, ["qkv"]),
    "below": (Below, ["proj"]),
    "looped": (Looped, ["layers.0", "layers.1"]),
    "listed": (Listed, ["layers.0", "layers.1"]),
    "aliased": (Aliased, ["layers.1"]),
    "both": (Both, ["embed"]),
    "convolved": (Convolved, ["conv"]),
    "inherited": (Inherited, ["qkv"]),
    "by name": (ByName, ["qkv"]),
    "walrus": (Walrus, ["qkv"]),
    "chosen": (Chosen, ["qkv"]),
    "entries": (Entries, ["proj"]),
    "items": (Items, ["proj"]),
    "children": (Children, ["layers.0", "layers.1"]),
    "sliced": (Sliced, ["layers.1"]),
    "looked": (Looked, ["proj"]),
    "composed": (Composed, ["qkv"]),
    "cast": (Cast, ["qkv"]),
}


def adapted(cls: type[nn.Module], targets: list[str], **kwargs) -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    bare, x = cls().eval(), torch.randn(2, 5, 8)
    config = structune.c3a(block_size=4, target_modules=targets, init_weights=False, **kwargs)
    return bare, get_peft_model(copy.deepcopy(bare), config).eval(), x


def layers_of(model: nn.Module) -> list[StructuneLayer]:
    return [module for module in model.modules() if isinstance(module, StructuneLayer)]


@pytest.mark.parametrize(("cls", "targets"), READERS.values(), ids=READERS)
def test_forward_gradient_and_merged_are_one(cls, targets) -> None:
    bare, model, x = adapted(cls, targets)
    plain = bare(x)
    y = model(x)
    assert (y - plain).abs().max() > 1e-2
    y.square().sum().backward()
    assert all(layer.structune_delta["default"].pool.grad.abs().max() > 1e-4 for layer in layers_of(model))
    with model.disable_adapter():
        torch.testing.assert_close(model(x), plain)
    model.merge_adapter()
    torch.testing.assert_close(model(x), y, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()
    torch.testing.assert_close(model(x), y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.merge_and_unload()(x), y, rtol=1e-4, atol=1e-5)


class Asking(Base):
    """Much about the weights, but not their numbers."""

    def forward(self, x: Tensor) -> Tensor:
        if self.qkv.weight is not None and isinstance(self.qkv.weight, Tensor) and not self.qkv.weight.is_meta:
            x = x.to(self.qkv.weight.dtype).to(device=self.qkv.weight.device)
        weight = self.qkv.weight
        x = x.type_as(self.qkv.weight).to(weight).to(weight.dtype) + torch.zeros_like(weight, requires_grad=False)[0]
        x = x + weight.new_zeros(8) + torch.empty_like(self.qkv.weight).shape[0] * len(self.qkv.weight) * 0
        if not torch.is_floating_point(weight) or self.qkv.weight.type() == "":
            raise TypeError
        return self.qkv(x) * self.qkv.weight.shape[0] / self.qkv.weight.size(0)

    def _init_weights(self) -> None:
        self.qkv.weight.data.normal_()
        nn.init.zeros_(self.qkv.weight)

    def tie_weights(self) -> None:
        self.embed.weight = self.qkv.weight

    def load(self) -> None:
        self.qkv.weight.data[0] = 1


def test_asking_writing_and_tying_is_no_reading() -> None:
    bare, model, x = adapted(Asking, ["qkv"])
    layer = model.base_model.model.qkv
    assert layer.weight is layer.base_layer.weight
    assert (model(x) - bare(x)).abs().max() > 1e-2
    _, dropping, _ = adapted(Asking, ["qkv"], dropout=0.5)
    assert (dropping.train()(x) - model(x)).abs().max() > 1e-2
    model.base_model.model._init_weights()
    assert not layer.base_layer.weight.any()


def test_a_forward_that_was_put_into_the_class_or_the_module() -> None:
    def patched(self: nn.Module, x: Tensor) -> Tensor:
        return F.linear(x, self.qkv.weight)

    class Patched(Base):
        pass

    Patched.forward = patched
    torch.manual_seed(0)
    one, other, x = Patched(), Base(), torch.randn(3, 8)
    other.forward = patched.__get__(other)
    for bare in (one, other):
        plain = bare(x)
        model = get_peft_model(bare, structune.c3a(block_size=4, target_modules=["qkv"], init_weights=False))
        y = model(x)
        assert (y - plain).abs().max() > 1e-2
        torch.testing.assert_close(model.merge_and_unload()(x), y, rtol=1e-4, atol=1e-5)


def test_dropout_is_refused_where_it_would_be_passed_over() -> None:
    with pytest.raises(ValueError, match=r"qkv: dropout=0.5 has no input to act on here"):
        adapted(Keyword, ["qkv"], dropout=0.5)

    class Sometimes(Base):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.qkv.weight) if x.ndim == 3 else self.qkv(x)

    _, model, x = adapted(Sometimes, ["qkv"], dropout=0.5)
    evaluated = model(x)
    torch.testing.assert_close(model(x[0]), evaluated[0], rtol=1e-4, atol=1e-5)
    model.train()
    assert (model(x[0]) - evaluated[0]).abs().max() > 1e-2
    with pytest.raises(ValueError, match="dropout has no input to act on here: a module reads W"):
        model(x)


class Through(Base):
    """Calls what calls the layer, and reads its weight for something else."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def penalty(self) -> Tensor:
        return self.body[0].weight.square().sum()


def test_dropout_is_taken_where_the_layer_is_called_through_another() -> None:
    bare, model, x = adapted(Through, ["body.0"], dropout=0.5)
    evaluated = model(x)
    assert (model.base_model.model.penalty() - bare.penalty()).abs() > 1e-2
    model.train()
    assert (model(x) - evaluated).abs().max() > 1e-2


def test_dropout_is_refused_in_a_loop_that_only_reads() -> None:
    with pytest.raises(ValueError, match=r"layers.0: dropout=0.5 has no input to act on here"):
        adapted(Looped, ["layers.0"], dropout=0.5)
    with pytest.raises(ValueError, match=r"qkv: dropout=0.5 has no input to act on here"):
        adapted(ByName, ["qkv"], dropout=0.5)


def test_adapters_cannot_be_picked_by_sample_where_the_weight_is_read() -> None:
    _, model, x = adapted(Keyword, ["qkv"])
    with pytest.raises(ValueError, match="adapter_names cannot pick adapters here: a module reads W"):
        model(x, adapter_names=["default", "__base__"])
    assert model(x).isfinite().all()


class Published(nn.Module):
    """Its body has a second name that is no module of its own, as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Keyword()

    @property
    def base_model(self) -> nn.Module:
        return self.model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.layers[0](self.model(x))


@pytest.mark.parametrize("ours_first", [True, False])
def test_found_where_names_begin_with_those_of_a_wrapper(ours_first) -> None:
    torch.manual_seed(0)
    configs = {
        "ours": structune.c3a(block_size=4, target_modules=["qkv"], init_weights=False),
        "lora": LoraConfig(r=2, target_modules=["layers.0"], init_lora_weights=False),
    }
    first, second = configs if ours_first else reversed(configs)
    bare, x = Published().eval(), torch.randn(3, 8)
    model = PeftMixedModel(bare, configs[first], first)
    model.add_adapter(second, configs[second])
    model.set_adapter("lora")
    without = model(x)
    model.set_adapter(["ours", "lora"])
    y = model(x)
    assert (y - without).abs().max() > 1e-2
    torch.testing.assert_close(model.merge_and_unload()(x), y, rtol=1e-4, atol=1e-5)


def test_mamba_reads_its_convolution() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 2, "time_step_rank": 4}
    bare, ids = MambaForCausalLM(MambaConfig(vocab_size=64, **sizes)).eval(), torch.arange(3, 15)[None]
    plain = bare(ids).logits
    targets = ["conv1d", "x_proj", "dt_proj"]
    model = get_peft_model(bare, structune.c3a(block_size=4, target_modules=targets, init_weights=False)).eval()
    y = model(ids, use_cache=False).logits
    assert (y - plain).abs().max() > 1e-2
    y.square().sum().backward()
    assert all(layer.structune_delta["default"].pool.grad.abs().max() > 0 for layer in layers_of(model))
    generated = model.generate(ids, max_new_tokens=4, do_sample=False)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, y, rtol=1e-4, atol=1e-4)
    assert torch.equal(merged.generate(ids, max_new_tokens=4, do_sample=False), generated)


def test_deberta_reads_its_relative_embeddings() -> None:
    torch.manual_seed(0)
    config = DebertaV2Config(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        relative_attention=True,
        position_buckets=8,
        max_relative_positions=16,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
    )
    bare, ids = DebertaV2Model(config).eval(), torch.arange(3, 15)[None]
    for parameter in bare.parameters():
        nn.init.normal_(parameter, std=0.3)
    plain = bare(ids).last_hidden_state
    targets = ["rel_embeddings"]
    model = get_peft_model(bare, structune.c3a(block_size=4, target_modules=targets, init_weights=False)).eval()
    y = model(ids).last_hidden_state
    assert (y - plain).abs().max() > 1e-3
    y.square().sum().backward()
    assert layers_of(model)[0].structune_delta["default"].pool.grad.abs().max() > 0
    torch.testing.assert_close(model.merge_and_unload()(ids).last_hidden_state, y, rtol=1e-4, atol=1e-4)


TIMM = Path(sys.prefix) / "timm"


def test_vision_transformers_of_timm() -> None:
    """BEiT, EVA-02 and Swin V2, in a process of its own as in the example."""
    if not TIMM.is_dir() and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed; `make test` installs it")
    check = """
import torch
try:
    import torchvision
except RuntimeError:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor boxes, Tensor scores, float threshold) -> Tensor")
import timm, structune
from peft import LoraConfig, PeftMixedModel, get_peft_model
from structune.peft import StructuneLayer
small = {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
swin = {"embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4, "img_size": 64, "num_classes": 3}
for name, size, kwargs in (
    ("beit_base_patch16_224", 224, small),
    ("eva02_tiny_patch14_224", 224, small | {"qkv_fused": True}),
    ("swinv2_tiny_window8_256", 64, swin),
):
    torch.manual_seed(0)
    bare = timm.create_model(name, **kwargs).eval()
    for parameter in bare.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 3, size, size)
    plain = bare(x)
    config = structune.c3a(block_size=8, target_modules=["qkv"], init_weights=False)
    model = get_peft_model(bare, config).eval()
    y = model(x)
    assert (y - plain).abs().max() > 1e-3, name
    y.square().sum().backward()
    layers = [module for module in model.modules() if isinstance(module, StructuneLayer)]
    assert len(layers) == 2 and all(layer.structune_delta["default"].pool.grad.abs().max() > 0 for layer in layers)
    torch.testing.assert_close(model.merge_and_unload()(x), y, rtol=1e-3, atol=1e-3)
"""
    path = f"import sys; sys.path.insert(0, {str(TIMM)!r})\n" if TIMM.is_dir() else ""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", path + check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
