"""Image classification, from images to a merged model: on a tiny ViT and a tiny ConvNet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from structune.data.images import ImageRef
from structune.data.sources import load_file as load_table
from structune.doubt import DataWarning
from structune.errors import UserError
from structune.finetune.evaluate import evaluate, load_run
from structune.finetune.merge import merge
from structune.finetune.predict import predict
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.task_data import load_data
from structune.finetune.trainer.trainer import RecipeTrainer
from structune.finetune.training import train
from structune.tasks.image_classification import ImageClassification
from structune.tasks.parts.images.batches import ImageBatches
from structune.tasks.parts.images.images import ImageData
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.task import Base

from .conftest import picture

MakeRecipe = Callable[..., Recipe]
C3A = {"name": "c3a", "block_size": 4}
FAST = {"max_steps": 40, "learning_rate": 0.05, "head_learning_rate": 0.02}


def test_it_learns_and_evaluates_and_merges_to_a_plain_model(
    image_recipe: MakeRecipe, photos: Path, tmp_path: Path
) -> None:
    run = train(image_recipe(C3A, **FAST))
    metrics = run.metrics()
    assert metrics["eval_accuracy"] == 1.0
    assert metrics["targets"] == {"classes": ["left", "right"]}
    assert metrics["trainable_head"] == (16 + 1) * 2
    result = evaluate(run.folder)
    assert result.loss == metrics["eval_loss"]
    assert evaluate(run.folder, photos).examples == 40

    assert merge(run.folder, tmp_path / "merged") < 1e-4
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "merged").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "merged", backend="pil")
    assert model.config.id2label == {0: "left", 1: "right"}
    image = Image.open(photos / "right" / "01.png")
    loaded = load_run(run.folder)
    pixels = processor(images=image, return_tensors="pt")
    with torch.inference_mode():
        ours = loaded.model(**pixels).logits
        torch.testing.assert_close(model(**pixels).logits, ours, atol=1e-5, rtol=1e-4)
    assert loaded.recipe.task.answers(ours.numpy(), loaded.targets)[0]["prediction"] == "right"


def numbers(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break off as a killed process would: nothing is saved after the last checkpoint."""
    taken = RecipeTrainer.training_step

    def training_step(self: RecipeTrainer, *arguments: Any, **options: Any) -> torch.Tensor:
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return taken(self, *arguments, **options)

    monkeypatch.setattr(RecipeTrainer, "training_step", training_step)


