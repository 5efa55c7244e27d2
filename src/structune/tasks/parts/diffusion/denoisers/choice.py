"""Which architecture a pipeline's denoiser is of."""

from __future__ import annotations

from structune.tasks.parts.diffusion.denoisers.denoiser import Denoiser
from structune.tasks.parts.diffusion.denoisers.flux import Flux
from structune.tasks.parts.diffusion.denoisers.stable_diffusion_3 import StableDiffusion3
from structune.tasks.parts.diffusion.denoisers.unet import UNet

KNOWN: dict[str, type[Denoiser]] = {kind.class_name: kind for kind in (UNet, StableDiffusion3, Flux)}
