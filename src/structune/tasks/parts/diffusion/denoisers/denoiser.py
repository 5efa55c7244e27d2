"""What a denoiser is told beside the noisy picture, and in which form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from structune.errors import UserError

Texts = Mapping[str, Tensor]
"""What text encoders say of captions, by name: the captions are the first axis."""


class Denoiser(ABC):
    """One architecture.

    Args:
        config: the denoiser's configuration.
        text_length: how many tokens of a caption the pipeline's T5 reads; None: as many as the pipeline says.
    """

    class_name: ClassVar[str]
    """The class of diffusers."""

    adapted: ClassVar[tuple[str, ...]] = ("to_q", "to_v")
    """The attention's query and value."""

    multiple: ClassVar[int] = 1
    """Of which the side of a picture has to be a multiple."""

    def __init__(self, config: Any, text_length: int | None = None) -> None:
        self.config = config
        self.options: dict[str, Any] = {} if text_length is None else {"max_sequence_length": text_length}

    @property
    def reader(self) -> tuple[str, int | None]:
        """The tokenizer of the encoder that reads most of a caption, and how many tokens; None: as many as it says."""
        return "tokenizer", None

    def doubts(self) -> str:
        """What of its configuration keeps it from being trained here; nothing where it can be."""
        return ""

    @abstractmethod
    def texts(self, pipeline: Any, captions: Sequence[str], device: str) -> dict[str, Tensor]:
        """What the pipeline's text encoders say of captions, as the pipeline itself makes it."""

    def encoded(self, encoders: Sequence[nn.Module], ids: Sequence[Tensor]) -> dict[str, Tensor]:
        """The same as `texts`, of tokens for each of its text encoders, to be trained through.

        Raises:
            UserError: they cannot be trained.
        """
        raise UserError(
            "task.text_encoder: the text encoders of this pipeline cannot be trained; those of Stable Diffusion 1 and "
            "2 and of SDXL can. Leave it out."
        )

    @property
    def adapted_texts(self) -> tuple[str, ...]:
        """The query and value of its text encoders' attention; none where they cannot be trained."""
        return ()

    @abstractmethod
    def inputs(self, noisy: Tensor, times: Tensor, texts: Texts, shapes: Tensor) -> dict[str, Any]:
        """The arguments of the denoiser.

        Args:
            noisy: pictures, (N, channels, height, width).
            times: of their noise levels, (N,).
            texts: of their captions, (N, …) each.
            shapes: what `squares.shape_of` gave of their images, (N, 6).
        """

    def packed(self, pictures: Tensor) -> Tensor:
        """Pictures in the form in which the denoiser predicts them."""
        return pictures
