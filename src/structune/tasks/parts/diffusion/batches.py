"""Encoded images with captions, and batches of them with noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from structune.data.images import ImageRef
from structune.tasks.parts.diffusion.draws import number, share_and_noise
from structune.tasks.parts.diffusion.latents import latents_of, texts_of
from structune.tasks.parts.diffusion.pipeline import Pipeline


class Encoded(Sequence[Mapping[str, Any]]):
    """At each place the fields of `latents_of`, `texts` with those of `texts_of`, a `number` and a `key`.

    Equal images with equal captions have equal keys.

    Args:
        captions: of each example.
        images: of each example.
        pipeline: what encodes them.
        model: what it loaded to be trained.
        size: the side of the squares.
        classes: images of the class to be looked at beside, if any.
    """

    def __init__(
        self,
        captions: Sequence[str],
        images: Sequence[ImageRef],
        pipeline: Pipeline,
        model: nn.Module,
        size: int,
        classes: Classes | None = None,
    ) -> None:
        self.classes = classes
        distinct = list(dict.fromkeys(captions))
        self.texts = texts_of(distinct, pipeline, model)
        self.latents = latents_of(images, pipeline, size)
        places = {caption: place for place, caption in enumerate(distinct)}
        self.place = [places[caption] for caption in captions]
        self.keys = [f"{image.digest}/{caption}" for image, caption in zip(images, captions, strict=True)]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, row: Any) -> Any:
        row = range(len(self))[row]
        return {
            "latents": self.latents["latents"][row],
            "shape": self.latents["shape"][row],
            "texts": self.texts[self.place[row]],
            "number": row,
            "key": self.keys[row],
            "labels": 0.0,
            "classes": self.classes,
        }


class Classes:
    """Images of the subject's class, all with one caption, which training looks at beside its examples.

    They are encoded when the first is asked for.

    Args:
        caption: of all.
        images: one or more.
        pipeline: see `Encoded`, as the others.
        model: what it loaded to be trained.
        size: the side of the squares.
    """

    def __init__(
        self, caption: str, images: Sequence[ImageRef], pipeline: Pipeline, model: nn.Module, size: int
    ) -> None:
        self._encode: Callable[[], Encoded] = lambda: Encoded([caption] * len(images), images, pipeline, model, size)

    @cached_property
    def encoded(self) -> Encoded:
        return self._encode()

    def draw(self, *names: object) -> Mapping[str, Any]:
        """One of them, for these names."""
        found: Mapping[str, Any] = self.encoded[number("class image", *names) % len(self.encoded)]
        return found


class Unseen(Sequence[Mapping[str, Any]]):
    """Captions without images."""

    def __init__(self, captions: Sequence[str]) -> None:
        self.captions = captions

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, row: Any) -> Any:
        return {"caption": self.captions[row]}


class NoisyBatches:
    """Batches to learn from: each example with one draw of noise and level, anew in each epoch.

    A batch is `draws`, one or more of what the denoiser is told (`inputs`), what it should say (`target`), and how much
    each row's error counts (`shares`). The first rows of a draw are the examples. `labels`, (N, draws), are how far
    their levels are from the least noise to the most.

    Args:
        pipeline: whose denoiser learns.
        normal: whether levels are drawn from the logit-normal distribution; else from the uniform one.
        gamma: of min-SNR weights; None: every level's error counts the same.
        prior_weight: how much the error on images of the class counts, of which there is one for each example.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        normal: bool = False,
        gamma: float | None = None,
        prior_weight: float = 1.0,
    ) -> None:
        self.pipeline = pipeline
        self.normal = normal
        self.gamma = gamma
        self.prior_weight = prior_weight
        self._drawn_from = (0, 0)

    def begin_epoch(self, seed: int, epoch: int) -> None:
        """What noise is drawn from, until it is called again."""
        self._drawn_from = (seed, epoch)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        named: list[tuple[object, ...]] = [("train", *self._drawn_from, example["number"]) for example in examples]
        seen, names, counts = list(examples), list(named), [1.0] * len(examples)
        if (classes := examples[0]["classes"]) is not None:
            seen += [classes.draw(*name) for name in named]
            names += [("class", *name) for name in named]
            counts += [self.prior_weight] * len(examples)
        shape = examples[0]["latents"].shape
        drawn = [share_and_noise(shape, self.normal, *name) for name in names]
        shares = torch.stack([share for share, _ in drawn])
        levels = self.pipeline.levels.level(shares)
        weights = torch.tensor(counts)
        if self.gamma is not None:
            weights = weights * self.pipeline.levels.min_snr_weight(levels, self.gamma)
        noise = torch.stack([noise for _, noise in drawn])
        return {
            "labels": shares[: len(examples), None],
            "draws": [draw_of(self.pipeline, seen, noise, levels, weights)],
        }


class FixedBatches:
    """Batches to evaluate on: each example with the same draws of noise and level, whoever evaluates whatever.

    The k-th of K levels is of the k-th K-th of all.

    Args:
        pipeline: whose denoiser is evaluated.
        draws: K.
    """

    def __init__(self, pipeline: Pipeline, draws: int) -> None:
        self.pipeline = pipeline
        self.draws = draws

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        shape = examples[0]["latents"].shape
        all_shares, draws = [], []
        for draw in range(self.draws):
            drawn = [share_and_noise(shape, False, "evaluate", example["key"], draw) for example in examples]
            shares = (draw + torch.stack([share for share, _ in drawn])) / self.draws
            noise = torch.stack([noise for _, noise in drawn])
            weights = torch.full((len(examples),), 1 / self.draws)
            levels = self.pipeline.levels.level(shares)
            draws.append(draw_of(self.pipeline, examples, noise, levels, weights))
            all_shares.append(shares)
        return {"labels": torch.stack(all_shares, 1), "draws": draws}


def draw_of(
    pipeline: Pipeline, examples: Sequence[Mapping[str, Any]], noise: Tensor, levels: Tensor, shares: Tensor
) -> dict[str, Any]:
    """What the denoiser is told of examples under noise, and what it should say."""
    pictures = _stacked([example["latents"] for example in examples])
    texts = [example["texts"] for example in examples]
    told = {name: _stacked([text[name] for text in texts]) for name in texts[0].dtype.names}
    shapes = _stacked([example["shape"] for example in examples])
    of = pipeline.levels
    noisy, times = of.noisy(pictures, noise, levels), of.times[levels]
    as_tokens = all(tokens.dtype == torch.int64 for tokens in told.values())  # text encoders are trained
    inputs = {"noisy": noisy, "times": times, "ids": told, "shapes": shapes}
    return {
        "inputs": inputs if as_tokens else pipeline.denoiser.inputs(noisy, times, told, shapes),
        "target": pipeline.denoiser.packed(of.target(pictures, noise, levels)),
        "shares": shares,
    }


def errors_of(model: nn.Module, draw: Mapping[str, Any]) -> Tensor:
    """The mean square error of what the denoiser says, for each row."""
    said = model(**draw["inputs"], return_dict=False)[0]
    return (said.float() - draw["target"].float()).square().flatten(1).mean(1)


def _stacked(rows: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(rows))
