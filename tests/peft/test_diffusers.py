"""Pipelines of diffusers with our adapters on every component that its LoRA code serves: small, random, from no hub."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from diffusers import DiffusionPipeline, FluxPipeline
from diffusers.hooks import apply_layerwise_casting
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

import structune
from structune import StructuneConfig
from structune.peft import StructuneLayer

from ..pipelines import flux, sdxl, stable_diffusion

CLOSE = {"rtol": 1e-3, "atol": 5e-4}
PIPELINES = {"Stable Diffusion": stable_diffusion, "SDXL": sdxl, "Flux": flux}
ON_TEXT, ON_IMAGES = ["q_proj", "k_proj", "v_proj", "out_proj"], ["to_q", "to_k", "to_v", "to_out.0"]


def ours(targets: list[str], seed: int) -> StructuneConfig:
    return structune.hydra(
        "toeplitz", num_splits=2, pool_size=40, seed=seed, target_modules=targets, init_weights=False, scale=3.0
    )


def one_pool(targets: list[str], seed: int) -> StructuneConfig:
    config = ours(targets, seed)
    config.pool_scope = "model"
    return config


def c3a(targets: list[str], seed: int) -> StructuneConfig:
    return structune.c3a(block_size=8, seed=seed, target_modules=targets, init_weights=False, scale=2.0)


def lora(targets: list[str], seed: int) -> LoraConfig:
    torch.manual_seed(seed)
    return LoraConfig(r=4, lora_alpha=16, target_modules=targets, init_lora_weights=False)


@pytest.fixture(params=PIPELINES, ids=str)
def make(request) -> Callable[[], DiffusionPipeline]:
    def make() -> DiffusionPipeline:
        pipe = PIPELINES[request.param]()
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


def components(pipe: DiffusionPipeline) -> dict[str, nn.Module]:
    """Those that diffusers' LoRA code knows."""
    return {name: getattr(pipe, name) for name in pipe._lora_loadable_modules}


def adapt(pipe: DiffusionPipeline, *adapters: str, method=ours) -> DiffusionPipeline:
    for seed, adapter in enumerate(adapters, start=1):
        for name, component in components(pipe).items():
            component.add_adapter(method(ON_TEXT if "text" in name else ON_IMAGES, seed), adapter)
    return pipe


def image(pipe: DiffusionPipeline, scale: float | None = None) -> Tensor:
    size = {"height": 8, "width": 8} if isinstance(pipe, FluxPipeline) else {"height": 16, "width": 16}
    own = {"max_sequence_length": 12} if isinstance(pipe, FluxPipeline) else {}
    name = "joint_attention_kwargs" if isinstance(pipe, FluxPipeline) else "cross_attention_kwargs"
    if scale is not None:
        own[name] = {"scale": scale}
    noise = torch.Generator().manual_seed(3)
    return pipe("a red cat", num_inference_steps=2, generator=noise, output_type="pt", **size, **own).images


def layers_of(pipe: DiffusionPipeline) -> list[StructuneLayer]:
    return [m for part in components(pipe).values() for m in part.modules() if isinstance(m, StructuneLayer)]


def differ(left: Tensor, right: Tensor) -> bool:
    assert torch.isfinite(left).all()
    return bool((left - right).abs().max() > 5e-3)


def test_two_adapters_and_their_weights(make) -> None:
    pipe = adapt(make(), "one", "two")
    plain = image(make())
    pictures = {}
    for name in ("one", "two"):
        pipe.set_adapters(name)
        assert pipe.get_active_adapters() == [name]
        pictures[name] = image(pipe)
        assert differ(pictures[name], plain)
    assert differ(pictures["one"], pictures["two"])
    assert pipe.get_list_adapters() == {name: ["one", "two"] for name in components(pipe)}
    pipe.set_adapters(["one", "two"])
    both = image(pipe)
    assert differ(both, pictures["one"])
    assert differ(both, pictures["two"])
    pipe.set_adapters(["one", "two"], [0.5, 0.8])
    weighted = image(pipe)
    assert differ(weighted, both)
    pipe.set_adapters(["one", "two"], [0.0, 1.0])
    torch.testing.assert_close(image(pipe), pictures["two"], **CLOSE)
    first = next(iter(components(pipe)))
    pipe.set_adapters("one", {first: 0.0})
    assert differ(image(pipe), pictures["one"])
    with pytest.raises(ValueError, match="not in the list of present adapters"):
        pipe.set_adapters(["one", "none"])
    pipe.set_adapters(["one", "two"])
    pipe.disable_lora()
    torch.testing.assert_close(image(pipe), plain, **CLOSE)
    pipe.enable_lora()
    assert torch.equal(image(pipe), both)


