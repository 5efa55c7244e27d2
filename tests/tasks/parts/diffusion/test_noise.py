"""Noise levels, targets and weights against loops over single numbers in double precision, and against diffusers."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from structune.errors import UserError
from structune.tasks.parts.diffusion.noise import Levels

T = 50
BETAS = {"beta_start": 0.00085, "beta_end": 0.24, "beta_schedule": "scaled_linear", "num_train_timesteps": T}
WHERE = "model.name = 'some/pipeline'"


def signals() -> list[tuple[float, float]]:
    """(a_t, b_t) of Stable Diffusion's schedule: β is linear in its square root, ᾱ_t = Π (1 − β_s)."""
    kept, found = 1.0, []
    for t in range(T):
        low, high = math.sqrt(BETAS["beta_start"]), math.sqrt(BETAS["beta_end"])
        kept *= 1 - (low + (high - low) * t / (T - 1)) ** 2
        found.append((math.sqrt(kept), math.sqrt(1 - kept)))
    return found


def flows(shift: float) -> list[tuple[float, float]]:
    """(1 − σ, σ) of a shifted flow, from the least noise to the most."""
    found = []
    for t in range(1, T + 1):
        sigma = shift * (t / T) / (1 + (shift - 1) * t / T)
        found.append((1 - sigma, sigma))
    return found


CASES = {
    "epsilon": (DDIMScheduler(**BETAS), signals(), lambda a, b, x, e: e),
    "v": (DDPMScheduler(**BETAS, prediction_type="v_prediction"), signals(), lambda a, b, x, e: a * e - b * x),
    "sample": (EulerDiscreteScheduler(**BETAS, prediction_type="sample"), signals(), lambda a, b, x, e: x),
    "dpm": (DPMSolverMultistepScheduler(**BETAS), signals(), lambda a, b, x, e: e),
    "flow": (FlowMatchEulerDiscreteScheduler(num_train_timesteps=T, shift=3.0), flows(3.0), lambda a, b, x, e: e - x),
    "flux": (
        FlowMatchEulerDiscreteScheduler(num_train_timesteps=T, shift=3.0, use_dynamic_shifting=True),
        flows(1.0),
        lambda a, b, x, e: e - x,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_noisy_pictures_and_targets(name: str) -> None:
    scheduler, expected, target_of = CASES[name]
    levels = Levels.of(scheduler, WHERE)
    assert len(levels) == T
    places = torch.tensor([0, 7, 24, T - 1])
    x, noise = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    noisy, target = levels.noisy(x, noise, places), levels.target(x, noise, places)
    for row, place in enumerate(places.tolist()):
        a, b = expected[place]
        for one, e, got, said in zip(
            *(part[row].flatten().tolist() for part in (x, noise, noisy, target)), strict=True
        ):
            assert got == pytest.approx(a * one + b * e, rel=1e-4, abs=1e-5)
            assert said == pytest.approx(target_of(a, b, one, e), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_diffusers_says_the_same(name: str) -> None:
    """What its own schedulers make of a picture, and the time that they tell the denoiser."""
    scheduler, _, _ = CASES[name]
    levels = Levels.of(scheduler, WHERE)
    places = torch.arange(0, T, 7)
    x, noise = torch.randn(len(places), 1, 2, 2), torch.randn(len(places), 1, 2, 2)
    times = levels.times[places]
    if levels.kind == "flow":
        theirs = scheduler.scale_noise(x, times, noise)
    else:
        theirs = DDPMScheduler.from_config(scheduler.config).add_noise(x, noise, times)
    torch.testing.assert_close(levels.noisy(x, noise, places), theirs, rtol=1e-5, atol=1e-6)
    if levels.kind == "v_prediction":
        torch.testing.assert_close(
            levels.target(x, noise, places), scheduler.get_velocity(x, noise, times), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("gamma", [1.0, 5.0])
@pytest.mark.parametrize("name", ["epsilon", "v", "sample"])
def test_min_snr(name: str, gamma: float) -> None:
    """Whatever is predicted, min(SNR, γ) is the weight of the error on the picture itself (Hang et al. 2023, eq. 7)."""
    scheduler, expected, target_of = CASES[name]
    levels = Levels.of(scheduler, WHERE)
    weights = levels.min_snr_weight(torch.arange(T), gamma)
    assert weights.min() < 0.9 * weights.max()
    for place, (a, b) in enumerate(expected):
        snr = (a / b) ** 2
        x, e, wrong = 0.3, -1.2, 0.05
        noisy, said = a * x + b * e, target_of(a, b, x, e) + wrong
        picture = {"epsilon": (noisy - b * said) / a, "v": a * noisy - b * said, "sample": said}[name]
        expected_loss = min(snr, gamma) * (picture - x) ** 2
        assert float(weights[place]) * wrong**2 == pytest.approx(expected_loss, rel=1e-3)


def test_min_snr_where_nothing_but_noise_is_left() -> None:
    """With zero terminal SNR (Lin et al. 2023) weights are finite: 0 for v, and for epsilon the limit, 1."""
    for kind, last in (("v_prediction", 0.0), ("epsilon", 1.0)):
        scheduler = DDIMScheduler(**BETAS, prediction_type=kind, rescale_betas_zero_snr=True)
        levels = Levels.of(scheduler, WHERE)
        assert levels.signal[-1] == 0
        weights = levels.min_snr_weight(torch.arange(T), 5.0)
        assert weights.isfinite().all()
        assert float(weights[-1]) == last


def test_levels_of_shares() -> None:
    levels = Levels.of(CASES["epsilon"][0], WHERE)
    shares = torch.tensor([0.0, 0.019, 0.02, 0.5, 0.999, 1.0])
    assert levels.level(shares).tolist() == [0, 0, 1, 25, 49, 49]


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="model.name = 'some/pipeline': its scheduler is of a kind .*EDMEulerScheduler"):
        Levels.of(EDMEulerScheduler(), WHERE)
    flow = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    with pytest.raises(UserError, match="UniPCMultistepScheduler predicts 'flow_prediction'"):
        Levels.of(flow, WHERE)
    with pytest.raises(UserError, match="task.min_snr = 5: .*flow matching; leave it out"):
        Levels.of(CASES["flow"][0], WHERE).min_snr_weight(torch.tensor([3]), 5.0)
