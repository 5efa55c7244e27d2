"""A pipeline of diffusers on a disk or the hub: its parts are loaded when they are needed, and not kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from structune.errors import UserError
from structune.quiet import quiet
from structune.tasks.parts.diffusion.denoisers.choice import KNOWN
from structune.tasks.parts.diffusion.denoisers.denoiser import Denoiser
from structune.tasks.parts.diffusion.noise import Levels
from structune.tasks.parts.diffusion.with_text_encoders import WithTextEncoders
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.weights import refuse_other_weights

_DENOISERS = ("unet", "transformer")
_CHECKERS = ("safety_checker", "feature_extractor", "image_encoder")


class Pipeline:
    """What a recipe's `model` names.

    Args:
        section: which pipeline.
        text_length: see `Denoiser`.

    Raises:
        UserError: there is none, its denoiser or its scheduler is of a kind that is not known here, or the recipe wants
            it in few bits or in bf16.
    """

    def __init__(self, section: ModelSection, text_length: int | None = None) -> None:
        refuse_other_weights(
            section,
            "text-to-image",
            "train.precision: bf16, train.gradient_checkpointing: true and smaller batches with "
            "train.gradient_accumulation",
        )
        self.section = section
        self.local = Path(section.name).is_dir()
        self._where = {"local_files_only": self.local} | (
            {} if section.revision is None else {"revision": section.revision}
        )
        with self._loading():
            self.index: dict[str, Any] = dict(DiffusionPipeline.load_config(section.name, **self._where))
        parts = [name for name in _DENOISERS if isinstance(self.index.get(name), list)]
        if len(parts) != 1:
            raise UserError(f"{self.name}: its model_index.json names no denoiser (unet or transformer); take another")
        self.part = parts[0]
        """Which of its components is the denoiser."""
        class_name = str(self.index[self.part][1])
        if class_name not in KNOWN:
            raise UserError(
                f"{self.name}: its denoiser is of the class {class_name}, and known are {', '.join(KNOWN)}; take a "
                f"pipeline of Stable Diffusion 1, 2 or 3, SDXL or Flux"
            )
        with self._loading():
            config = dict(getattr(diffusers, class_name).load_config(section.name, subfolder=self.part, **self._where))
        self.denoiser: Denoiser = KNOWN[class_name](config, text_length)
        if doubt := self.denoiser.doubts():
            raise UserError(f"{self.name}: its {self.part} cannot be trained here: {doubt}; take another pipeline")
        self.levels = Levels.of(self._component("scheduler"), self.name)

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"model.name = {self.section.name!r}"

    @cached_property
    def vae_config(self) -> dict[str, Any]:
        """The configuration of what makes latents of images."""
        _, class_name = self.index.get("vae") or [None, None]
        if class_name != "AutoencoderKL":
            raise UserError(
                f"{self.name}: its VAE, which makes latents of images, is {class_name}, and AutoencoderKL is known; "
                f"take another pipeline"
            )
        with self._loading():
            return dict(diffusers.AutoencoderKL.load_config(self.section.name, subfolder="vae", **self._where))

    @property
    def vae_factor(self) -> int:
        """How many pixels of an image a latent is for, along a side."""
        return int(2 ** (len(self.vae_config["block_out_channels"]) - 1))

    def image_size(self, asked: int | None) -> int:
        """The side of the squares that are learned: what is asked for, else what the denoiser was trained on.

        Raises:
            UserError: what is asked for does not divide into its latents.
        """
        latents = self.denoiser.config.get("sample_size")
        usual = (latents if isinstance(latents, int) else 128) * self.vae_factor
        step = self.vae_factor * self.denoiser.multiple
        if asked is not None and asked % step:
            raise UserError(
                f"data.image_size = {asked}: {self.name} makes images whose side is a multiple of {step}; take "
                f"{max(1, round(asked / step)) * step}"
            )
        return asked or usual

    def load_model(self, text_encoders: bool = False) -> nn.Module:
        """What is trained, in fp32: its denoiser, with its text encoders if they are to be.

        Raises:
            UserError: its text encoders cannot be trained.
        """
        if not text_encoders:
            return self._load_denoiser()
        if not self.denoiser.adapted_texts:
            self.denoiser.encoded([], [])  # says so
        encoders = {name: _in_fp32(self._component(name)).eval() for name in self._named("text_encoder")}
        return WithTextEncoders(self.denoiser, self.part, {self.part: self._load_denoiser(), **encoders})

    def parts_of(self, model: nn.Module) -> dict[str, nn.Module]:
        """The components that what `load_model` gave is or holds."""
        return dict(model.named_children()) if isinstance(model, WithTextEncoders) else {self.part: model}

    def _load_denoiser(self) -> nn.Module:
        loaded = _in_fp32(self._component(self.part))

        def compute_again(**_: Any) -> None:
            loaded.enable_gradient_checkpointing()

        # as transformers' Trainer asks for it, by its older name and its newer one
        loaded.gradient_checkpointing_enable = loaded.activation_checkpointing_enable = compute_again
        return loaded

    def empty_model(self, text_encoders: bool = False) -> nn.Module:
        """What `load_model` gives, on the meta device: no weight is read."""
        with torch.device("meta"):
            made: nn.Module = getattr(diffusers, self.denoiser.class_name).from_config(self.denoiser.config)
            if not text_encoders:
                return made
            encoders = {}
            for name in self._named("text_encoder"):
                loader = self._loader(name)
                with self._loading():
                    config = loader.config_class.from_pretrained(self.section.name, subfolder=name, **self._where)
                encoders[name] = loader(config)
            return WithTextEncoders(self.denoiser, self.part, {self.part: made, **encoders})

    def ids(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """The tokens of captions, by the names of its tokenizers, cut and filled up as the pipeline does it."""
        return {
            name: (tokenizer := self._component(name))(
                list(captions),
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )["input_ids"]
            for name in self._named("tokenizer")
        }

    def load_vae(self) -> Any:
        """Its VAE, in fp32, in evaluation mode."""
        return _in_fp32(self._component("vae")).eval().requires_grad_(False)

    def cut(self, captions: Sequence[str]) -> tuple[int, int]:
        """How many captions are longer than the text encoders read, and how many tokens they read."""
        part, length = self.denoiser.reader
        if part not in self._named("tokenizer"):  # a pipeline may be without the largest
            part, length = "tokenizer", None
        tokenizer = self._component(part)
        length = length or tokenizer.model_max_length
        with silent():
            return sum(len(ids) > length for ids in tokenizer(list(captions))["input_ids"]), length

    def texts(self, model: nn.Module) -> Any:
        """The pipeline without its VAE: its text encoders are loaded, in fp32."""
        return self._assembled(model, True, vae=None, **dict.fromkeys(_CHECKERS))

    def for_images(self, model: nn.Module) -> Any:
        """The pipeline with what was trained, in fp32, to make images: without what looks at them afterwards."""
        return self._assembled(model, True, **dict.fromkeys(_CHECKERS))

    def whole(self, model: nn.Module) -> Any:
        """The pipeline with what was trained, and everything else as it is stored, to be saved."""
        return self._assembled(model, False)

    def identity(self, *parts: str) -> str:
        """What tells these components from others of the same names: their files, as they are now."""
        if self.local:
            files = sorted(path for part in parts for path in Path(self.section.name, part).glob("*") if path.is_file())
            stats = [(str(path), path.stat()) for path in files]
            return json.dumps([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
        return json.dumps([self.section.name, self._commit(), parts])

    def _commit(self) -> str | None:
        """The commit of the hub's files that are here."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.section.name, "model_index.json", revision=self.section.revision)
        return Path(found).parent.name if isinstance(found, str) else None

    def _named(self, kind: str) -> list[str]:
        """Its components of one kind, such as tokenizers."""
        named = [name for name, value in self.index.items() if name.startswith(kind) and isinstance(value, list)]
        return sorted(name for name in named if self.index[name][1] is not None)

    def _loader(self, part: str) -> Any:
        library, class_name = self.index[part]
        return getattr(transformers if library == "transformers" else diffusers, class_name)

    def _component(self, part: str) -> Any:
        with self._loading():
            return self._loader(part).from_pretrained(self.section.name, subfolder=part, **self._where)

    def _assembled(self, model: nn.Module, in_fp32: bool, **without: None) -> Any:
        library: Any = DiffusionPipeline
        parts = self.parts_of(model)
        known = {name: None for name in without if name in self.index}
        with self._loading():
            made = library.from_pretrained(self.section.name, **parts, **known, **self._where)
        made.set_progress_bar_config(disable=True)
        for name, part in made.components.items():
            if in_fp32 and isinstance(part, nn.Module) and name not in parts:  # these are, and may be adapted
                _in_fp32(part).eval()
        return made

    @contextmanager
    def _loading(self) -> Iterator[None]:
        """What cannot be loaded as the user's mistake."""
        try:
            with silent():
                yield
        except (OSError, ValueError, KeyError, AttributeError) as error:
            reason = str(error).strip().splitlines()
            fix = "Give a pipeline's id on the hub (network needed), or a local folder that its save_pretrained wrote."
            if self.local:
                fix = (
                    "The folder must hold model_index.json and a folder for each part, as save_pretrained writes them."
                )
            raise UserError(f"{self.name}: cannot be loaded ({reason[0] if reason else error}). {fix}") from None


@contextmanager
def silent() -> Iterator[None]:
    """Without a word of diffusers and transformers."""
    verbosity = diffusers.utils.logging.get_verbosity()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    try:
        with quiet():
            yield
    finally:
        diffusers.utils.logging.set_verbosity(verbosity)
        diffusers.utils.logging.enable_progress_bar()


def _in_fp32(part: Any) -> Any:
    return nn.Module.to(part, torch.float32)  # past diffusers' own, which warns of parts that are in it anyway