@pytest.mark.parametrize("method", [ours, one_pool])
def test_adapters_are_deleted_one_by_one(method, make) -> None:
    pipe = adapt(make(), "one", "two", method=method)
    plain = image(make())
    pipe.set_adapters("two")
    two = image(pipe)
    pipe.set_adapters("one")
    with pytest.warns(UserWarning, match="Adapter one was active which is now deleted"):
        pipe.delete_adapters("one")
    torch.testing.assert_close(image(pipe), two, **CLOSE)
    pipe.delete_adapters("two")
    torch.testing.assert_close(image(pipe), plain, **CLOSE)
    adapt(pipe, "three", method=method)
    assert differ(image(pipe), plain)


def test_the_scale_of_a_call_is_the_weight_of_an_adapter(make) -> None:
    pipe = adapt(make(), "one")
    full, by_call = image(pipe), image(pipe, 0.5)
    assert differ(full, by_call)
    assert torch.equal(image(pipe), full)
    pipe.set_adapters("one", 0.5)
    torch.testing.assert_close(image(pipe), by_call, **CLOSE)
    torch.testing.assert_close(image(pipe, 0.0), image(make()), **CLOSE)


def test_fuse_and_unfuse(make) -> None:
    pipe = adapt(make(), "one", "two")
    parts = list(components(pipe))
    pipe.set_adapters("one")
    one = image(pipe)
    pipe.set_adapters(["one", "two"], [0.7, 0.4])
    both = image(pipe)
    pipe.fuse_lora(components=parts, safe_fusing=True)
    assert pipe.fused_loras == {"one", "two"}
    torch.testing.assert_close(image(pipe), both, **CLOSE)
    pipe.unfuse_lora(components=parts)
    assert pipe.num_fused_loras == 0
    torch.testing.assert_close(image(pipe), both, **CLOSE)
    pipe.set_adapters(["one", "two"])
    pipe.fuse_lora(components=parts, adapter_names=["one"])
    assert pipe.fused_loras == {"one"}
    torch.testing.assert_close(image(pipe), one, **CLOSE)
    pipe.unfuse_lora(components=parts)
    pipe.set_adapters("one")
    pipe.fuse_lora(components=parts, adapter_names=["two", "one"])
    assert pipe.num_fused_loras == 2


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_fusing_with_a_scale_is_the_scale_of_a_call(scale, make) -> None:
    pipe = adapt(make(), "one")
    expected = image(pipe, scale)
    pipe.fuse_lora(components=list(components(pipe)), lora_scale=scale)
    torch.testing.assert_close(image(pipe), expected, **CLOSE)
    assert differ(image(pipe), image(make()))


@pytest.mark.filterwarnings("ignore:adapter '\\w+' is merged with scale")
def test_set_adapters_after_fusing(make) -> None:
    """What is fused stays fused; what is set then holds from unfusing on."""
    pipe = adapt(make(), "one", "two")
    parts = list(components(pipe))
    pipe.set_adapters("two", 0.5)
    two = image(pipe)
    pipe.set_adapters("one", 0.3)
    one = image(pipe)
    pipe.fuse_lora(components=parts)
    pipe.set_adapters("one", 0.3)
    pipe.set_adapters("one", 2.0)
    torch.testing.assert_close(image(pipe), one, **CLOSE)
    pipe.set_adapters("two", 0.5)
    pipe.unfuse_lora(components=parts)
    torch.testing.assert_close(image(pipe), two, **CLOSE)
    pipe.set_adapters("one", 0.3)
    torch.testing.assert_close(image(pipe), one, **CLOSE)
    fresh = [dict(part.named_parameters()) for part in components(make()).values()]
    now = [dict(part.named_parameters()) for part in components(pipe).values()]
    for before, after in zip(fresh, now, strict=True):
        kept = {name.replace(".base_layer", ""): own for name, own in after.items() if "structune_delta" not in name}
        assert kept.keys() == before.keys()
        for name, own in kept.items():
            torch.testing.assert_close(own, before[name])


def test_broken_numbers_are_not_fused(make) -> None:
    pipe = adapt(make(), "one")
    with torch.no_grad():
        layers_of(pipe)[0].delta("one").pool.fill_(float("nan"))
    with pytest.raises(ValueError, match="would put NaN or infinite values into the weight"):
        pipe.fuse_lora(components=list(components(pipe)), safe_fusing=True)


def test_unloading(make, tmp_path) -> None:
    pipe = adapt(make(), "one")
    adapted = image(pipe)
    pipe.unload_lora_weights()
    assert not any(isinstance(m, BaseTunerLayer) for part in components(pipe).values() for m in part.modules())
    assert torch.equal(image(pipe), image(make()))
    adapt(pipe, "one")
    assert torch.equal(image(pipe), adapted)
    pipe.fuse_lora(components=list(components(pipe)))
    pipe.unload_lora_weights()
    torch.testing.assert_close(image(pipe), adapted, **CLOSE)
    pipe.save_pretrained(tmp_path)
    again = type(pipe).from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    torch.testing.assert_close(image(again), image(pipe), **CLOSE)


