"""Which learning rate suits layers of other widths? Accuracy against rate, 384 to 4,224 wide, on real sentences.

    python studies/width_rates.py studies/results/width-rates.json --precision bf16 --task movie-sentences --task tweets
    python studies/width_rates.py studies/results/width-rates.json --figure docs/results/assets/width-rates.png

Pretrained models that wide do not fit a small machine. So the last two layers of all-MiniLM-L6-v2 get query and value
matrices of any width that compute what its own do: their input is turned into a wider space by a random matrix with
orthonormal columns, and every head's queries, keys and values by others, which the scores and the output projection
undo; entries are as large as before. What is frozen is the same function at every width; only ΔW is of another size.
What lies below is computed once. A head is trained beside, always at the same rate: 1,600 sentences, 16 words each,
one epoch of 100 steps, AdamW and OneCycle as in recipes, without dropout; 1,000 other sentences are scored. Finished
runs are kept: the same command goes on. With `--precision bf16` (autocast) a run of layers 4,224 wide took half a
minute on a busy core with AVX512-BF16; in fp32 one 1,536 wide does. A width is a multiple of 12 heads and of blocks of
64, of 192 that is: so 2,112 and 4,224 stand for 2,048 and 4,096.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

import structune
from structune.figure_style import method_style, save, tidy
from structune.files import write_json
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.task_data import load_data
from structune.palette import GRID, INK
from structune.tasks.parts.pretrained import embedded_folder

WIDTHS = [384, 2112, 4224]  # multiples of 12 heads and of blocks of 64
RATES = [1.25e-4 * 2**step for step in range(9)]  # to 3.2e-2
HEAD_RATE = 1e-3
WORDS, BATCH, TRAINED, SCORED = 16, 16, 1600, 1000
LINES = [("-", None), ("--", "white"), (":", GRID), ("-.", INK)]  # dash and face of each width; None: the colour
NARROW, LAYERS = 384, 2  # of the pretrained model; how many of its layers are adapted


def methods(width: int) -> Iterator[tuple[str, str, PeftConfig]]:
    """(label, short name of its looks, configuration) of each; LoRA's alpha is twice its rank, as in recipes."""
    common: dict[str, Any] = {"target_modules": r"attentions\.\d+\.(query|value)", "modules_to_save": ["head"]}
    yield "LoRA r=8", "lora", LoraConfig(r=8, lora_alpha=16, **common)
    yield "C3A b=64", "c3a", structune.c3a(64, **common)
    yield "HyDRA Toeplitz P=in", "hydra-toeplitz", structune.hydra("toeplitz", width, **common)


