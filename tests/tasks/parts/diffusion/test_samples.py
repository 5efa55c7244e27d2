"""Figures of samples that grow, a CLIP's similarity, and what is computed once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from structune.data.images import ImageRef
from structune.errors import UserError
from structune.tasks.parts.diffusion import latents
from structune.tasks.parts.diffusion.clip import load_clip, similarity
from structune.tasks.parts.diffusion.grid import add_column
from structune.tasks.parts.diffusion.latents import latents_of, scaled, texts_of
from structune.tasks.parts.diffusion.pipeline import Pipeline
from structune.tasks.parts.model_section import ModelSection

from ...clips import cosines

PROMPTS = ["a cat", "a very long prompt " * 30]


def samples(shade: int, side: int = 32) -> list[Image.Image]:
    return [Image.new("RGB", (side, side), (shade, 0, 0)), Image.new("RGB", (side, side), (0, shade, 0))]


def tiles(path: Path) -> tuple[str, list[tuple[int, int]]]:
    """The steps of a figure, and the reds and greens in the middle of its tiles, row by row."""
    figure = Image.open(path).convert("RGB")
    columns = len(figure.info.get("steps", Image.open(path).info["steps"]).split())
    side = (figure.width - 8) // max(columns, 2) - 8
    row = (figure.height - 30) // 2
    found = []
    for top in (30, 30 + row):
        for column in range(columns):
            red, green, _ = figure.getpixel((8 + column * (side + 8) + side // 2, top + 34 + side // 2))
            found.append((red, green))
    return Image.open(path).info["steps"], found


def test_a_figure_grows_column_by_column(tmp_path: Path) -> None:
    path = tmp_path / "samples.png"
    for step in (0, 50, 100):
        add_column(path, PROMPTS, samples(100 + step), step)
    assert tiles(path) == ("0 50 100", [(100, 0), (150, 0), (200, 0), (0, 100), (0, 150), (0, 200)])
    straight = path.read_bytes()
    add_column(path, PROMPTS, samples(7), 50)  # resumed before it: what came later goes
    assert tiles(path) == ("0 50", [(100, 0), (7, 0), (0, 100), (0, 7)])
    add_column(path, PROMPTS, samples(150), 50)
    add_column(path, PROMPTS, samples(200), 100)
    assert path.read_bytes() == straight
    add_column(path, PROMPTS, samples(9, side=300), 100)  # another size: a new figure
    assert tiles(path) == ("100", [(9, 0), (0, 9)])
    path.write_bytes(b"no image")
    add_column(path, PROMPTS, samples(9), 5)
    assert tiles(path)[0] == "5"


def test_clip_similarity_is_a_mean_of_cosines(tiny_clip: Path) -> None:
    """Of images each with its own prompt; the end of a prompt that is too long is not read."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (20, 24, 3)).astype(np.uint8)) for _ in range(3)]
    prompts = ["a cat", "two", "rooftop"]
    expected = cosines(images, prompts, tiny_clip)
    clip = load_clip(str(tiny_clip))
    assert similarity(images, prompts, clip) == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert max(expected) - min(expected) > 1e-3
    assert similarity(images[:1], ["long" * 9], clip) == similarity(images[:1], ["long" * 8], clip)
    with pytest.raises(UserError, match="task.clip = .*: no CLIP model can be loaded from there"):
        load_clip("/no/such/folder")


def test_what_is_computed_once_is_kept(
    saved: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In files that know what they were made of: another image, size, caption or VAE has one of its own."""
    monkeypatch.setenv("STRUCTUNE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    images = [ImageRef(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8), str(n)) for n in range(5)]
    pipeline = Pipeline(ModelSection(name=str(saved("sdxl"))))
    denoiser = pipeline.load_model()
    captions = ["a", "b", "c"]
    fresh = latents_of(images, pipeline, 16), texts_of(captions, pipeline, denoiser)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(latents, "FEW", 2)
    first = latents_of(images, pipeline, 16), texts_of(captions, pipeline, denoiser)
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "load_vae", None)
        patch.setattr(Pipeline, "texts", None)
        again = latents_of(images, pipeline, 16), texts_of(captions, pipeline, denoiser)
    for one, two, three in zip(fresh, first, again, strict=True):
        assert one.dtype == two.dtype == three.dtype
        for name in one.dtype.names:
            assert np.array_equal(one[name], two[name]) and np.array_equal(one[name], three[name])
            assert len(np.unique(one[name])) > 1
    kept = tmp_path / "cache" / "latents"
    assert len(list(kept.glob("*.npy"))) == 1
    latents_of(images[::-1], pipeline, 16)
    latents_of(images, pipeline, 8)
    vae = saved("sdxl") / "vae" / "config.json"
    os.utime(vae, ns=(1, 1))
    latents_of(images, pipeline, 16)
    assert len(list(kept.glob("*.npy"))) == 4
    texts_of([*captions, "d"], pipeline, denoiser)
    assert len(list((tmp_path / "cache" / "texts").glob("*.npy"))) == 2


def test_latents_with_a_mean_and_a_deviation() -> None:
    """As pipelines take them apart again before they decode: z · deviation / scaling + mean."""
    config = {"scaling_factor": 0.5, "latents_mean": [1.0, -2.0], "latents_std": [3.0, 4.0]}
    latents = torch.randn(2, 2, 3, 3)
    found = scaled(latents, config)
    for channel, (mean, deviation) in enumerate(zip([1.0, -2.0], [3.0, 4.0], strict=True)):
        torch.testing.assert_close(found[:, channel] * deviation / 0.5 + mean, latents[:, channel])
