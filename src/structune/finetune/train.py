"""The main job: a recipe in, a run folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import safetensors.torch
import torch
from rich.console import Console
from rich.markup import escape
from torch import nn

from structune.finetune.adapters import WEIGHTS_FILE, apply_method, in_head, save_trained, split_parameters
from structune.finetune.card import model_card
from structune.finetune.curve import draw_curve
from structune.finetune.data import TaskData, load_data
from structune.finetune.data.doubts import majority
from structune.finetune.encode import encode, warn_of_cut_texts
from structune.finetune.errors import Interrupted, UserError
from structune.finetune.files import new_folder, write_json, write_text
from structune.finetune.interrupt import StopOnInterrupt
from structune.finetune.meters import MemoryMeter, StepClock
from structune.finetune.model import Base, hub_name, load_base
from structune.finetune.progress import LogFile, ProgressBar
from structune.finetune.quiet import quiet
from structune.finetune.recipe import Recipe
from structune.finetune.run import Run
from structune.finetune.trainer import RecipeTrainer

__all__ = ["train"]


def train(recipe: Recipe, *, resume: bool = False, overwrite: bool = False, console: Console | None = None) -> Run:
    """Fine-tune as the recipe says and return the finished run.

    The run folder holds ``recipe.yaml`` (resolved), ``versions.json``, ``log.jsonl``, ``curve.png``, ``adapter/``,
    ``checkpoints/`` and, written last, ``metrics.json``. Everything is checked before the folder is touched.

    Args:
        recipe: what to do; its open choices are filled in by `Recipe.resolved`.
        resume: go on from the last checkpoint of an unfinished run of the same recipe.
        overwrite: replace the run that is in the output folder.
        console: where progress is shown; nowhere by default.

    Raises:
        UserError: the recipe, the data, the model or the output folder does not work; nothing was written.
        Interrupted: the user pressed Ctrl-C; a checkpoint was saved.
    """
    console = console or Console(quiet=True)
    recipe = recipe.resolved()
    assert recipe.output is not None  # resolved
    run = Run(Path(recipe.output))
    run.check_free(resume, overwrite)
    if resume:
        run.check_same(recipe)
    _check_precision(recipe)
    data = load_data(recipe.data)
    base = load_base(recipe.model, data.label_names, recipe.seed)
    warn_of_cut_texts([data.train, data.evaluation], base.tokenizer, recipe.data.max_length)
    model = apply_method(base, recipe.method)
    _announce(console, recipe, data, model, base)
    run.begin(recipe, resume)

    clock = StepClock()
    with quiet(), StopOnInterrupt() as stop:
        trainer = RecipeTrainer(
            model,
            base,
            recipe,
            run.checkpoints,
            encode(data.train, base.tokenizer, data.label_names, recipe.data.max_length),
            encode(data.evaluation, base.tokenizer, data.label_names, recipe.data.max_length),
            [clock, LogFile(run.log_file), ProgressBar(console, recipe.method.label), stop],
        )
        checkpoint = run.last_checkpoint() if resume else None
        if resume:
            console.print(f"resuming from {checkpoint}" if checkpoint else "no checkpoint yet: starting from step 0")
        with MemoryMeter(cuda=trainer.args.device.type == "cuda") as memory:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.state.global_step < trainer.state.max_steps:
            raise Interrupted(trainer.state.global_step, run.resume_line())
    evaluation = _last_evaluation(trainer)

    with new_folder(run.adapter) as folder:
        save_trained(model, folder, hub_name(recipe.model))
        adapter, head = split_parameters(model, base.head)
        metrics = {
            "method": recipe.method.label,
            **{key: evaluation[key] for key in ("eval_accuracy", "eval_loss", "eval_f1", "eval_matthews")},
            "train_loss": _mean_loss(trainer.state.log_history),
            "steps": trainer.state.global_step,
            "train_examples": len(data.train),
            "eval_examples": len(data.evaluation),
            "eval_majority": dict(zip(("label", "share"), majority(data.evaluation.labels), strict=True)),
            "labels": data.label_names,
            "trainable_adapter": sum(parameter.numel() for parameter in adapter.values()),
            "trainable_head": sum(parameter.numel() for parameter in head.values()),
            "adapter_bytes": _adapter_bytes(model, base.head),
            "file_bytes": (folder / WEIGHTS_FILE).stat().st_size,
            "seconds_per_step": clock.median(),
            "train_seconds": clock.total,
            "peak_memory_bytes": memory.peak,
            "peak_memory_kind": memory.kind,
            "device": trainer.args.device.type,
            "dtype": recipe.train.precision,
            "seed": recipe.seed,
        }
        write_text(folder / "README.md", model_card(recipe, metrics))
    draw_curve(trainer.state.log_history, f"{recipe.name}: {recipe.method.label}", run.curve_file)
    write_json(run.metrics_file, metrics)
    return run


def _check_precision(recipe: Recipe) -> None:
    on_gpu = torch.cuda.is_available() and recipe.train.device != "cpu"
    if recipe.train.precision == "fp16" and not on_gpu:
        raise UserError("train.precision = 'fp16': needs a GPU; use bf16 or fp32 on a CPU")


def _announce(console: Console, recipe: Recipe, data: TaskData, model: nn.Module, base: Base) -> None:
    adapter, head = split_parameters(model, base.head)
    counts = [sum(parameter.numel() for parameter in part.values()) for part in (adapter, head)]
    rate = f"learning rate {recipe.train.learning_rate:g}, " if adapter else "learning rate "
    console.print(
        f"[bold]{recipe.method.label}[/] on {escape(recipe.model.name)}: {counts[0]:,} trained numbers, "
        f"and {counts[1]:,} in the head\n"
        f"  {len(data.train):,} examples to train on, {len(data.evaluation):,} held out, "
        f"{len(data.label_names)} classes\n"
        f"  {rate}head {recipe.train.head_learning_rate:g}",
        highlight=False,
    )


def _last_evaluation(trainer: RecipeTrainer) -> dict[str, float]:
    """The evaluation of the final weights: the one made at the last step, or a new one."""
    made = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
    if made and made[-1]["step"] == trainer.state.global_step:
        return made[-1]
    return trainer.evaluate()


def _mean_loss(history: list[dict[str, Any]]) -> float:
    """Mean training loss over all steps: each logged loss is the mean since the one before."""
    total, last = 0.0, 0
    for entry in history:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - last)
            last = entry["step"]
    return total / max(last, 1)


def _adapter_bytes(model: nn.Module, head: list[str]) -> int:
    """Bytes of a safetensors file with only the adapter's tensors."""
    adapter, _ = split_parameters(model, head)
    tensors: dict[str, torch.Tensor] = {name: parameter.detach() for name, parameter in adapter.items()}
    if isinstance(model, peft.PeftModel):
        saved = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
        tensors = {name: tensor for name, tensor in saved.items() if not in_head(name, head)}
    return len(safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}))
