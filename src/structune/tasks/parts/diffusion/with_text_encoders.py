"""A denoiser and the text encoders that are trained with it, as one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from structune.tasks.parts.diffusion.denoisers.denoiser import Denoiser


class WithTextEncoders(nn.Module):
    """Its modules have the names of the pipeline's components, so an adapter's numbers have them as well.

    Args:
        denoiser: what the denoiser is told.
        part: the component that is the denoiser.
        components: by name, the denoiser and its text encoders.
    """

    def __init__(self, denoiser: Denoiser, part: str, components: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._denoiser = denoiser
        self._part = part
        self._encoders = [name for name in components if name != part]
        for name, component in components.items():
            self.add_module(name, component)

    def forward(
        self, noisy: Tensor, times: Tensor, ids: Mapping[str, Tensor], shapes: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """What the denoiser says of noisy pictures with captions of these tokens, by the tokenizers' names."""
        encoders = [self.get_submodule(name) for name in self._encoders]
        texts = self._denoiser.encoded(encoders, list(ids.values()))
        inputs = self._denoiser.inputs(noisy, times, texts, shapes)
        said: tuple[Tensor] = self.get_submodule(self._part)(**inputs, return_dict=False)
        return said

    def gradient_checkpointing_enable(self, **_: Any) -> None:
        """Compute activations again, in all of them."""
        for component in self.children():
            component.gradient_checkpointing_enable()  # type: ignore[operator]

    activation_checkpointing_enable = gradient_checkpointing_enable