@pytest.mark.parametrize("method", [ours, c3a, one_pool])
def test_each_component_is_saved_and_loaded(method, make, tmp_path) -> None:
    pipe = adapt(make(), "one", "two", method=method)
    with torch.no_grad():
        for layer in layers_of(pipe):
            for delta in layer.structune_delta.values():
                delta.pool.normal_(std=0.2)
    pipe.set_adapters(["one", "two"], [0.5, 0.8])
    expected = image(pipe)
    again = make()
    for name, part in components(pipe).items():
        for adapter in ("one", "two"):
            structune.save_adapter(part, tmp_path / name / adapter, adapter)
            structune.load_adapter(getattr(again, name), tmp_path / name / adapter, adapter)
    assert differ(image(again), image(make()))
    again.set_adapters(["one", "two"], [0.5, 0.8])
    assert torch.equal(image(again), expected)
    if method is one_pool:
        for part in components(again).values():
            assert sum(p.numel() for name, p in part.named_parameters() if name.endswith("one.pool")) == 40
            part.set_adapter("two")
            assert sum(p.numel() for p in part.parameters() if p.requires_grad) in (0, 40)
    assert not any(p.requires_grad for layer in layers_of(again) for p in layer.base_layer.parameters())


@pytest.mark.parametrize("method", [c3a, one_pool])
def test_a_training_script_resumes(method, make, tmp_path) -> None:
    """With the lines that the page on frameworks gives: the adapter is in the model already."""
    pipe, resumed = adapt(make(), "default", method=method), adapt(make(), "default", method=method)
    with torch.no_grad():
        for layer in layers_of(pipe):
            layer.delta("default").pool.normal_()
    for name, part in components(pipe).items():
        structune.save_adapter(part, tmp_path / name)
        structune.hotswap_adapter(getattr(resumed, name), tmp_path / name)
    assert torch.equal(image(resumed), image(pipe))
    assert all(layer.delta("default").pool.requires_grad for layer in layers_of(resumed))


@pytest.mark.parametrize("method", [ours, one_pool])
def test_a_pipeline_with_an_adapted_text_encoder_is_saved_whole(method, make, tmp_path) -> None:
    """transformers writes the adapter into the encoder's folder, which names the encoder that it is for."""
    pipe = make()
    pipe.text_encoder.save_pretrained(tmp_path / "encoder")
    pipe.register_modules(text_encoder=type(pipe.text_encoder).from_pretrained(tmp_path / "encoder"))
    pipe.text_encoder.add_adapter(method(ON_TEXT, 1), "default")
    expected = image(pipe)
    assert differ(expected, image(make()))
    pipe.save_pretrained(tmp_path / "pipe")
    again = type(pipe).from_pretrained(tmp_path / "pipe")
    again.set_progress_bar_config(disable=True)
    assert any(isinstance(module, StructuneLayer) for module in again.text_encoder.modules())
    torch.testing.assert_close(image(again), expected, **CLOSE)


def test_layerwise_casting_leaves_adapters_alone(make, tmp_path) -> None:
    """Storage in float8, adapters in float32: added before and after, trained, saved, loaded."""
    pipe = make()
    name, denoiser = next(iter(components(pipe).items()))
    denoiser.add_adapter(ours(ON_IMAGES, 1), "before")
    exact = image(pipe)
    casting = {"storage_dtype": torch.float8_e4m3fn, "compute_dtype": torch.float32}
    denoiser.enable_layerwise_casting(**casting)
    denoiser.add_adapter(c3a(ON_IMAGES, 2), "after")
    layers = [module for module in denoiser.modules() if isinstance(module, StructuneLayer)]
    assert {layer.base_layer.weight.dtype for layer in layers} == {torch.float8_e4m3fn}
    assert {delta.pool.dtype for layer in layers for delta in layer.structune_delta.values()} == {torch.float32}
    denoiser.set_adapters("before")
    rounded = image(pipe)
    assert 1e-4 < (rounded - exact).abs().mean() < 0.2  # float8 has three bits
    plain = make()
    getattr(plain, name).enable_layerwise_casting(**casting)
    assert differ(rounded, image(plain))
    loaded = make()
    getattr(loaded, name).enable_layerwise_casting(**casting)
    structune.save_adapter(denoiser, tmp_path / "adapter", "before")
    structune.load_adapter(getattr(loaded, name), tmp_path / "adapter", "before")
    assert torch.equal(image(loaded), rounded)
    with pytest.raises(TypeError, match="merge into the model before quantising it, or casting its storage"):
        denoiser.fuse_lora()
    denoiser.set_adapters(["before", "after"])
    assert differ(image(pipe), rounded)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adapter_first", [True, False])
