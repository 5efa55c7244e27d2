"""Text-to-image: a picture for a caption, by denoising."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from structune.data.examples import Examples
from structune.data.table import Table
from structune.data.written import write_rows
from structune.doubt import say
from structune.errors import UserError
from structune.paths import FilePath
from structune.tasks.parts.diffusion.data import (
    CaptionedImages,
    captions_of,
    class_images,
    digest_of,
    images_of,
    prompt_lines,
    seeds_of,
)
from structune.tasks.parts.diffusion.settings import Sampling
from structune.tasks.parts.images.images import as_files
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.task import Base, CardNames, Metric, Outputs, Targets, Task

FIGURE = "samples.png"


class TextToImage(Task):
    """A picture for a caption, by the denoiser of a diffusers pipeline: Stable Diffusion 1, 2 or 3, SDXL, Flux.

    What is predicted (noise, v, flow) is what the pipeline's scheduler says. `min_snr` weighs noise levels by that γ,
    often 5; `levels` is how they are drawn: uniform, or logit-normal, the default of flows. Held-out pictures are
    denoised from `evaluation_draws` levels each, the same in every evaluation. `prior_weight` is how much images of the
    class count beside the subject's. `clip` is a CLIP model, a folder or on the hub, that says how well samples go with
    their prompts, before training and after it. `text_encoder` trains the text encoders as well, where they are CLIPs
    (Stable Diffusion 1 and 2, SDXL). `text_length` is how many tokens of a caption T5 reads, where there is one.
    """

    name: Literal["text-to-image"] = "text-to-image"
    min_snr: Annotated[float, Field(gt=0)] | None = None
    levels: Literal["uniform", "logit-normal"] | None = None
    evaluation_draws: Annotated[int, Field(ge=1, le=1000)] = 8
    prior_weight: Annotated[float, Field(ge=0)] = 1.0
    text_encoder: bool = False
    text_length: Annotated[int, Field(ge=1, le=4096)] | None = None
    clip: FilePath | None = None
    samples: Sampling = Sampling()

    data_section: ClassVar[type[CaptionedImages]] = CaptionedImages
    hub_name: ClassVar[str] = "text-to-image"
    auto_class: ClassVar[str] = "DiffusionPipeline"
    has_config: ClassVar[bool] = False
    makes_images: ClassVar[bool] = True
    compared_examples: ClassVar[int] = 4
    shown_figures: ClassVar[tuple[str, ...]] = (FIGURE,)
    shown_metrics: ClassVar[tuple[Metric, ...]] = (Metric("clip_similarity", "CLIP similarity", range=(-1, 1)),)
    starter_model: ClassVar[str] = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    starter_data: ClassVar[str] = "your-images"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("denoising_loss", "denoising loss", greater_is_better=False, range=(0, None), digits=4),
    )

    def with_files(self, change: Callable[[str], str]) -> TextToImage:
        """With `clip` changed, where it is a folder."""
        if self.clip is None or not Path(self.clip).is_dir():
            return self
        return self.model_copy(update={"clip": change(self.clip)})

    def check_training(self, train: Any, examples: int, processes: int) -> None:
        """Raises `UserError` where `clip` is none; it is loaded once, before there is anything to lose."""
        if self.clip is not None:
            from structune.tasks.parts.diffusion.clip import load_clip

            load_clip(self.clip)

    def trains_head(self) -> bool:
        return False

    def examples(self, table: Table, data: CaptionedImages) -> Examples:
        captions = captions_of(table, data)
        images = images_of(table, data)
        groups = [image.digest for image in images] if data.group is None else table.column(data.group, "group")
        # the image is among the inputs as well: by these it is known which rows were trained on, and captions repeat
        return Examples({"caption": captions, "image": images}, images, groups, ["all"] * len(images))

    def inputs(self, table: Table, data: CaptionedImages) -> Examples:
        captions = table.column(data.caption, "caption")
        return Examples.unlabelled({"caption": captions, "seed": seeds_of(table, data)})

    def from_lines(self, lines: Sequence[str], data: CaptionedImages) -> Table:
        return prompt_lines(lines, data)

    def targets(self, examples: Examples, data: CaptionedImages, source: str) -> Targets:
        """The prompts of samples, the size of pictures and the class images, where these are given."""
        distinct = list(dict.fromkeys(examples.inputs["caption"]))[: self.samples.count]
        size = {} if data.image_size is None else {"image_size": data.image_size}
        of_class = class_images(data)
        known = f"{len(of_class)} images, hash {digest_of(of_class)}"
        return {
            "prompts": self.samples.prompts or distinct,
            **size,
            **({"class_images": known} if of_class else {}),
        }

    def are_targets(self, content: Any) -> bool:
        return isinstance(content, dict) and isinstance(content.get("prompts"), list)

    def about(self, targets: Targets) -> str:
        return targets.get("class_images", "").partition(",")[0].replace("images", "class images")

    def doubts(self, train: Examples, held_out: Examples, data: CaptionedImages) -> Iterator[str]:
        if len(held_out) < 4:
            yield (
                f"{len(held_out)} of {len(train) + len(held_out)} images are held out: the denoising loss on so few "
                f"says little about others; look at the samples, or give data.evaluation"
            )

    def processor(self, section: ModelSection) -> Any:
        logging.getLogger("diffusers.quantizers").setLevel(logging.ERROR)  # it tells what of torchao it does without
        try:
            import diffusers  # noqa: F401
        except ModuleNotFoundError:
            raise UserError(
                "task: text-to-image: diffusers is not installed. Run `pip install 'structune[diffusion]'`."
            ) from None
        from structune.tasks.parts.diffusion.pipeline import Pipeline

        return Pipeline(section, self.text_length)

    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        from transformers import set_seed

        pipeline = self.processor(section)
        if self.min_snr is not None:
            pipeline.levels.check_min_snr(self.min_snr)
        pipeline.image_size(targets.get("image_size"))
        model = pipeline.load_model(self.text_encoder)
        set_seed(seed)  # of whatever a method begins with
        return Base(model, pipeline)

    def skeleton(self, section: ModelSection) -> Any:
        return self.processor(section).empty_model(self.text_encoder)

    def adapted(self, base: Base) -> list[str]:
        denoiser = base.processor.denoiser
        return [*denoiser.adapted, *(denoiser.adapted_texts if self.text_encoder else ())]

    def encode(
        self, examples: Examples, base: Base, targets: Targets, data: CaptionedImages
    ) -> Sequence[Mapping[str, Any]]:
        from structune.tasks.parts.diffusion.batches import Classes, Encoded, Unseen

        captions = examples.inputs["caption"]
        if examples.labels is None:
            return Unseen(captions)
        pipeline, size = base.processor, base.processor.image_size(data.image_size)
        of_class = class_images(data)
        classes = Classes(str(data.class_prompt), of_class, pipeline, base.model, size) if of_class else None
        return Encoded(captions, examples.labels, pipeline, base.model, size, classes)

    def doubts_about_encoding(self, parts: Sequence[Examples], base: Base, data: CaptionedImages) -> Iterator[str]:
        captions = list(dict.fromkeys(caption for part in parts for caption in part.inputs["caption"]))
        cut, length = base.processor.cut(captions)
        if cut:
            yield (
                f"{cut:,} of {len(captions):,} captions are longer than the {length} tokens that the text encoders "
                f"read: their ends are not seen"
            )

    def collator(self, base: Base, training: bool) -> Callable[[list[Mapping[str, Any]]], Any]:
        from structune.tasks.parts.diffusion.batches import FixedBatches, NoisyBatches

        pipeline = base.processor
        if not training:
            return FixedBatches(pipeline, self.evaluation_draws)
        normal = self.levels == "logit-normal" or (self.levels is None and pipeline.levels.kind == "flow")
        return NoisyBatches(pipeline, normal, self.min_snr, self.prior_weight)

    def weight(self, batch: Mapping[str, Any]) -> float:
        return len(batch["labels"])

    def step(self, model: Any, batch: dict[str, Any]) -> tuple[Any, Outputs]:
        """The loss, and each example's mean square error at each of its draws, (N, draws)."""
        import torch

        from structune.tasks.parts.diffusion.batches import errors_of

        count = len(batch["labels"])
        total, errors = 0.0, []
        for draw in batch["draws"]:
            found = errors_of(model, draw)
            total = total + (found * draw["shares"]).sum() / count
            errors.append(found[:count])
        return total, torch.stack(errors, 1)

    def shown_at(self, steps: int) -> Sequence[int]:
        last = self.samples.times - 1
        return [round(steps * number / last) for number in range(last + 1)] if last > 0 else [steps] * (last + 1)

    def show(self, model: Any, base: Base, targets: Targets, step: int, folder: Path) -> Mapping[str, float]:
        from structune.tasks.parts.diffusion.grid import add_column

        samples = self._samples(base, targets)
        add_column(folder / FIGURE, targets["prompts"], samples, step)
        if self.clip is None:
            return {}
        from structune.tasks.parts.diffusion.clip import load_clip, similarity

        return {"clip_similarity": similarity(samples, targets["prompts"], load_clip(self.clip))}

    def samples_of(
        self, model: Any, base: Base, examples: Examples, targets: Targets, data: CaptionedImages
    ) -> dict[str, Any]:
        """How well the samples go with their prompts, without the adapter and with it, where there is a CLIP."""
        if self.clip is None:
            return {}
        from structune.tasks.parts.diffusion.clip import load_clip, similarity

        clip, prompts = load_clip(self.clip), targets["prompts"]
        rows = {}
        if hasattr(model, "disable_adapter"):
            with model.disable_adapter():
                rows["before"] = similarity(self._samples(base, targets), prompts, clip)
        rows["after"] = similarity(self._samples(base, targets), prompts, clip)
        return {"CLIP similarity": {row: {"mean cosine": mean, "prompts": len(prompts)} for row, mean in rows.items()}}

    def _samples(self, base: Base, targets: Targets) -> list[Any]:
        """An image for each prompt of the targets, with seeds that are always the same."""
        from structune.tasks.parts.diffusion.images import images_of

        seeds = [self.samples.seed + number for number in range(len(targets["prompts"]))]
        size = base.processor.image_size(targets.get("image_size"))
        return list(images_of(targets["prompts"], seeds, base.model, base.processor, self.samples, size))

    def respond(
        self, model: Any, base: Base, examples: Examples, targets: Targets, data: CaptionedImages
    ) -> Iterator[dict[str, Any]]:
        """An image for each prompt, with the row's seed, else with one that follows from the prompt."""
        from structune.tasks.parts.diffusion.draws import number
        from structune.tasks.parts.diffusion.images import images_of

        prompts = examples.inputs["caption"]
        given = examples.inputs.get("seed", [None] * len(prompts))
        named = zip(prompts, given, strict=True)
        seeds = [number(self.samples.seed, prompt) if seed is None else seed for prompt, seed in named]
        if again := len(seeds) - len(set(zip(prompts, seeds, strict=True))):
            say(
                [
                    f"{again} of {len(seeds)} prompts were there before, and get the same image again; give each row a "
                    f"seed of its own, in the column {data.seed!r}"
                ]
            )
        say(self.doubts_about_encoding([examples], base, data))
        size = base.processor.image_size(targets.get("image_size"))
        for image in images_of(prompts, seeds, base.model, base.processor, self.samples, size):
            yield {"image": image}

    def scores(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, float]:
        return {"denoising_loss": float(outputs.mean(dtype="float64"))}

    def details(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, Any]:
        rows = {}
        for quarter, words in enumerate(("least noise", "less", "more", "most noise")):
            inside = outputs[(labels * 4).astype(int).clip(0, 3) == quarter]
            if len(inside):
                rows[words] = {"denoising loss": round(float(inside.mean()), 6), "draws": len(inside)}
        return {"loss by noise": rows}

    def answers(self, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        return [{"denoising_loss": float(errors.mean())} for errors in outputs]

    def save(self, model: Any, base: Base, targets: Targets, folder: Path) -> None:
        base.processor.whole(model).save_pretrained(str(folder))

    def write(self, examples: Examples, path: Path, data: CaptionedImages) -> Path:
        files = as_files(examples.labels or [], path.with_name(f"{path.name}-images"))
        if data.prompt is not None:  # is the caption of all, and said once
            return write_rows([data.image], [[file] for file in files], path)
        captions = examples.inputs["caption"]
        return write_rows([data.caption, data.image], list(zip(captions, files, strict=True)), path)

    def describe(self, targets: Targets) -> str:
        return f"text-to-image, as in {targets['prompts'][0]!r}"

    def loading(self, names: CardNames, targets: Targets, data: CaptionedImages, base: Base) -> str:
        parts = list(base.processor.parts_of(base.model))
        adapted = f"pipeline.{parts[0]}"
        if self.text_encoder:
            adapted = f"ModuleDict({{name: getattr(pipeline, name) for name in {parts!r}}})"
        torch = "\nfrom torch.nn import ModuleDict" if self.text_encoder else ""
        return f"""from diffusers import DiffusionPipeline
from peft import PeftModel{torch}

pipeline = DiffusionPipeline.from_pretrained({names.base!r}{names.options})
PeftModel.from_pretrained({adapted}, "path/to/this/folder")  # adapts it where it is

pipeline({targets["prompts"][0]!r}).images[0].save("image.png")"""
