"""Text-to-image on small random pipelines: from images and captions to a merged pipeline that draws the same."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

import structune
from structune.errors import UserError
from structune.finetune.evaluate import evaluate, load_run
from structune.finetune.merge import merge
from structune.finetune.predict import write_predictions
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.task_data import load_data
from structune.finetune.training import train
from structune.tasks.parts.diffusion.pipeline import Pipeline
from structune.testing.tasks import stopped_after

from .clips import cosines
from .conftest import picture
from .whole_run import straight_and_resumed

TASK = {"name": "text-to-image", "evaluation_draws": 4, "samples": {"steps": 2, "count": 2}}
METHOD = {"name": "c3a", "block_size": 8}
SIZES = {"stable_diffusion": 16, "sdxl": 16, "stable_diffusion_3": 16, "flux": 8}
"""The size of pictures of each small pipeline."""


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images with a table of captions beside them, as `imagefolder` has it."""
    folder = tmp_path_factory.mktemp("captioned")
    lines = []
    for number in range(12):
        side = ("left", "right")[number % 2]
        Image.fromarray(picture(side, number)).save(folder / f"{number:02}.png")
        lines.append(json.dumps({"file_name": f"{number:02}.png", "text": side}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def recipe(
    model: Path,
    data: dict[str, Any],
    output: Path,
    *,
    task: dict[str, Any] | None = None,
    method: Any = METHOD,
    **settings: Any,
) -> Recipe:
    return Recipe.parse(
        {
            "task": TASK | (task or {}),
            "model": {"name": str(model)},
            "data": {"image_size": 16} | data,
            "method": method,
            "output": str(output),
            "train": {"max_steps": 8, "batch_size": 3, "learning_rate": 0.5, "log_steps": 2, "device": "cpu"}
            | settings,
        }
    )


def drawn(pipeline: DiffusionPipeline, prompt: str, **options: Any) -> torch.Tensor:
    """An image by plain diffusers."""
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(7)
    size = options.pop("size", 16)
    return pipeline(
        prompt, num_inference_steps=3, generator=noise, output_type="pt", height=size, width=size, **options
    ).images


@pytest.fixture(scope="module")
def run(saved: Callable[[str], Path], photos: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of Stable Diffusion that has changed what it draws, with a CLIP that looks at it."""
    data, output = {"train": str(photos), "evaluation_examples": 4}, tmp_path_factory.mktemp("text-to-image") / "run"
    return train(recipe(saved("stable_diffusion"), data, output, task={"clip": str(tiny_clip)}))


def test_it_learns_and_a_resumed_run_is_the_same(saved, photos, tmp_path, monkeypatch) -> None:
    """With images of the class, class by class drawn anew in each epoch, and min-SNR weights."""
    classes = tmp_path / "classes"
    classes.mkdir()
    for number in range(3):
        Image.fromarray(picture("left", 100 + number)).save(classes / f"{number}.png")
    data = {
        "train": str(photos), "evaluation_examples": 4, "class_images": str(classes), "class_prompt": "light",
    }  # fmt: skip

    def make(name: str) -> Recipe:
        task = {"min_snr": 5.0, "prior_weight": 0.5}
        return recipe(saved("stable_diffusion"), data, tmp_path / name, task=task, save_steps=100, evaluate_first=True)

    resumed, _ = straight_and_resumed(make, monkeypatch)
    figures = [Image.open(tmp_path / name / "samples.png") for name in ("straight", "stopped")]
    assert [figure.info["steps"] for figure in figures] == ["0 4 8", "0 4 8"]
    one, other = (np.asarray(figure) for figure in figures)
    assert (one == other).all()
    assert resumed.metrics()["targets"]["class_images"].startswith("3 images, hash ")
    log = [json.loads(line) for line in resumed.log_file.read_text().splitlines()]
    scores = [entry["eval_denoising_loss"] for entry in log if "eval_denoising_loss" in entry]
    assert scores[-1] < 0.98 * scores[0]  # the same noise each time


def test_held_out_noise_is_the_same_for_every_method_and_evaluation(saved, photos, run, tmp_path) -> None:
    """A method whose update is nothing yet scores what the pipeline itself scores, and twice the same."""
    expected = loss_by_hand(run)
    result = evaluate(run.folder)
    assert result.scores["denoising_loss"] == pytest.approx(expected, rel=1e-4)
    assert result.loss == pytest.approx(expected, rel=1e-4)
    assert result.notes == []  # others with the same captions were trained on, and these not
    table = dict(result.tables())["CLIP similarity"]
    assert table == {
        name: {"mean cosine": pytest.approx(value, abs=2e-4), "prompts": 2}
        for name, value in zip(("before", "after"), similarities_by_hand(run), strict=True)
    }
    assert table["after"]["mean cosine"] == pytest.approx(run.metrics()["clip_similarity"], abs=1e-6)
    assert table["before"]["mean cosine"] == pytest.approx(run.metrics()["clip_similarity_before"], abs=1e-6)
    assert abs(table["after"]["mean cosine"] - table["before"]["mean cosine"]) > 2e-3
    rows = result.details["loss by noise"]
    assert sum(row["draws"] for row in rows.values()) == 16
    assert list(rows) == ["least noise", "less", "more", "most noise"]
    assert rows["least noise"]["denoising loss"] != rows["most noise"]["denoising loss"]


def similarities_by_hand(run: Run) -> list[float]:
    """The mean cosines of what plain diffusers draws for the two captions, without the adapter and with it."""
    found = []
    for adapter in (None, run.adapter):
        pipeline = DiffusionPipeline.from_pretrained(run.recipe().model.name)
        if adapter is not None:
            structune.load_adapter(pipeline.unet, adapter)
        pipeline.set_progress_bar_config(disable=True)
        options = {"num_inference_steps": 2, "height": 16, "width": 16}
        prompts = run.targets()["prompts"]
        images = [
            pipeline(prompt, generator=torch.Generator().manual_seed(seed), **options).images[0]
            for seed, prompt in enumerate(prompts)
        ]
        found.append(sum(cosines(images, prompts, Path(run.recipe().task.clip))) / 2)
    return found


def loss_by_hand(run: Run) -> float:
    """The mean over held-out images and fixed levels, from the merged pipeline, one example at a time."""
    loaded = load_run(run.folder)
    examples = load_data(loaded.recipe.task, loaded.recipe.data).evaluation
    batches = loaded.recipe.task.collator(loaded.base, training=False)
    encoded = loaded.recipe.task.encode(examples, loaded.base, loaded.targets, loaded.recipe.data)
    pipeline = DiffusionPipeline.from_pretrained(loaded.recipe.model.name)
    structune.load_adapter(pipeline.unet, run.adapter)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    total = []
    for row, (caption, image) in enumerate(zip(examples.inputs["caption"], examples.labels, strict=True)):
        batch = batches([encoded[row]])
        seen = pipeline.image_processor.preprocess(square_of(image.rgb()))
        with torch.no_grad():
            latents = pipeline.vae.encode(seen).latent_dist.mean * pipeline.vae.config.scaling_factor
            told = pipeline.encode_prompt(caption, "cpu", 1, False)[0]
            for draw in batch["draws"]:
                noise, time = draw["target"], draw["inputs"]["timestep"]
                noisy = scheduler.add_noise(latents, noise, time)
                said = pipeline.unet(noisy, time, told).sample
                total.append(float(((said - noise) ** 2).mean()))
        assert abs(float(noise.mean())) < 0.3 and 0.7 < float(noise.std()) < 1.3
    return sum(total) / len(total)


def square_of(image: Image.Image, side: int = 16) -> Image.Image:
    width, height = image.size
    scale = side / min(width, height)
    image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def test_what_is_saved_goes_into_a_plain_pipeline(run, saved, tmp_path) -> None:
    """Loaded by structune, by the lines of the card and merged: always the same image, and not that of before."""
    plain = DiffusionPipeline.from_pretrained(saved("stable_diffusion"))
    before = drawn(plain, "left")
    structune.load_adapter(plain.unet, run.adapter)
    adapted = drawn(plain, "left")
    assert (adapted - before).abs().max() > 1e-2
    assert merge(run.folder, tmp_path / "merged") < 1e-4
    merged = DiffusionPipeline.from_pretrained(tmp_path / "merged")
    assert type(merged.unet).__name__ == "UNet2DConditionModel"
    assert not hasattr(merged.unet, "peft_config")
    assert (drawn(merged, "left") - adapted).abs().max() < 1e-4

    card = (run.adapter / "README.md").read_text()
    lines = card.split("```python\n")[1].split("```")[0]
    lines = lines.replace("path/to/this/folder", str(run.adapter)).partition("\npipeline(")[0]
    known: dict[str, Any] = {}
    exec(lines, known)
    assert (drawn(known["pipeline"], "left") - adapted).abs().max() < 1e-4


def test_images_for_a_file_of_prompts(run, tmp_path) -> None:
    """One for each line; with a seed of its own, where there is a column; the same as the pipeline draws."""
    (tmp_path / "prompts.txt").write_text("left\n\nright\n")
    assert write_predictions(run.folder, str(tmp_path / "prompts.txt"), tmp_path / "drawn.csv") == 2
    rows = list(csv.DictReader((tmp_path / "drawn.csv").open()))
    assert [row["text"] for row in rows] == ["left", "right"]
    images = [np.asarray(Image.open(tmp_path / row["image"])).astype(int) for row in rows]
    assert images[0].shape == (16, 16, 3)
    assert np.abs(images[0] - images[1]).max() > 3

    seeds = [{"text": "left", "seed": 7}, {"text": "left", "seed": 8}]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in seeds))
    write_predictions(run.folder, str(tmp_path / "seeds.jsonl"), tmp_path / "seeds.csv")
    seven, eight = (np.asarray(Image.open(tmp_path / "seeds" / f"00000{n}.png")).astype(int) for n in (1, 2))
    assert np.abs(seven - eight).max() > 3
    pipeline = DiffusionPipeline.from_pretrained(run.recipe().model.name)
    structune.load_adapter(pipeline.unet, run.adapter)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(7)
    expected = pipeline("left", num_inference_steps=2, generator=noise, height=16, width=16).images[0]
    assert np.abs(np.asarray(expected).astype(int) - seven).max() <= 1

    (tmp_path / "wrong.jsonl").write_text('{"text": "light", "seed": "many"}\n')
    with pytest.raises(UserError, match="'many' is no whole number from 0"):
        write_predictions(run.folder, str(tmp_path / "wrong.jsonl"), tmp_path / "wrong.csv")
    (tmp_path / "twice.txt").write_text("light\nlight\n")
    with pytest.warns(match="1 of 2 prompts were there before, and get the same image again; give each row a seed"):
        write_predictions(run.folder, str(tmp_path / "twice.txt"), tmp_path / "twice.csv")


@pytest.mark.parametrize("name", ["sdxl", "stable_diffusion_3", "flux"])
def test_other_architectures(name: str, saved, photos, tmp_path) -> None:
    """Two text encoders, v, and flows: trained, resumed weights aside, merged to the same image by plain diffusers."""
    size = SIZES[name]
    folder = saved(name)
    if name == "sdxl":  # of v, as its scheduler says
        folder = shutil.copytree(folder, tmp_path / "v")
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        (folder / "scheduler" / "scheduler_config.json").write_text(
            json.dumps(config | {"prediction_type": "v_prediction"})
        )
    data = {"train": str(photos), "evaluation_examples": 2, "image_size": size}
    task = {"text_length": 12, "samples": {"steps": 1, "count": 1, "times": 1}}
    run = train(recipe(folder, data, tmp_path / "run", task=task, max_steps=3))
    assert run.metrics()["trainable_adapter"] > 0
    assert Image.open(run.folder / "samples.png").info["steps"] == "3"
    assert merge(run.folder, tmp_path / "merged") < 1e-4
    options = {"size": size} | ({} if name == "sdxl" else {"max_sequence_length": 12})
    plain = DiffusionPipeline.from_pretrained(folder)
    before = drawn(plain, "left", **options)
    structune.load_adapter(getattr(plain, "unet", None) or plain.transformer, run.adapter)
    adapted = drawn(plain, "left", **options)
    assert (adapted - before).abs().max() > 1e-3
    merged = DiffusionPipeline.from_pretrained(tmp_path / "merged")
    assert (drawn(merged, "left", **options) - adapted).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["dreambooth-sd15", "dreambooth-sdxl"])
def test_recipes_of_the_hub(name: str, saved, tmp_path, monkeypatch) -> None:
    """With a small pipeline in place of the hub's, and a few steps."""
    monkeypatch.chdir(tmp_path)
    for folder in ("my-dog", "dogs"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            Image.fromarray(picture("left", number + 10 * len(folder))).save(tmp_path / folder / f"{number}.png")
    model = saved("stable_diffusion" if name.endswith("15") else "sdxl")
    changes = [
        f"model.name={model}", "train.max_steps=2", "train.eval_steps=2", "train.device=cpu", "train.precision=fp32",
        "data.image_size=16", "method.block_size=8", "task.samples.steps=1", "task.samples.times=1", "output=run",
        "task.evaluation_draws=2",
    ]  # fmt: skip
    run = train(Recipe.load(name, changes))
    layers = {key.rpartition(".structune")[0] for key in load_file(run.adapter / "adapter_model.safetensors")}
    assert {layer.rpartition("attn")[2][2:] for layer in layers} == {"to_q", "to_k", "to_v", "to_out.0"}
    assert ("class_images" in run.metrics()["targets"]) == name.endswith("15")


@pytest.mark.parametrize("name", ["stable_diffusion", "sdxl"])
def test_text_encoders_are_trained_too(name: str, saved, photos, tmp_path) -> None:
    """What they say through the model is what the pipeline says, and their updates go wherever the denoiser's go."""
    data = {"train": str(photos), "evaluation_examples": 2}
    frozen = {"evaluation_draws": 2, "samples": {"times": 0}}
    trained = {**frozen, "text_encoder": True}
    runs = {}
    for part, task in (("frozen", frozen), ("trained", trained)):
        runs[part] = train(recipe(saved(name), data, tmp_path / part, task=task, max_steps=2, log_steps=1))
    logs = [map(json.loads, run.log_file.read_text().splitlines()) for run in runs.values()]
    losses = [next(entry["loss"] for entry in log if "loss" in entry) for log in logs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # before the first update they are the same model
    run = runs["trained"]
    layers = {key.removeprefix("base_model.model.") for key in load_file(run.adapter / "adapter_model.safetensors")}
    parts = {"unet", "text_encoder"} | ({"text_encoder_2"} if name == "sdxl" else set())
    assert {layer.partition(".")[0] for layer in layers} == parts
    assert {layer.rpartition(".structune")[0].rpartition(".")[2] for layer in layers} == {
        "to_q",
        "to_v",
        "q_proj",
        "v_proj",
    }
    plain = DiffusionPipeline.from_pretrained(saved(name))
    told = plain.encode_prompt("left", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)[0]
    before = drawn(plain, "left")
    structune.load_adapter(plain, run.adapter, "subject")
    assert all(list(getattr(plain, part).peft_config) == ["subject"] for part in parts)
    changed = plain.encode_prompt("left", device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)[0]
    assert (changed - told).abs().max() > 1e-3
    adapted = drawn(plain, "left")
    assert (adapted - before).abs().max() > 1e-3
    assert merge(run.folder, tmp_path / "merged") < 1e-4
    merged = DiffusionPipeline.from_pretrained(tmp_path / "merged")
    assert (drawn(merged, "left") - adapted).abs().max() < 1e-4
    card = (run.adapter / "README.md").read_text().split("```python\n")[1].split("```")[0]
    known: dict[str, Any] = {}
    exec(card.replace("path/to/this/folder", str(run.adapter)).partition("\npipeline(")[0], known)
    assert (drawn(known["pipeline"], "left") - adapted).abs().max() < 1e-4


def test_an_adapter_of_a_denoiser_goes_into_a_pipeline(run, saved) -> None:
    """As into the denoiser itself; a pipeline that it does not fit stays as it was."""
    images = []
    for into in (lambda pipeline: pipeline.unet, lambda pipeline: pipeline):
        plain = DiffusionPipeline.from_pretrained(saved("stable_diffusion"))
        structune.load_adapter(into(plain), run.adapter)
        images.append(drawn(plain, "left"))
    assert torch.equal(*images)
    with pytest.raises(ValueError, match="adapter_name='default' is taken"):
        structune.load_adapter(plain, run.adapter)
    other = DiffusionPipeline.from_pretrained(saved("flux"))
    before = dict(other.transformer.config)
    with pytest.raises(ValueError, match="the checkpoint lacks 4 of the 4 tensors"):
        structune.load_adapter(other, run.adapter)
    assert not hasattr(other.transformer, "peft_config")
    assert dict(other.transformer.config) == before
    with pytest.raises(ValueError, match="dict is neither a module nor a pipeline with a denoiser"):
        structune.load_adapter({}, run.adapter)


def test_text_encoders_that_cannot_be_trained(saved, photos, tmp_path) -> None:
    data = {"train": str(photos), "evaluation_examples": 2}
    with pytest.raises(UserError, match="task.text_encoder: the text encoders of this pipeline cannot be trained"):
        train(recipe(saved("flux"), data, tmp_path / "run", task={"text_encoder": True}))


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"task": {"clip": "no/clip", "samples": {"times": 1}}}, "task.clip = .*no/clip.*no CLIP model can be loaded"),
        ({"quantisation": "4bit"}, "model.quantisation = '4bit': the task text-to-image has its model in fp32; leave"),
        ({"dtype": "bf16"}, "model.dtype = 'bf16': .* save memory by train.precision: bf16"),
    ],
)
def test_what_cannot_be_is_told_before_the_pipeline_is_loaded(
    section: dict[str, Any], told: str, saved, photos, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(Pipeline, "_component", None)
    task = section.get("task", {})
    made = recipe(saved("flux"), {"train": str(photos), "evaluation_examples": 2}, tmp_path / "run", task=task)
    model = {key: value for key, value in section.items() if key != "task"}
    made = made.model_copy(update={"model": made.model.model_copy(update=model)})
    with pytest.raises(UserError, match=told):
        train(made)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_methods_that_are_not_ours(method: str, saved, photos, tmp_path, monkeypatch) -> None:
    """Resumed to the same numbers, scored by the same noise and merged to a pipeline that scores the same."""
    data = {"train": str(photos), "evaluation_examples": 4}
    task = {"samples": {"times": 0}}

    def make(name: str) -> Recipe:
        rate = {"full": 1e-3, "lora": 0.05}[method]
        return recipe(
            saved("stable_diffusion"),
            data,
            tmp_path / name,
            task=task,
            method=method,
            learning_rate=rate,
            save_steps=100,
        )

    straight = train(make("straight"))
    stopped_after(5, make("stopped"), monkeypatch)
    run = train(make("stopped"), resume=True)
    expected, found = (load_file(each.adapter / "adapter_model.safetensors") for each in (straight, run))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    result = evaluate(run.folder)
    assert "CLIP similarity" not in result.details  # nobody looked
    assert "clip_similarity" not in run.metrics()
    assert result.scores["denoising_loss"] == pytest.approx(run.metrics()["eval_denoising_loss"], rel=1e-6)
    assert not (run.folder / "samples.png").exists()
    assert merge(run.folder, tmp_path / "merged") < 1e-4
    again = make("again").model_copy(
        update={"model": run.recipe().model.model_copy(update={"name": str(tmp_path / "merged")})}
    )
    base = again.task.load(again.model, run.targets(), 0)
    held_out = load_data(again.task, again.data).evaluation
    encoded = again.task.encode(held_out, base, run.targets(), again.data)
    with torch.no_grad():
        loss, _ = again.task.step(base.model, again.task.collator(base, False)(list(encoded)))
    assert float(loss) == pytest.approx(result.scores["denoising_loss"], rel=1e-4)