def test_layerwise_casting_computes_with_the_rounded_weights(adapter_first, compute) -> None:
    """Every type of layer that it casts: as a model whose weights were rounded to float8 once."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.linear = nn.Embedding(20, 16), nn.Linear(16, 24)
            self.conv, self.out = nn.Conv1d(24, 8, 3, padding=1), nn.Linear(8, 8)

        def forward(self, ids: Tensor) -> Tensor:
            x = torch.tanh(self.linear(self.table(ids)))
            return self.out(self.conv(x.mT).mT)

    net = Net().to(compute)
    rounded = copy.deepcopy(net)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.to(torch.float8_e4m3fn).to(compute)
    for model in (net, rounded):
        if model is net and not adapter_first:
            apply_layerwise_casting(net, torch.float8_e4m3fn, compute)
        inject_adapter_in_model(
            structune.c3a(block_size=4, target_modules=["table", "linear", "conv", "out"], init_weights=False), model
        )
    if adapter_first:
        apply_layerwise_casting(net, torch.float8_e4m3fn, compute)
    deltas = [[m for m in model.modules() if isinstance(m, structune.StructuredDelta)] for model in (net, rounded)]
    assert len(deltas[0]) == 4
    for own, other in zip(*deltas, strict=True):
        other.load_state_dict(own.state_dict())
    ids = torch.randint(0, 20, (2, 7))
    result = net(ids)
    assert result.dtype == compute
    torch.testing.assert_close(result, rounded(ids), rtol=1e-5, atol=1e-5)
    result.float().square().sum().backward()
    assert all(delta.pool.grad.abs().max() > 1e-3 for delta in deltas[0])
    assert all(delta.pool.dtype in (torch.float32, compute) for delta in deltas[0])


@pytest.mark.parametrize("method", [ours, one_pool])
def test_an_adapter_moves_by_its_name(method, make) -> None:
    pipe = adapt(make(), "one", "two", method=method)
    pipe.set_adapters("one")
    expected = image(pipe)
    pipe.set_lora_device(["two"], "meta")
    for layer in layers_of(pipe):
        assert layer.delta("two").pool.is_meta
        assert not layer.delta("one").pool.is_meta
    assert torch.equal(image(pipe), expected)


def test_lora_loads_beside_ours(make, tmp_path) -> None:
    other = adapt(make(), "style", method=lora)
    expected = image(other)
    files = {
        f"{name}_lora_layers": get_peft_model_state_dict(part, adapter_name="style")
        for name, part in components(other).items()
    }
    metadata = {
        f"{name}_lora_adapter_metadata": part.peft_config["style"].to_dict() for name, part in components(other).items()
    }
    type(other).save_lora_weights(tmp_path, **files, **metadata)
    pipe = adapt(make(), "one")
    one = image(pipe)
    pipe.load_lora_weights(tmp_path, adapter_name="style")
    pipe.set_adapters("style")
    torch.testing.assert_close(image(pipe), expected, **CLOSE)
    pipe.set_adapters("one")
    torch.testing.assert_close(image(pipe), one, **CLOSE)
    pipe.set_adapters(["one", "style"])
    assert differ(image(pipe), one)
    again, swapped = make(), pipe
    for name, part in components(pipe).items():  # whose layers are inside LoRA's now
        structune.save_adapter(part, tmp_path / name, "one")
        structune.load_adapter(getattr(again, name), tmp_path / name, "one")
    assert torch.equal(image(again), one)
    with torch.no_grad():
        for layer in layers_of(swapped):
            layer.delta("one").pool.zero_()
    for name, part in components(swapped).items():
        structune.hotswap_adapter(part, tmp_path / name, "one")
    swapped.set_adapters("one")
    torch.testing.assert_close(image(swapped), one, **CLOSE)
    unnamed = adapt(make(), "one")
    unnamed.load_lora_weights(tmp_path)
    assert unnamed.get_list_adapters() == {name: ["one", "default_1"] for name in components(unnamed)}


def test_diffusers_loaders_refuse_what_its_savers_write(make, tmp_path) -> None:
    """The page on frameworks says so, and which two lines do it."""
    pipe = adapt(make(), "default")
    files = {f"{name}_lora_layers": get_peft_model_state_dict(part) for name, part in components(pipe).items()}
    type(pipe).save_lora_weights(tmp_path, **files)
    with pytest.raises(ValueError, match="Invalid LoRA checkpoint"):
        make().load_lora_weights(tmp_path)
