"""Noise levels of a pipeline, what a denoiser is to say of them, and how much each counts.

A noisy picture is x_t = a_t x + b_t ε, for ε of the normal distribution. What the denoiser predicts is, by the
pipeline's own scheduler:

- epsilon: ε (Ho et al. 2020, eq. 14)
- v_prediction: a_t ε − b_t x (Salimans and Ho 2022, section 4)
- sample: x
- flow: ε − x, with a_t = 1 − b_t (Lipman et al. 2023; Esser et al. 2024, eq. 13)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from structune.errors import UserError

Kind = Literal["epsilon", "v_prediction", "sample", "flow"]


@dataclass(frozen=True)
class Levels:
    """From the least noise to the most, T levels.

    Attributes:
        kind: what is predicted.
        signal: a_t, (T,).
        noise: b_t, (T,).
        times: what the denoiser is told of each, (T,).
    """

    kind: Kind
    signal: Tensor
    noise: Tensor
    times: Tensor

    @classmethod
    def of(cls, scheduler: Any, where: str) -> Levels:
        """Those that a scheduler of diffusers says, as it is when it is made.

        Raises:
            UserError: it is of a kind whose training is not known here.
        """
        name = type(scheduler).__name__
        if name.startswith("FlowMatch"):
            sigmas = scheduler.sigmas[: scheduler.config.num_train_timesteps].float().flip(0)
            return cls("flow", 1 - sigmas, sigmas, sigmas * scheduler.config.num_train_timesteps)
        kind, alphas = scheduler.config.get("prediction_type"), getattr(scheduler, "alphas_cumprod", None)
        if alphas is None or kind not in ("epsilon", "v_prediction", "sample"):
            said = f"{name} predicts {kind!r}" if alphas is not None else name
            raise UserError(
                f"{where}: its scheduler is of a kind that cannot be trained with here ({said}); known are those with "
                f"prediction_type epsilon, v_prediction or sample, and flow matching (FlowMatchEulerDiscreteScheduler)"
            )
        return cls(
            kind, alphas.double().sqrt().float(), (1 - alphas.double()).sqrt().float(), torch.arange(len(alphas))
        )

    def __len__(self) -> int:
        return len(self.times)

    def level(self, share: Tensor) -> Tensor:
        """Which level is that far from the least noise to the most: whole numbers, of shares from 0 to 1."""
        return (share * len(self)).long().clamp(0, len(self) - 1)

    def noisy(self, pictures: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """x_t of x and ε, (N, …), at a level for each, (N,)."""
        return _along(self.signal[levels], pictures) * pictures + _along(self.noise[levels], noise) * noise

    def target(self, pictures: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """What the denoiser should say of x_t, (N, …)."""
        match self.kind:
            case "epsilon":
                return noise
            case "v_prediction":
                return _along(self.signal[levels], noise) * noise - _along(self.noise[levels], pictures) * pictures
            case "sample":
                return pictures
            case "flow":
                return noise - pictures

    def min_snr_weight(self, levels: Tensor, gamma: float) -> Tensor:
        """How much a level's error counts, with SNR = a²/b² and m = min(SNR, γ) (Hang et al. 2023, section 3.4), (N,).

        m / SNR for epsilon, m / (SNR + 1) for v_prediction, m for sample.

        Raises:
            UserError: see `check_min_snr`.
        """
        self.check_min_snr(gamma)
        ratio = (self.signal[levels] / self.noise[levels]).square()  # infinite without noise
        if self.kind == "epsilon":
            return (gamma / ratio).clamp(max=1.0)
        least = ratio.clamp(max=gamma)
        return least / (ratio + 1) if self.kind == "v_prediction" else least

    def check_min_snr(self, gamma: float) -> None:
        """Raises `UserError` where the pipeline's are flows, of which the paper does not speak."""
        if self.kind == "flow":
            raise UserError(
                f"task.min_snr = {gamma:g}: is for denoisers that predict noise, pictures or v, and this pipeline's "
                f"scheduler is one of flow matching; leave it out"
            )


def _along(values: Tensor, like: Tensor) -> Tensor:
    """A value for each example, to be multiplied with all that belongs to it."""
    return values.view(-1, *[1] * (like.ndim - 1))
