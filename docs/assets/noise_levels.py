"""Draw how much of a picture is left at each noise level, and how much min-SNR weights let it count.

python docs/assets/noise_levels.py writes noise_levels.png beside it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from matplotlib.figure import Figure

from structune.palette import BLUE, GREY, INK, VERMILION
from structune.tasks.parts.diffusion.noise import Levels
from structune.tasks.parts.figure import plain, titled

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PIPELINES = {
    "Stable Diffusion\n1.5, SDXL": (DDIMScheduler(**STABLE_DIFFUSION), BLUE),
    "Stable Diffusion\n3": (FlowMatchEulerDiscreteScheduler(shift=3.0), VERMILION),
    "Flux, before its\nshift by size": (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), GREY),
}


def draw(path: Path) -> None:
    """Two panels: signal and noise of three pipelines' schedulers, and weights for epsilon and v."""
    figure = Figure(figsize=(10, 3.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        plain(axes)
        axes.set_xlabel("noise level, from the least to the most", color=INK)
    for name, (scheduler, colour) in PIPELINES.items():
        levels = Levels.of(scheduler, name)
        share = torch.arange(len(levels)) / len(levels)
        left.plot(share, levels.signal, color=colour, label=name)
        left.plot(share, levels.noise, color=colour, linestyle=":")
    left.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    titled(left, "Of the picture (line) and of the noise (dots)")
    for kind, colour in (("epsilon", BLUE), ("v_prediction", VERMILION)):
        levels = Levels.of(DDIMScheduler(**STABLE_DIFFUSION, prediction_type=kind), kind)
        share = torch.arange(len(levels)) / len(levels)
        for gamma, line in ((5.0, "-"), (1.0, "--")):
            weights = levels.min_snr_weight(torch.arange(len(levels)), gamma)
            right.plot(share, weights, color=colour, linestyle=line, label=f"{kind},\nγ = {gamma:g}")
    right.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    titled(right, "Weight of an error under min-SNR")
    figure.savefig(path)


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".png"))
