"""How far does one step at one rate move what a layer says, in layers of other widths?

    python studies/step_effect.py studies/results/step-effect.json
    python studies/step_effect.py studies/results/step-effect.json --figure docs/results/assets/step-effect.png

Adam moves each number by the rate, whatever its gradient. Of numbers that start at ΔW = 0, this measures
rms(ΔW x) / rate after one step on 16 movie sentences, over the inputs x of all adapted matrices (query and value): in
random BERTs of two layers, 384 to 3,072 wide, and in the pretrained models whose folders `--model` names. It takes five
minutes on one core and 2 GB.

What is expected: entries of ΔW are ±rate, so with signs that know nothing of x, rms(ΔW x) = rate · √in · rms(x). Signs
know the more, the fewer products δᵢxⱼ a number's gradient is a sum of: for one token and P numbers in an out×in matrix
the square grows by the factor 1 + (2/π) P / out, and for many tokens by less.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import structune
from structune.figure_style import method_style, save, tidy
from structune.files import write_json
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.task_data import load_data
from structune.palette import BLACK, GREY, INK
from structune.tasks.parts.pretrained import embedded_folder

WIDTHS = [384, 768, 1536, 3072]
SENTENCES, TOKENS = 16, 32
RATE = 1e-5  # so small that the step is a derivative
TARGETS = ["query", "value", "q_proj", "v_proj"]


def sentences() -> list[str]:
    """The movie sentences that are measured on."""
    recipe = Recipe.parse({"data": {"embedded": "movie-sentences"}}, "step effect")
    return list(load_data(recipe.task, recipe.data).train.inputs["text"][:SENTENCES])


def random_bert(width: int) -> PreTrainedModel:
    """Two layers, with weights whose products keep the size of what comes in."""
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": width, "num_attention_heads": width // 64}
    return BertForSequenceClassification(
        BertConfig(**sizes, num_hidden_layers=2, initializer_range=1 / math.sqrt(width), num_labels=2)
    )


def methods(width: int) -> Iterator[tuple[str, PeftConfig]]:
    """The methods by label."""
    for rank in (8, 1):
        yield f"LoRA r={rank}", LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS)
    for size in (32, 64, width):
        yield f"circulant b={'in' if size == width else size}", structune.c3a(size, target_modules=TARGETS)
    for family in ("circulant", "toeplitz", "hankel", "vandermonde", "cauchy"):
        for share, pool in (("in/4", width // 4), ("in", width)):
            yield f"{family} P={share}", structune.hydra(family, pool, target_modules=TARGETS)


def encoded(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> BatchEncoding:
    """The sentences as a batch."""
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")


def labels_of(model: PreTrainedModel, batch: BatchEncoding) -> Tensor:
    """The next words of a language model; else two classes by turns, as any direction of the output will do."""
    if isinstance(model, BertForSequenceClassification):
        return torch.arange(len(batch["input_ids"])) % 2
    return batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)


def effect(base: PreTrainedModel, config: PeftConfig, batch: BatchEncoding) -> dict[str, float]:
    """One step of Adam, and what it did: root mean squares in each adapted matrix, and their geometric means.

    Returns:
        `numbers` of a matrix, `input` = rms(x), `effect` = rms(ΔW x) / rate.
    """
    torch.manual_seed(1)  # LoRA's random half
    model = get_peft_model(copy.deepcopy(base), config).eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=RATE, eps=1e-30)
    model(**batch, labels=labels_of(base, batch)).loss.backward()
    optimizer.step()
    told = batch["attention_mask"].bool()
    inputs, effects = [], []

    def look(layer: Any, arguments: tuple[Tensor, ...], _output: Tensor) -> None:
        x = arguments[0][told]
        inputs.append(rms(x))
        effects.append(rms(x @ layer.get_delta_weight("default").T) / RATE)

    for name, layer in model.named_modules():
        if name.rpartition(".")[2] in TARGETS and hasattr(layer, "get_delta_weight"):
            layer.register_forward_hook(look)
    with torch.no_grad():
        model(**batch)
    numbers = sum(parameter.numel() for parameter in trained) / len(inputs)
    means = {"input": inputs, "effect": effects}
    return {"numbers": numbers, **{key: round(statistics.geometric_mean(of), 5) for key, of in means.items()}}


def rms(values: Tensor) -> float:
    """Root mean square."""
    return float(values.double().square().mean().sqrt())


def measured(name: str, base: PreTrainedModel, batch: BatchEncoding) -> Iterator[dict[str, Any]]:
    """One entry a method."""
    width = base.config.hidden_size
    for label, config in methods(width):
        found = effect(base, config, batch)
        print(f"{name} {width}  {label}  {found['effect']:.3g}", flush=True)
        yield {"model": name, "width": width, "method": label, **found}


def measure(folders: list[Path], path: Path) -> None:
    """All models, all methods."""
    texts = sentences()
    batch = encoded(AutoTokenizer.from_pretrained(embedded_folder()), texts)
    entries: list[dict[str, Any]] = []
    for width in WIDTHS:
        entries += measured("random", random_bert(width), batch)
    pretrained = AutoModelForSequenceClassification.from_pretrained(embedded_folder(), num_labels=2)
    entries += measured("all-MiniLM-L6-v2", pretrained, batch)
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        entries += measured(folder.name, model, encoded(AutoTokenizer.from_pretrained(folder), texts))
    write_json(path, {"rate": RATE, "torch": torch.__version__, "measured": entries})


def draw(path: Path, figure_path: Path) -> None:
    """Effect against width, with what is expected."""
    from matplotlib.figure import Figure

    entries = json.loads(path.read_text())["measured"]
    shown = {
        "circulant b=64": ("C3A b = 64", "c3a"),
        "circulant P=in": ("HyDRA circulant, P = in", "hydra-circulant"),
        "toeplitz P=in": ("HyDRA Toeplitz, P = in", "hydra-toeplitz"),
        "cauchy P=in": ("HyDRA Cauchy, P = in", "hydra-cauchy"),
        "vandermonde P=in": ("HyDRA Vandermonde, P = in", "hydra-vandermonde"),
        "LoRA r=8": ("LoRA r = 8", "lora"),
    }
    figure = Figure(figsize=(7.6, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    tidy(axes)
    axes.set(xscale="log", yscale="log", xlabel="width of the layer, in", ylabel="rms(ΔW x) / (rate · rms(x))")
    axes.set_title("What one step at one rate moves, by the width of the layer", loc="left", color=INK, fontsize=11)
    axes.plot(WIDTHS, [math.sqrt(width) for width in WIDTHS], color=GREY, linestyle="--", label="√in")
    for label, (title, short) in shown.items():
        colour, marker = method_style(short)
        for random in (True, False):
            points = [
                (entry["width"], entry["effect"] / entry["input"])
                for entry in entries
                if entry["method"] == label and (entry["model"] == "random") == random
            ]
            axes.plot(
                *zip(*points, strict=True), color=colour, marker=marker, markerfacecolor=colour if random else "white",
                linestyle="-" if random else "none", label=title if random else None,
            )  # fmt: skip
    axes.plot([], [], color=BLACK, marker="o", markerfacecolor="white", linestyle="none", label="pretrained models")
    axes.set_xticks([384, 576, 768, 1536, 3072], ["384", "576", "768", "1,536", "3,072"])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    save(figure, figure_path)


def main() -> None:
    """Measure, or draw the figure."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("results", type=Path, help="a JSON file")
    arguments.add_argument("--model", type=Path, action="append", default=[], help="a folder of a language model")
    arguments.add_argument("--figure", type=Path, help="draw this file from the results")
    given = arguments.parse_args()
    if given.figure:
        draw(given.results, given.figure)
    else:
        measure(given.model, given.results)


if __name__ == "__main__":
    main()
