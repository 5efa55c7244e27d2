"""The papers' studies as files: they train as many numbers as the papers print, and they work in small."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    ViTConfig,
)

from structune.finetune.adapters import apply_method, split_parameters
from structune.finetune.recipe.recipe import Recipe
from structune.study.smoke import smoke
from structune.study.study_file import Study
from structune.tasks.task import Base

FOLDER = Path(__file__).parents[1] / "studies" / "papers"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
LLAMA_3 = {"intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 128256}


@pytest.mark.parametrize("task", ["commonsense", "math", "code"])
def test_instructions_are_trained_as_by_the_recipes(task: str) -> None:
    alone = Recipe.load(f"c3a-{task}-llama3")
    for name, section in study("c3a-instruction").tasks.items():
        if name.startswith(task):
            whole = section.recipe("here").task
            assert whole == alone.task.model_copy(update={"samples": 0})
            assert section.train.model_copy(update={"learning_rate": alone.train.learning_rate}) == alone.train


@cache
def study(name: str) -> Study:
    return Study.load(FOLDER / f"{name}.yaml")


def trained(name: str, label: str, of: str) -> int:
    """How many numbers a method of a study trains beside the head of the whole model, which has no weights here."""
    plan = study(name)
    method = plan.settings()[label]
    task = next(section for section in plan.tasks.values()).recipe("here").task
    with torch.device("meta"):
        if of in ("base", "large"):
            shape = LARGE if of == "large" else {}
            roberta = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, **shape)
            model, head = AutoModelForSequenceClassification.from_config(roberta), ["classifier"]
        elif of.startswith("ViT"):
            vit = ViTConfig(**(LARGE if of == "ViT-L" else {}))
            model, head = AutoModelForImageClassification.from_config(vit), ["classifier"]
        else:
            model, head = LlamaForCausalLM(LlamaConfig(**(LLAMA_3 if of == "LLaMA3-8B" else {}))), []
        adapted = apply_method(Base(model, None, head=head), method, task)
        return sum(part.numel() for part in split_parameters(adapted, head)[0].values())


PRINTED = [
    ("c3a-glue-base", "C3A 768/6", "base", 111e3),
    ("c3a-glue-base", "C3A 768/1", "base", 18e3),
    ("c3a-glue-base", "PEFT C3A 768/6", "base", 111e3),
    ("c3a-glue-base", "LoRA r=8", "base", 295e3),
    ("c3a-glue-base", "BitFit", "base", 102e3),
    ("c3a-glue-base", "(IA)3", "base", 111e3),
    ("c3a-glue-base", "full", "base", 124e6),
    ("c3a-glue-large", "C3A 1024/8", "large", 393e3),
    ("c3a-glue-large", "C3A 1024/1", "large", 49e3),
    ("c3a-glue-large", "LoRA r=8", "large", 786e3),
    ("c3a-glue-large", "BitFit", "large", 271e3),
    ("c3a-glue-large", "(IA)3", "large", 295e3),
    ("c3a-image", "LoRA r=16", "ViT-B", 0.59e6),
    ("c3a-image", "LoRA r=16", "ViT-L", 1.57e6),
    ("c3a-image", "C3A b=64", "ViT-L", 0.79e6),
    ("c3a-instruction", "C3A 4096/32", "LLaMA2-7B", 0.0035 * 6.74e9),
    ("c3a-instruction", "LoRA r=32", "LLaMA2-7B", 0.0083 * 6.74e9),
    ("c3a-instruction", "C3A 4096/32", "LLaMA3-8B", 0.0026 * 8.03e9),
    ("c3a-instruction", "LoRA r=32", "LLaMA3-8B", 0.0070 * 8.03e9),
    ("hydra-figure-3", "HyDRA vandermonde P=384", "ViT-B", 9.2e3),
    ("hydra-figure-3", "own circulant k=1", "ViT-B", 24 * 768),
    ("hydra-figure-3", "HyDRA toeplitz P=6128", "ViT-B", 24 * 6144),
    ("hydra-figure-4", "low rank r=4 P=6144 frozen 0.5", "ViT-B", 24 * 3072),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "label", "of", "printed"), PRINTED)
def test_methods_train_as_many_numbers_as_the_papers_print(name: str, label: str, of: str, printed: float) -> None:
    assert trained(name, label, of) == pytest.approx(printed, rel=0.03)


def test_rates_that_papers_give_are_fixed() -> None:
    """Two of each table, read off it; what the papers do not give is searched."""
    tables = {
        ("c3a-glue-base", "C3A 768/6"): {"SST-2": 2e-1, "QNLI": 7e-2},
        ("c3a-glue-large", "C3A 1024/8"): {"SST-2": 9e-2, "RTE": 5e-2},
        ("c3a-image", "C3A b=64"): {"FGVC base": 7.0, "RESISC large": 3.0},
        ("c3a-instruction", "C3A 4096/32"): {"math LLaMA2-7B": 4e-1, "math LLaMA3-8B": 5e-1},
        ("hydra-figure-3", "HyDRA vandermonde P=3072"): {"cifar100": 1e-2},
        ("hydra-figure-4", "low rank r=4 P=6144 frozen 0.9"): {"cifar100": 4e-3},
    }
    for (name, label), rates in tables.items():
        searches = study(name).searches()
        assert {task: searches[label, task].tried for task in rates} == {task: [rate] for task, rate in rates.items()}
        assert all(searches[label, task].further == 0 for task in study(name).tasks)
    for name in ("c3a-glue-base", "c3a-glue-large"):
        assert all(study(name).searches()["LoRA r=8", task].further == 2 for task in study(name).tasks)
        heads = [section.train.head_learning_rate for section in study(name).tasks.values()]
        assert heads[0] == 2e-4 and heads[3] == 8e-6


def test_equal_trained_counts_are_in_figure_4() -> None:
    methods = study("hydra-figure-4").settings()
    kept = {label: m.pool_size * (1 - m.fixed_ratio) for label, m in methods.items() if label.startswith("toeplitz")}  # type: ignore[attr-defined]
    assert kept["toeplitz P=768 frozen 0.0"] == kept["toeplitz P=1536 frozen 0.5"] == 768


TRIED = {  # of each file what is its own; the rest is tried with other files or in other tests
    "c3a-glue-base": ("BOFT", "STS-B"),
    "c3a-glue-large": ("IA", "MRPC"),
    "c3a-image": ("C3A", "FGVC large"),
    "c3a-instruction": ("C3A", "commonsense LLaMA3-8B"),
    "hydra-figure-3": ("hankel P=384$", None),
    "hydra-figure-4": ("circulant P=768 frozen 0.0", None),
}


def test_all_files_are_tried() -> None:
    assert sorted(TRIED) == FILES


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_they_work_in_small(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if "instruction" in name:
        pytest.importorskip("trl", minversion="1.16")
    monkeypatch.chdir(tmp_path)
    only, task = TRIED[name]
    smoke(study(name), only=only, task=task, widest=512)
