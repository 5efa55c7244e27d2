"""Train a small denoiser from scratch on eight classes of CIFAR-10, and save it as a pipeline of diffusers.

    python studies/small_denoiser.py cifar10.npz runs/small-denoiser

The file holds `x_train`, `y_train`, `x_test` and `y_test`, uint8 and class numbers, as CIFAR-10 has them. Beside the
pipeline, folders of images of the two classes that it never saw are written, to adapt it to. What was trained so far is
kept: the same command goes on. Pictures are halved to 16 x 16, so that a CPU trains it: `--minutes 75` on a busy core
is 2,512 steps.

The parts that are not trained: a VAE that passes pictures through, and a small random CLIP that says something else
for each caption.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
UNSEEN = ["horse", "ship"]
SIDE = 16
RATE = 1e-3
NO_CAPTION = 0.1  # how often a picture is shown without its caption, for guidance
AVERAGED = 0.999  # of the weights, at each step
KEPT_EVERY = 500
TO_ADAPT = {"train": 600, "test": 500}  # images of each class
GUIDANCE = 2.5


def caption(name: str) -> str:
    """The caption of a class."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def passing_vae() -> AutoencoderKL:
    """Latents are the pictures themselves, but for rounding.

    Of 12 channels four belong to each colour: x, −x, K and −K, whose group norm is division by K / √2, near enough. The
    layers between add nothing, and SiLU(z) − SiLU(−z) = z.
    """
    large = 100.0
    vae = AutoencoderKL(
        block_out_channels=(12,), latent_channels=3, norm_num_groups=3, layers_per_block=1, sample_size=SIDE,
        scaling_factor=1.0, down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for half in (vae.encoder, vae.decoder):
            for colour in range(3):
                first = 4 * colour
                half.conv_in.weight[first, colour, 1, 1], half.conv_in.weight[first + 1, colour, 1, 1] = 1.0, -1.0
                half.conv_in.bias[first + 2], half.conv_in.bias[first + 3] = large, -large
                back = large / math.sqrt(2)
                half.conv_out.weight[colour, first, 1, 1], half.conv_out.weight[colour, first + 1, 1, 1] = back, -back
        vae.encoder.conv_out.bias[3:] = -30.0  # no deviation
        for conv, channels in ((vae.quant_conv, 6), (vae.post_quant_conv, 3)):
            for channel in range(channels):
                conv.weight[channel, channel, 0, 0] = 1.0
    return vae.eval()


def text_encoder() -> tuple[CLIPTokenizer, CLIPTextModel]:
    """A random CLIP that reads letters."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[], model_max_length=16)
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    layers = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPTextConfig(vocab_size=len(words), max_position_embeddings=16, **layers, **ends)
    return tokenizer, CLIPTextModel(config).eval()


def untrained() -> StableDiffusionPipeline:
    """The pipeline before training: always the same."""
    torch.manual_seed(0)
    tokenizer, texts = text_encoder()
    unet = UNet2DConditionModel(
        sample_size=SIDE, in_channels=3, out_channels=3, block_out_channels=(48, 96, 96), layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=64, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", num_train_timesteps=1000, prediction_type="v_prediction",
        timestep_spacing="trailing", steps_offset=1, clip_sample=False, thresholding=True,  # at 1: plain clipping
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=passing_vae(), text_encoder=texts, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


class Training:
    """AdamW with a cosine over the steps, or over the time where that is over first; a loss of v; averaged weights.

    What is drawn is a function of the step. Nothing waits for the GPU but what is said and kept.

    Args:
        pipeline: whose denoiser is trained.
        kept: the file of what was trained so far.
    """

    def __init__(self, pipeline: StableDiffusionPipeline, kept: Path, device: str) -> None:
        self.unet = pipeline.unet.to(device).train()
        self.schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.schedule.alphas_cumprod = self.schedule.alphas_cumprod.to(device)
        with torch.no_grad():
            captions = [*(caption(name) for name in CLASSES), ""]
            self.texts = pipeline.encode_prompt(captions, "cpu", 1, False)[0].to(device)
        self.device, self.kept = device, kept
        self.optimizer = torch.optim.AdamW(
            self.unet.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-4, fused=device == "cuda"
        )
        self.averaged = [parameter.detach().clone() for parameter in self.unet.parameters()]
        self.step, self.seconds = 0, 0.0
        self.losses: list[float] = []
        if kept.is_file():
            state = torch.load(kept, weights_only=True, map_location=device)
            self.unet.load_state_dict(state["unet"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.averaged = state["averaged"]
            self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]

    def loss(self, pictures: Tensor, labels: Tensor, batch: int) -> Tensor:
        """Of a batch of pictures, uint8, with noise."""
        numbers = torch.Generator(self.device).manual_seed(self.step)
        drawn: dict[str, Any] = {"generator": numbers, "device": self.device}
        rows = torch.randint(len(pictures), (batch,), **drawn)
        clean = pictures[rows].float() / 127.5 - 1
        clean = torch.where(torch.rand(batch, 1, 1, 1, **drawn) < 0.5, clean.flip(3), clean)
        noise = torch.randn(clean.shape, **drawn)
        times = torch.randint(1000, (batch,), **drawn)
        told = torch.where(torch.rand(batch, **drawn) < NO_CAPTION, len(CLASSES), labels[rows])
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            said = self.unet(self.schedule.add_noise(clean, noise, times), times, self.texts[told]).sample
        return (said.float() - self.schedule.get_velocity(clean, noise, times)).square().mean()

    def run(self, pictures: Tensor, labels: Tensor, batch: int, steps: int, seconds: float) -> None:
        """Train until either is over."""
        pictures, labels = pictures.to(self.device), labels.to(self.device)
        parameters = list(self.unet.parameters())
        total, begun = torch.zeros((), device=self.device), time.monotonic() - self.seconds
        while (over := max(self.step / steps, self.seconds / seconds)) < 1:
            for group in self.optimizer.param_groups:
                group["lr"] = RATE * min(1.0, (self.step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * over))
            loss = self.loss(pictures, labels, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            with torch.no_grad():
                own = max(1 - AVERAGED, 9 / (self.step + 10))  # at first those of few steps
                torch._foreach_lerp_(self.averaged, parameters, own)
            total += loss.detach()
            self.step += 1
            self.seconds = time.monotonic() - begun
            if self.step % 100 == 0:
                self.losses.append(float(total) / 100)
                total.zero_()
                print(f"step {self.step:,}, {self.seconds:.0f} s: loss {self.losses[-1]:.4f}", flush=True)
            if self.step % KEPT_EVERY == 0:
                self.keep()
        self.keep()

    def keep(self) -> None:
        """Write what was trained so far."""
        state = {"unet": self.unet.state_dict(), "optimizer": self.optimizer.state_dict(), "averaged": self.averaged}
        numbers = {"step": self.step, "seconds": self.seconds, "losses": self.losses}
        torch.save(state | numbers, self.kept.with_suffix(".new"))
        self.kept.with_suffix(".new").replace(self.kept)

    def average(self) -> None:
        """Put the averaged weights into the denoiser, rounded to half precision."""
        with torch.no_grad():
            for parameter, averaged in zip(self.unet.parameters(), self.averaged, strict=True):
                parameter.copy_(averaged)
        self.unet.eval().half()


def halved(pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Each 2 x 2 pixels become their mean: (N, 32, 32, 3) to (N, 16, 16, 3), uint8."""
    count, height, width, colours = pictures.shape
    squares = pictures.reshape(count, height // 2, 2, width // 2, 2, colours)
    return squares.mean(axis=(2, 4)).round().astype(np.uint8)


def write_unseen(file: Any, out: Path) -> None:
    """Folders of images of the classes that were not trained on, named by their captions."""
    for part, count in TO_ADAPT.items():
        for name in UNSEEN:
            rows = np.flatnonzero(file[f"y_{part}"] == CLASSES.index(name))[:count]
            folder = out / part / caption(name)
            folder.mkdir(parents=True, exist_ok=True)
            for number, picture in enumerate(halved(file[f"x_{part}"][rows])):
                Image.fromarray(picture).save(folder / f"{number:04}.png")


def seen(file: Any, count: int) -> tuple[Tensor, Tensor]:
    """The first pictures of each class that is trained on, (N, 3, side, side), and their classes."""
    known = [n for n, name in enumerate(CLASSES) if name not in UNSEEN]
    rows = np.concatenate([np.flatnonzero(file["y_train"] == n)[:count] for n in known])
    pictures = torch.from_numpy(halved(file["x_train"][rows])).permute(0, 3, 1, 2).contiguous()
    return pictures, torch.from_numpy(file["y_train"][rows].astype(np.int64))


def draw(folder: Path, device: str, path: Path, steps: int, each: int) -> None:
    """A row of samples for each class that was trained on, as they come out of the saved pipeline."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.unet.float()
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [caption(name) for name in CLASSES if name not in UNSEEN for _ in range(each)]
    seeds = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
    made = pipeline(prompts, generator=seeds, num_inference_steps=steps, guidance_scale=GUIDANCE).images
    grid = Image.new("RGB", (each * SIDE, len(prompts) // each * SIDE))
    for number, image in enumerate(made):
        grid.paste(image, (number % each * SIDE, number // each * SIDE))
    grid.save(path)


def main() -> None:
    """Train and save."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path, help="cifar10.npz")
    arguments.add_argument("out", type=Path, help="a folder")
    arguments.add_argument("--steps", type=int, default=6000, help="at most so many")
    arguments.add_argument("--minutes", type=float, default=math.inf, help="and at most so long")
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--pictures", type=int, default=5000, help="of each class, at most")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--samples", type=int, default=8, help="of each class")
    arguments.add_argument("--sampling-steps", type=int, default=50)
    given = arguments.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    file = dict(np.load(given.data))
    write_unseen(file, given.out / "unseen")
    pictures, labels = seen(file, given.pictures)
    pipeline = untrained()
    numbers = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    print(f"{numbers:,} numbers, {len(pictures):,} pictures", flush=True)
    torch.backends.cudnn.benchmark = True
    training = Training(pipeline, given.out / "training.pt", given.device)
    training.run(pictures, labels, given.batch, given.steps, 60 * given.minutes)
    training.average()
    pipeline.save_pretrained(given.out / "pipeline")
    about = {
        "numbers": numbers,
        "pictures": len(pictures),
        "steps": training.step,
        "batch": given.batch,
        "seconds": round(training.seconds, 1),
        "losses": [round(loss, 5) for loss in training.losses],  # means of 100 steps
        "device": torch.cuda.get_device_name() if given.device == "cuda" else platform.machine(),
        "torch": torch.__version__,
    }
    (given.out / "training.json").write_text(json.dumps(about, indent=2) + "\n")
    draw(given.out / "pipeline", given.device, given.out / "samples.png", given.sampling_steps, given.samples)


if __name__ == "__main__":
    main()