@pytest.mark.parametrize("at", [5, 7])
def test_a_run_that_is_broken_off_goes_on_bit_by_bit(
    at: int, image_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 4 steps an epoch, with variation that is another in each: 5 is the second epoch's middle, 8 its end
    settings: dict[str, Any] = {"max_steps": 10, "save_steps": 2, "task": {"augment": {"flip": True, "crop": 3}}}
    epochs, begin = [], ImageBatches.begin_epoch

    def told(self: ImageBatches, seed: int, epoch: int) -> None:
        epochs.append(epoch)
        begin(self, seed, epoch)

    monkeypatch.setattr(ImageBatches, "begin_epoch", told)
    whole = numbers(train(image_recipe(C3A, "whole", **settings)).folder)
    assert epochs == [0, 1, 2]
    with monkeypatch.context() as patch:
        stop_after(at, patch)
        with pytest.raises(KeyboardInterrupt):
            train(image_recipe(C3A, "broken", **settings))
    epochs.clear()
    resumed = numbers(train(image_recipe(C3A, "broken", **settings), resume=True).folder)
    assert epochs == [1, 2]
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    still = numbers(train(image_recipe(C3A, "still", max_steps=10, save_steps=2)).folder)
    assert not all(torch.equal(still[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("method", ["lora", {"name": "c3a", "num_splits": 2}, "full"])
def test_a_convnet_keeps_its_statistics(
    method: Any, image_recipe: MakeRecipe, tiny_convnet: Path, tmp_path: Path
) -> None:
    run = train(image_recipe(method, model={"name": str(tiny_convnet)}, learning_rate=0.01, head_learning_rate=0.01))
    result = evaluate(run.folder)
    assert result.loss == run.metrics()["eval_loss"]
    pristine = load_file(tiny_convnet / "model.safetensors")
    merge(run.folder, tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    statistics = [name for name in pristine if "running" in name]
    assert len(statistics) > 10
    assert all(torch.equal(merged[name], pristine[name]) for name in statistics)
    assert merged["classifier.weight"].shape == (2, 1280)
    moved = [name for name in pristine if "project_conv" in name and not torch.equal(merged[name], pristine[name])]
    assert moved


def test_arrays_of_numpy_hold_both_parts(image_recipe: MakeRecipe, tmp_path: Path) -> None:
    sides = ["left", "right"] * 20
    images = np.stack([picture(side, seed)[:16, :16] for seed, side in enumerate(sides)])
    labels = np.array([sides.index(side) for side in sides])[:, None]
    file = tmp_path / "arrays.npz"
    np.savez(file, x_train=images[:30], y_train=labels[:30], x_test=images[30:], y_test=labels[30:],
             label_names=np.array(["left", "right"]))  # fmt: skip
    recipe = image_recipe({"name": "head"}, data={"train": str(file), "evaluation": str(file)})
    metrics = train(recipe).metrics()
    assert (metrics["train_examples"], metrics["eval_examples"]) == (30, 10)
    assert metrics["targets"] == {"classes": ["left", "right"]}


def test_another_size_resizes_the_positions(image_recipe: MakeRecipe, tiny_vit: Path, tmp_path: Path) -> None:
    run = train(image_recipe(C3A, data={"image_size": 24}))
    assert evaluate(run.folder).loss == run.metrics()["eval_loss"]
    merge(run.folder, tmp_path / "merged")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "merged").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "merged", backend="pil")
    pixels = processor(images=Image.new("RGB", (50, 40)), return_tensors="pt")
    assert pixels["pixel_values"].shape == (1, 3, 24, 24)
    with torch.inference_mode():
        logits = model(**pixels).logits
        torch.testing.assert_close(logits, load_run(run.folder).model(**pixels).logits, atol=1e-5, rtol=1e-4)
    # without structune: the pretrained model interpolates by itself, as the card's lines tell it to
    base = AutoModelForImageClassification.from_pretrained(tiny_vit, num_labels=2)
    loaded = PeftModel.from_pretrained(base, str(run.adapter)).eval()
    with torch.inference_mode():
        again = loaded(**pixels, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(again, logits, atol=1e-5, rtol=1e-4)
    card = (run.adapter / "README.md").read_text()
    assert "interpolate_pos_encoding=True" in card and "'height': 24" in card


def test_a_size_that_patches_do_not_divide_is_refused(image_recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data.image_size = 18: .* reads no pictures of 18 × 18 pixels"):
        train(image_recipe(C3A, data={"image_size": 18}))
    assert not (tmp_path / "run").exists()


def test_a_damaged_image_is_named_before_anything_is_written(
    image_recipe: MakeRecipe, photos: Path, tmp_path: Path
) -> None:
    damaged = photos / "left" / "00.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    with pytest.raises(UserError, match="left/00.png: cannot be read as an image"):
        train(image_recipe(C3A))
    assert not (tmp_path / "run").exists()


def test_variation_that_shifts_all_out_of_sight_is_refused(image_recipe: MakeRecipe) -> None:
    with pytest.raises(UserError, match=r"task.augment.crop = 16: shifts pictures of 16 × 16"):
        train(image_recipe(C3A, task={"augment": {"crop": 16}}))


def test_layers_that_are_not_there_are_told_with_the_convolutions(image_recipe: MakeRecipe, tiny_convnet: Path) -> None:
    with pytest.raises(UserError, match="no layer 'conv'.*expand_conv.*project_conv"):
        train(image_recipe({"name": "lora", "target_modules": ["conv"]}, model={"name": str(tiny_convnet)}))


def test_the_lines_of_the_card_load_the_adapter(image_recipe: MakeRecipe, photos: Path, tmp_path: Path) -> None:
    run = train(image_recipe("lora", **FAST))
    card = (run.adapter / "README.md").read_text()
    assert "pipeline_tag: image-classification" in card
    lines = card.split("```python\n")[1].split("```")[0]
    assert "structune" not in lines
    lines = lines.replace("path/to/this/folder", str(run.adapter))
    for side, name in (("left", "00.png"), ("right", "01.png")):
        told: list[str] = []
        exec(lines.replace("some-image.jpg", str(photos / side / name)), {"print": told.append})
        assert told == [side]


def test_it_predicts_on_images_and_folders(image_recipe: MakeRecipe, photos: Path) -> None:
    run = train(image_recipe(C3A, **FAST))
    one = list(predict(run.folder, photos / "right" / "01.png"))
    assert [row["prediction"] for row in one] == ["right"]
    many = list(predict(run.folder, photos))
    assert len(many) == 40
    assert all(row["prediction"] == Path(row["image"]).parent.name for row in many)


def test_a_run_may_not_lie_among_the_images(image_recipe: MakeRecipe, photos: Path) -> None:
    recipe = image_recipe(C3A).model_copy(update={"output": str(photos / "left" / "run")})
    with pytest.raises(UserError, match="lies in data.train = .* whose files are the examples"):
        train(recipe)
    assert not (photos / "left" / "run").exists()


def section(**data: Any) -> tuple[ImageClassification, ImageData]:
    return ImageClassification(), ImageData.model_validate(data)


def test_tables_of_images_keep_the_names_of_their_classes(photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["left", "right"])})
    rows = {"img": [file.read_bytes() for file in files], "label": [file.parent.name for file in files]}
    table = datasets.Dataset.from_dict({**rows, "label": [features["label"].str2int(name) for name in rows["label"]]})
    table.cast(features).to_parquet(tmp_path / "photos.parquet")
    lines = [f"{file.relative_to(photos)},{file.parent.name}" for file in files]
    (photos / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))

    task, data = section(train=str(tmp_path / "photos.parquet"), image="img", split_seed=1)
    of_parquet = load_data(task, data)
    task, data = section(train=str(photos / "metadata.csv"), image="file_name", split_seed=1)
    of_paths = load_data(task, data)
    (photos / "metadata.csv").unlink()
    task, data = section(train=str(photos), split_seed=1)
    of_folder = load_data(task, data)
    assert of_parquet.targets == of_paths.targets == of_folder.targets == {"classes": ["left", "right"]}
    # equal files are equal examples wherever they come from, so the same are held out
    for found in (of_parquet, of_paths):
        digests = [[image.digest for image in part.inputs["image"]] for part in (found.train, found.evaluation)]
        assert sorted(digests[1]) == sorted(image.digest for image in of_folder.evaluation.inputs["image"])
        assert len(digests[0]) == 32


def test_equal_images_with_different_labels_are_doubted(photos: Path) -> None:
    (photos / "left" / "copy.png").write_bytes((photos / "right" / "01.png").read_bytes())
    task, data = section(train=str(photos))
    with pytest.warns(DataWarning, match=r"1 image occurs with different labels, in 2 rows .*'left', 'right'"):
        load_data(task, data)


def test_parts_of_examples_can_be_written_and_read_again(photos: Path, tmp_path: Path) -> None:
    task, data = section(train=str(photos))
    examples = load_data(task, data).evaluation
    raw = [image.source.read_bytes() for image in examples.inputs["image"]]
    arrays = [np.asarray(image.rgb()) for image in examples.inputs["image"]]
    for number, kind in enumerate((examples.inputs["image"], raw, arrays)):
        refs = [cell if isinstance(cell, ImageRef) else ImageRef(cell, "x") for cell in kind]
        file = task.write(replace(examples, inputs={"image": refs}), tmp_path / f"part{number}", data)
        again = task.examples(load_table(file, data), data)
        assert again.labels == examples.labels
        for one, other in zip(again.inputs["image"], examples.inputs["image"], strict=True):
            assert np.array_equal(np.asarray(one.rgb()), np.asarray(other.rgb()))


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("swinv2", ["query", "value"]), ("convnext", ["pwconv1", "pwconv2"]),
        ("efficientnet", ["expand_conv", "project_conv", "top_conv"]), ("hiera", ["qkv"]), ("resnet", None),
    ],
)  # fmt: skip
def test_layers_to_adapt_where_none_are_named(architecture: str, expected: list[str] | None) -> None:
    with torch.device("meta"):
        model = AutoModelForImageClassification.from_config(AutoConfig.for_model(architecture))
    assert ImageClassification().adapted(Base(model, None)) == expected


def test_the_vision_part_of_clip_is_no_head(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPForImageClassification, CLIPImageProcessorPil

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "image_size": 16, "patch_size": 8}
    CLIPForImageClassification(CLIPConfig(text_config=small, vision_config=vision)).save_pretrained(tmp_path)
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    base = ImageClassification().load(ModelSection(name=str(tmp_path)), {"classes": ["a", "b", "c"]}, 0)
    assert base.head == ["classifier"]