class Features:
    """What the adapted layers see of sentences, whether there is a word, and the sentences' classes."""

    def __init__(self, task: str, below: nn.Module) -> None:
        recipe = Recipe.parse(
            {"data": {"embedded": task, "train_examples": TRAINED, "evaluation_examples": SCORED}}, "width rates"
        )
        data = load_data(recipe.task, recipe.data)
        self.classes: list[str] = data.targets["classes"]
        self.train, self.scored = (self._of(part, below) for part in (data.train, data.evaluation))

    def _of(self, examples: Any, below: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
        words = tokenizer(
            list(examples.inputs["text"]), padding="max_length", truncation=True, max_length=WORDS, return_tensors="pt"
        )
        with torch.no_grad():
            states = below(**words, output_hidden_states=True).hidden_states[-1 - LAYERS]
        answers = torch.tensor([self.classes.index(label) for label in examples.labels])
        return states, words["attention_mask"], answers


def turned(rows: int, columns: int) -> Tensor:
    """A random matrix with orthonormal columns."""
    return torch.linalg.qr(torch.randn(rows, columns))[0]


class WideAttention(nn.Module):
    """What a layer's self-attention computes, by queries and values that are `width` wide on an input of that width."""

    def __init__(self, own: nn.Module, width: int) -> None:
        super().__init__()
        self.heads: int = own.num_attention_heads
        size = math.sqrt(width / NARROW)  # by which entries of a wider space are as large as those of the narrow one
        wide = turned(width, NARROW)
        self.up = frozen(size * wide)
        self.scale = own.attention_head_size**-0.5 / size**2
        keys, values = (
            torch.block_diag(*(turned(width // self.heads, NARROW // self.heads) for _ in range(self.heads)))
            for _ in range(2)
        )
        self.query = frozen(keys @ own.query.weight @ wide.T, size * keys @ own.query.bias)
        self.key = frozen(size * keys @ own.key.weight, size * keys @ own.key.bias)
        self.value = frozen(values @ own.value.weight @ wide.T, size * values @ own.value.bias)
        self.down = frozen(values.T / size)

    def forward(self, narrow: Tensor, there: Tensor) -> Tensor:
        """Of `narrow`, (sentences, words, 384)."""
        x = self.up(narrow)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(narrow), self.value(x))
        )
        found = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=there[:, None, None, :].bool(), scale=self.scale
        )
        output: Tensor = self.down(found.transpose(1, 2).flatten(2))
        return output


def frozen(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A layer with that weight, which is not trained."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer.requires_grad_(False)


class Wide(nn.Module):
    """The last layers of a BERT with wide attention, a mean over words, and a head."""

    def __init__(self, layers: list[nn.Module], width: int, classes: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(WideAttention(layer.attention.self, width) for layer in layers)
        self.rest = nn.ModuleList(layers).requires_grad_(False)
        self.head = nn.Linear(NARROW, classes)

    def states(self, words: Tensor, there: Tensor) -> Tensor:
        """The last layer's."""
        for attention, layer in zip(self.attentions, self.rest, strict=True):
            attended = layer.attention.output(attention(words, there), words)
            words = layer.output(layer.intermediate(attended), attended)
        return words

    def forward(self, words: Tensor, there: Tensor) -> Tensor:
        """Logits of a batch."""
        mean = (self.states(words, there) * there[..., None]).sum(1) / there.sum(1, keepdim=True)
        logits: Tensor = self.head(mean)
        return logits


def run(
    below: nn.Module, width: int, config: PeftConfig, rate: float, seed: int, features: Features, narrow: bool
) -> dict[str, float]:
    """Train, and score: accuracy and loss on other sentences.

    `narrow`: with weights of attention in bf16 and all products in it, by autocast.
    """
    torch.manual_seed(seed)
    wide = Wide(list(below.encoder.layer[-LAYERS:]), width, len(features.classes)).eval()
    if narrow:
        for attention in wide.attentions:
            attention.bfloat16()
    model = get_peft_model(wide, config)  # type: ignore[arg-type]  # any module will do
    named = [(name, part) for name, part in model.named_parameters() if part.requires_grad]
    groups = [
        {"params": [part for name, part in named if ("head" in name) == head], "lr": HEAD_RATE if head else rate}
        for head in (False, True)
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    steps = TRAINED // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=[rate, HEAD_RATE], total_steps=steps, pct_start=0.1
    )
    words, there, answers = features.train
    for chosen in torch.randperm(TRAINED)[: steps * BATCH].view(steps, BATCH):
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            logits = model(words[chosen], there[chosen])
        loss = functional.cross_entropy(logits.float(), answers[chosen])
        loss.backward()
        nn.utils.clip_grad_norm_([part for _, part in named], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    words, there, answers = features.scored
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        logits = torch.cat([model(words[at : at + 100], there[at : at + 100]) for at in range(0, len(words), 100)])
    logits = logits.float()
    return {
        "accuracy": round(float((logits.argmax(1) == answers).double().mean()), 4),
        "loss": round(float(functional.cross_entropy(logits, answers)), 5),
        "numbers": sum(part.numel() for name, part in named if "head" not in name),
    }


def measure(
    path: Path, tasks: list[str], widths: list[int], rates: list[float], seeds: list[int], precision: str
) -> None:
    """All that is not there yet; each run is kept as it ends."""
    before = json.loads(path.read_text()) if path.is_file() else {"precision": precision, "measured": []}
    entries: list[dict[str, Any]] = before["measured"]
    if (other := before["precision"]) != precision:
        raise SystemExit(f"{path}: holds runs in {other}; name another file for --precision {precision}")
    below = AutoModel.from_pretrained(embedded_folder()).eval().requires_grad_(False)
    known = {(e["task"], e["width"], e["method"], e["rate"], e["seed"]) for e in entries}
    for task in tasks:
        features = Features(task, below)
        for seed in seeds:
            for width in widths:
                for label, _, config in methods(width):
                    for rate in rates:
                        key = (task, width, label, rate, seed)
                        if key in known:
                            continue
                        begun = time.monotonic()
                        found = run(below, width, config, rate, seed, features, precision == "bf16")
                        names = ("task", "width", "method", "rate", "seed")
                        entries.append(dict(zip(names, key, strict=True)) | found)
                        kept = {"torch": torch.__version__, "precision": precision, "measured": entries}
                        write_json(path, kept)
                        print(*key, f"{found['accuracy']:.3f} {found['loss']:.3f}", end="  ")
                        print(f"{time.monotonic() - begun:.0f} s", flush=True)


def draw(path: Path, figure_path: Path) -> None:
    """Loss on other sentences against the rate: a row a task, a panel a method, a line a width; the mean over seeds."""
    from matplotlib.figure import Figure

    entries = json.loads(path.read_text())["measured"]
    looks = [(label, method_style(short)) for label, short, _ in methods(NARROW)]
    tasks, widths = (sorted({entry[key] for entry in entries}) for key in ("task", "width"))
    figure = Figure(figsize=(9.6, 0.6 + 2.6 * len(tasks)), dpi=150, layout="constrained")
    panels = figure.subplots(len(tasks), len(looks), sharex=True, sharey="row", squeeze=False)
    for row, task in zip(panels, tasks, strict=True):
        for axes, (label, (colour, marker)) in zip(row, looks, strict=True):
            tidy(axes)
            axes.set(xscale="log")
            axes.set_title(f"{label}, {task}", loc="left", color=INK, fontsize=9)
            for number, width in enumerate(widths):
                dash, face = LINES[number % len(LINES)]
                losses: dict[float, list[float]] = {}
                for entry in entries:
                    if (entry["task"], entry["method"], entry["width"]) == (task, label, width):
                        losses.setdefault(entry["rate"], []).append(entry["loss"])
                if not losses:
                    continue
                rates = sorted(losses)
                means = [sum(losses[rate]) / len(losses[rate]) for rate in rates]
                look = {"color": colour, "marker": marker, "markerfacecolor": face or colour, "linestyle": dash}
                axes.plot(rates, means, **look, markersize=4, label=f"{width:,} wide")
                least = min(range(len(rates)), key=means.__getitem__)
                axes.plot(rates[least], means[least], **look, markersize=9)
            axes.legend(frameon=False, fontsize=8)
        row[0].set_ylabel("loss on other sentences")
    for axes in panels[-1]:
        axes.set_xlabel("learning rate")
    save(figure, figure_path)


def main() -> None:
    """Measure, or draw the figure."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("results", type=Path, help="a JSON file")
    arguments.add_argument("--task", action="append", default=[], help="embedded sentences; may be repeated")
    arguments.add_argument("--width", type=int, action="append", default=[], help="only these")
    arguments.add_argument("--rate", type=float, action="append", default=[], help="only these")
    arguments.add_argument("--seed", type=int, action="append", default=[], help="0 by default")
    arguments.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments.add_argument("--figure", type=Path, help="draw this file from the results")
    given = arguments.parse_args()
    if given.figure:
        draw(given.results, given.figure)
    else:
        tasks, widths = given.task or ["movie-sentences"], given.width or WIDTHS
        measure(given.results, tasks, widths, given.rate or RATES, given.seed or [0], given.precision)


if __name__ == "__main__":
    main()
