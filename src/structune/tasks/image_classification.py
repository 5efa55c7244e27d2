"""Image classification: one of several classes for an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from structune.data.examples import Examples
from structune.data.table import Table
from structune.errors import UserError
from structune.tasks.parts.classes.classification import class_numbers, described
from structune.tasks.parts.classes.doubts import doubts_about_classes, doubts_about_shares
from structune.tasks.parts.classes.head import ClassHead
from structune.tasks.parts.classes.no_classes import refuse_split_label
from structune.tasks.parts.images.augmentation import Augment
from structune.tasks.parts.images.images import (
    ImageData,
    as_files,
    image_groups,
    image_lines,
    images_of,
    refuse_unlabelled,
)
from structune.tasks.parts.made_up import made_up_classes, made_up_images
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.task import Base, CardNames, Outputs, Targets, Task


class ImageClassification(ClassHead):
    """One of several classes for each image.

    The targets are the classes' names (`classes`) and, where it is set, `image_size`. `augment` varies what is trained
    on. A new head is one with an output for each class, unless the model has one of that size.
    """

    name: Literal["image-classification"] = "image-classification"
    augment: Augment = Augment()

    data_section: ClassVar[type[ImageData]] = ImageData
    hub_name: ClassVar[str] = "image-classification"
    auto_class: ClassVar[str] = "AutoModelForImageClassification"
    reads_files: ClassVar[bool] = True
    starter_model: ClassVar[str] = "google/vit-base-patch16-224-in21k"
    starter_data: ClassVar[str] = "your-images"

    def examples(self, table: Table, data: ImageData) -> Examples:
        refuse_unlabelled(table, data)
        refuse_split_label(table, data.label)
        seen = self.inputs(table, data)
        labels = [value.strip() for value in table.column(data.label, "label")]
        return seen.labelled(labels, image_groups(table, data, seen.inputs["image"]), labels)

    def inputs(self, table: Table, data: ImageData) -> Examples:
        return Examples.unlabelled({"image": images_of(table, data)})

    def from_lines(self, lines: Sequence[str], data: ImageData) -> Table:
        return image_lines(lines, data)

    def targets(self, examples: Examples, data: ImageData, source: str) -> Targets:
        size = {} if data.image_size is None else {"image_size": data.image_size}
        return {**super().targets(examples, data, source), **size}

    def doubts(self, train: Examples, held_out: Examples, data: ImageData) -> Iterator[str]:
        return doubts_about_classes(train, held_out, data.label, "image")

    def doubts_about_file(self, examples: Examples, data: ImageData) -> Iterator[str]:
        return doubts_about_shares(examples)

    def processor(self, section: ModelSection) -> Any:
        from structune.tasks.parts.images.pixels import load_image_processor

        return load_image_processor(section)

    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        from structune.tasks.parts.images.model import load_image_model

        options = {} if self.trains_head() else self.head_options(targets)
        base = load_image_model(section, targets, seed, targets.get("image_size"), **options)
        return self.with_head(base, section.name, targets)

    def adapted(self, base: Base) -> list[str] | None:
        from structune.tasks.parts.images.model import usual_layers

        return usual_layers(base.model)

    def encode(self, examples: Examples, base: Base, targets: Targets, data: ImageData) -> Sequence[Mapping[str, Any]]:
        from structune.tasks.parts.images.batches import EncodedImages
        from structune.tasks.parts.images.cache import pictures_of
        from structune.tasks.parts.images.pixels import Pixels

        pictures = pictures_of(examples.inputs["image"], Pixels(base.processor))
        if len(pictures) and self.augment.crop >= min(pictures[0].shape[:2]):
            height, width = pictures[0].shape[:2]
            raise UserError(
                f"task.augment.crop = {self.augment.crop}: shifts pictures of {width} × {height} pixels out of sight; "
                f"give an eighth of that or less"
            )
        return EncodedImages(pictures, class_numbers(examples, targets))

    def collator(self, base: Base, training: bool) -> Callable[[list[Mapping[str, Any]]], Any]:
        from structune.tasks.parts.images.batches import ImageBatches
        from structune.tasks.parts.images.pixels import Pixels

        pixels = Pixels(base.processor)
        return self.to_learn(ImageBatches(pixels, self.augment), base) if training else ImageBatches(pixels, None)

    def step(self, model: Any, batch: dict[str, Any]) -> tuple[Any, Outputs]:
        from structune.tasks.parts.images.model import hold_statistics

        hold_statistics(model)
        return super().step(model, batch)

    def details(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, Any]:
        from structune.tasks.parts.classes.confusion import among_first

        found = super().details(outputs, labels, targets)
        if len(targets["classes"]) <= 10:
            return found
        return {**found, "top_5_accuracy": among_first(outputs, labels, 5)}

    def write(self, examples: Examples, path: Path, data: ImageData) -> Path:
        paths = as_files(examples.inputs["image"], path.with_name(f"{path.name}-images"))
        return super().write(replace(examples, inputs={"image": paths}), path, data)

    def made_up(self, count: int, data: ImageData) -> Examples:
        seen, labels = Examples.unlabelled({"image": made_up_images(count)}), made_up_classes(count)
        return seen.labelled(labels, seen.groups, labels)

    def save_small_model(self, section: ModelSection, folder: Path, widest: int) -> str:
        from structune.tasks.parts.small_model import save_small_image_model

        return save_small_image_model(section, folder, self.auto_class, "vit", widest)

    def in_small(self, data: dict[str, Any]) -> tuple[Task, dict[str, Any]]:
        """Pictures of the size that the small model's image processor says."""
        return self, {key: value for key, value in data.items() if key != "image_size"}

    def describe(self, targets: Targets) -> str:
        return described("image classification", targets)

    def loading(self, names: CardNames, targets: Targets, data: ImageData, base: Base) -> str:
        from structune.tasks.parts.images.model import interpolates
        from structune.tasks.parts.images.pixels import sizes_for

        size = targets.get("image_size")
        options = {} if size is None else sizes_for(base.processor.to_dict(), size)
        sizes = "".join(f", {key}={value!r}" for key, value in options.items())
        resized = ", interpolate_pos_encoding=True" if size is not None and interpolates(base.model) else ""
        head = self.loading_head(base)
        new = """num_labels=len(labels), id2label=dict(enumerate(labels)),
    label2id={label: number for number, label in enumerate(labels)}, ignore_mismatched_sizes=True,
"""
        arguments = "\n" if head else f", {new}"
        return f"""import torch
from peft import PeftModel
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModelForImageClassification

labels = {targets["classes"]!r}
processor = AutoImageProcessor.from_pretrained({names.base!r}{names.options}, backend="pil"{sizes})
base = AutoModelForImageClassification.from_pretrained(
    {names.base!r}{names.options}{arguments})
{head}model = PeftModel.from_pretrained(base, "path/to/this/folder").eval()

image = ImageOps.exif_transpose(Image.open("some-image.jpg")).convert("RGB")
inputs = processor(images=image, return_tensors="pt")
with torch.inference_mode():
    print(labels[int(model(**inputs{resized}).logits.argmax(-1))])"""
