"""What denoisers are told is what their own pipelines tell them while they draw, and latents are what these decode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from structune.data.images import ImageRef
from structune.errors import UserError
from structune.tasks.parts.diffusion.batches import Classes, Encoded, FixedBatches, NoisyBatches, draw_of, errors_of
from structune.tasks.parts.diffusion.pipeline import Pipeline
from structune.tasks.parts.model_section import ModelSection

SIZES = {"stable_diffusion": 16, "sdxl": 16, "stable_diffusion_3": 16, "flux": 8}


def image(side: int, seed: int = 0) -> ImageRef:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype(np.uint8)
    return ImageRef(pixels, "some image")


def told_while_drawing(folder: Path, prompt: str, size: int) -> tuple[DiffusionPipeline, dict[str, Any], Tensor]:
    """The pipeline, the arguments of its denoiser's first call, and what it says then."""
    plain = DiffusionPipeline.from_pretrained(folder)
    plain.set_progress_bar_config(disable=True)
    calls: list[Any] = []
    denoiser = getattr(plain, "unet", None) or plain.transformer
    names = ("sample", "timestep", "encoder_hidden_states")  # of the UNet's first arguments, which have no names there

    def keep(module: Any, given: Any, named: Any, said: Any) -> None:
        calls.append((dict(zip(names, given, strict=False)) | named, said[0]))

    denoiser.register_forward_hook(keep, with_kwargs=True)
    plain(
        prompt, num_inference_steps=3, guidance_scale=1.0, height=size, width=size, output_type="latent",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    return plain, *calls[0]


@pytest.mark.parametrize("name", SIZES)
def test_as_its_pipeline_tells_it(name: str, saved: Callable[[str], Path]) -> None:
    size = SIZES[name]
    plain, theirs, said = told_while_drawing(saved(name), "cat", size)
    pipeline = Pipeline(ModelSection(name=str(saved(name))))
    denoiser = pipeline.load_model()
    encoded = Encoded(["dog", "cat"], [image(size), image(size, 1)], pipeline, denoiser, size)
    noise = torch.zeros(1, *encoded[1]["latents"].shape)
    ours = draw_of(pipeline, [encoded[1]], noise, torch.tensor([3]), torch.ones(1))
    inputs = ours["inputs"]
    given = {
        key: value for key, value in theirs.items() if isinstance(value, Tensor) or (isinstance(value, dict) and value)
    }
    assert inputs.keys() == given.keys()
    for key in inputs.keys() - {"sample", "hidden_states", "timestep"}:
        torch.testing.assert_close(inputs[key], given[key], rtol=1e-4, atol=1e-5)
    picture = "sample" if "sample" in inputs else "hidden_states"
    assert inputs[picture].shape == given[picture].shape
    assert ours["target"].shape == said.shape
    # the same number means the same level: of the level next to theirs, ours is told nearly the same time
    of, their_time = pipeline.levels, float(torch.as_tensor(given["timestep"]).flatten()[0])
    told = [
        float(draw_of(pipeline, [encoded[1]], noise, torch.tensor([level]), torch.ones(1))["inputs"]["timestep"])
        for level in (0, len(of) // 2, len(of) - 1)
    ]
    assert told[0] < told[1] < told[2]
    nearest = int((of.times - of.times[-1] * their_time / told[2]).abs().argmin())
    at = draw_of(pipeline, [encoded[1]], noise, torch.tensor([nearest]), torch.ones(1))["inputs"]["timestep"]
    assert float(at) == pytest.approx(their_time, rel=2e-3)
    if of.kind == "flow":  # a time is the share of noise, times 1,000 where its pipeline tells it so
        index = int((plain.scheduler.timesteps - plain.scheduler.timesteps[0]).abs().argmin())
        share = float(plain.scheduler.sigmas[index])
        assert their_time / share == pytest.approx(told[1] / float(of.noise[len(of) // 2]), rel=2e-3)
    with torch.no_grad():
        again = denoiser(**{**given, "return_dict": False})[0]
    torch.testing.assert_close(again, said, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_latents_are_those_that_the_pipeline_decodes(name: str, saved: Callable[[str], Path]) -> None:
    """Scaled back as the pipeline does it before it decodes, they are what its VAE says of the image."""
    size = SIZES[name]
    pipeline = Pipeline(ModelSection(name=str(saved(name))))
    ref = image(size)
    encoded = Encoded(["cat"], [ref], pipeline, pipeline.load_model(), size)
    plain = DiffusionPipeline.from_pretrained(saved(name))
    seen = plain.image_processor.preprocess(ref.rgb())
    with torch.no_grad():
        expected = plain.vae.encode(seen).latent_dist.mean
    config = plain.vae.config
    back = torch.from_numpy(encoded[0]["latents"]) / config.scaling_factor + (config.shift_factor or 0)
    torch.testing.assert_close(back[None], expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-2


def test_flux_reads_patches_as_its_pipeline_packs_them(saved: Callable[[str], Path]) -> None:
    from diffusers import FluxPipeline

    pipeline = Pipeline(ModelSection(name=str(saved("flux"))))
    pictures = torch.randn(2, 3, 6, 4)
    assert torch.equal(pipeline.denoiser.packed(pictures), FluxPipeline._pack_latents(pictures, 2, 3, 6, 4))


def test_sdxl_is_told_what_is_seen_of_an_image(saved: Callable[[str], Path]) -> None:
    """Its size before, and where the square begins in the resized image, that is 16 high and 24 wide."""
    pipeline = Pipeline(ModelSection(name=str(saved("sdxl"))))
    ref = ImageRef(np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8), "wide")
    encoded = Encoded(["cat"], [ref], pipeline, pipeline.load_model(), 16)
    draw = FixedBatches(pipeline, 1)([encoded[0]])["draws"][0]
    assert draw["inputs"]["added_cond_kwargs"]["time_ids"].tolist() == [[20, 30, 0, 4, 16, 16]]
    wide = ref.rgb().resize((24, 16), Image.Resampling.LANCZOS).crop((4, 0, 20, 16))
    middle = Encoded(["cat"], [ImageRef(np.asarray(wide), "middle")], pipeline, pipeline.load_model(), 16)
    np.testing.assert_allclose(middle[0]["latents"], encoded[0]["latents"], atol=1e-5)


def test_draws_belong_to_what_they_are_for(saved: Callable[[str], Path]) -> None:
    """To evaluate: to the picture and its caption, wherever they stand. To train: to seed, epoch and place."""
    pipeline = Pipeline(ModelSection(name=str(saved("stable_diffusion"))))
    denoiser = pipeline.load_model()
    images = [image(16, seed) for seed in (0, 1, 2)]
    first = Encoded(["a", "b", "c"], images, pipeline, denoiser, 16)
    other = Encoded(["c", "a"], [images[2], images[0]], pipeline, denoiser, 16)
    fixed = FixedBatches(pipeline, 4)
    one, two = fixed([first[0], first[2]]), fixed([other[0], other[1]])
    assert one["labels"].shape == (2, 4)
    assert torch.equal(one["labels"], two["labels"].flip(0))
    assert ((one["labels"] * 4).long() == torch.arange(4)).all()
    for ours, theirs in zip(one["draws"], two["draws"], strict=True):
        assert torch.equal(ours["target"], theirs["target"].flip(0))
        assert torch.equal(ours["inputs"]["timestep"], theirs["inputs"]["timestep"].flip(0))
        assert ours["shares"].tolist() == [0.25, 0.25]
    targets = [draw["target"] for draw in one["draws"]]
    assert not any(torch.equal(targets[0], target) for target in targets[1:])

    batches = NoisyBatches(pipeline)
    drawn = []
    for begun in ((0, 0), (0, 1), (1, 0), (0, 0)):
        batches.begin_epoch(*begun)
        drawn.append(batches([first[0], first[1]])["draws"][0])
    assert torch.equal(drawn[0]["target"], drawn[3]["target"])
    assert not torch.equal(drawn[0]["target"], drawn[1]["target"])
    assert not torch.equal(drawn[0]["target"], drawn[2]["target"])
    assert not torch.equal(drawn[0]["target"][0], drawn[0]["target"][1])
    assert errors_of(denoiser, drawn[0]).shape == (2,)


def test_images_of_the_class_are_looked_at_beside(saved: Callable[[str], Path]) -> None:
    """One for each example, under noise of its own, with its own caption and weight; min-SNR weighs both."""
    pipeline = Pipeline(ModelSection(name=str(saved("stable_diffusion"))))
    denoiser = pipeline.load_model()
    classes = Classes("b", [image(16, seed) for seed in (7, 8)], pipeline, denoiser, 16)
    encoded = Encoded(["a", "a"], [image(16), image(16, 1)], pipeline, denoiser, 16, classes)
    batch = NoisyBatches(pipeline, prior_weight=0.25)([encoded[0], encoded[1]])
    (draw,) = batch["draws"]
    assert batch["labels"].shape == (2, 1)
    assert draw["shares"].tolist() == [1.0, 1.0, 0.25, 0.25]
    alone = Encoded(["b"], [image(16, 7)], pipeline, denoiser, 16)
    told = draw["inputs"]["encoder_hidden_states"]
    assert np.array_equal(told[2], alone[0]["texts"]["encoder_hidden_states"])
    assert torch.equal(told[2], told[3]) and not torch.equal(told[0], told[2])
    assert not torch.equal(draw["target"][0], draw["target"][2])
    weighed = NoisyBatches(pipeline, gamma=0.5, prior_weight=0.25)([encoded[0], encoded[1]])["draws"][0]
    levels = weighed["inputs"]["timestep"]
    expected = draw["shares"] * pipeline.levels.min_snr_weight(levels, 0.5)
    torch.testing.assert_close(weighed["shares"], expected)
    assert not torch.equal(weighed["shares"], draw["shares"])


def test_levels_of_flows_are_logit_normal(saved: Callable[[str], Path]) -> None:
    """Their logits have the mean 0 and the deviation 1; uniform ones have the moments of that distribution."""
    pipeline = Pipeline(ModelSection(name=str(saved("flux"))))
    encoded = Encoded(["a"], [image(8)], pipeline, pipeline.load_model(), 8)
    rows = [{**encoded[0], "number": number} for number in range(2000)]
    shares = NoisyBatches(pipeline, normal=True)(rows)["labels"].flatten().double()
    logits = torch.logit(shares)
    assert abs(float(logits.mean())) < 0.08
    assert 0.94 < float(logits.std()) < 1.06
    shares = NoisyBatches(pipeline, normal=False)(rows)["labels"].flatten().double()
    assert abs(float(shares.mean()) - 0.5) < 0.03
    assert abs(float(shares.std()) - 12**-0.5) < 0.02


def test_pipelines_that_are_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    import json
    import shutil

    def changed(file: str, **values: Any) -> ModelSection:
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(saved("stable_diffusion"), folder)
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**config, **values}))
        return ModelSection(name=str(folder))

    with pytest.raises(
        UserError, match="model.name = .*: its unet cannot be trained here: it reads 9 channels and pre"
    ):
        Pipeline(changed("unet/config.json", in_channels=9))
    with pytest.raises(UserError, match="its addition_embed_type is 'image'"):
        Pipeline(changed("unet/config.json", addition_embed_type="image"))
    with pytest.raises(UserError, match="of the class Kandinsky3UNet, and known are UNet2DConditionModel, SD3"):
        Pipeline(changed("model_index.json", unet=["diffusers", "Kandinsky3UNet"]))
    with pytest.raises(UserError, match="names no denoiser"):
        Pipeline(changed("model_index.json", unet=None))
    with pytest.raises(UserError, match="its VAE, .* is AutoencoderTiny"):
        Pipeline(changed("model_index.json", vae=["diffusers", "AutoencoderTiny"])).image_size(None)
    with pytest.raises(UserError, match=r"cannot be loaded .* The folder must hold model_index\.json"):
        Pipeline(ModelSection(name=str(tmp_path)))
    with pytest.raises(UserError, match="data.image_size = 7: .* a multiple of 2; take 8"):
        Pipeline(ModelSection(name=str(saved("flux")))).image_size(7)
