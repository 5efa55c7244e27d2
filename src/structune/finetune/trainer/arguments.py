"""A recipe as transformers' arguments of training, and whether this machine can train so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from structune.errors import UserError
from structune.finetune.recipe.recipe import Recipe


def check_settings(recipe: Recipe, folder: Path, processes: int = 1) -> None:
    """Raises `UserError` when this machine cannot train so, or a reporting back end is not there; writes nothing."""
    if recipe.train.batch_size % processes:
        raise UserError(
            f"train.batch_size = {recipe.train.batch_size}: is that of all {processes} processes together, and each "
            f"has an equal part of it; give a multiple of {processes}"
        )
    on_gpu = torch.cuda.is_available() and recipe.train.device != "cpu"
    if recipe.train.precision == "fp16" and not on_gpu:
        raise UserError("train.precision = 'fp16': needs a GPU; use bf16 or fp32 on a CPU")
    try:
        reporting = training_arguments(recipe, folder, evaluating=True).report_to
    except (ValueError, ImportError, RuntimeError) as error:
        raise UserError(f"train.precision = {recipe.train.precision!r}: {' '.join(str(error).split())}") from None
    for name in reporting or []:
        try:
            for callback in get_reporting_integration_callbacks([name]):
                callback()
        except (ValueError, ImportError, RuntimeError) as error:
            raise UserError(f"train.report_to = {name!r}: {' '.join(str(error).split())}") from None


def training_arguments(
    recipe: Recipe,
    folder: Path,
    evaluating: bool,
    processes: int = 1,
    kind: type[TrainingArguments] = TrainingArguments,
    settings: Mapping[str, Any] | None = None,
) -> TrainingArguments:
    """What transformers' Trainer, or one that stands on it, is told.

    Args:
        recipe: what to do.
        folder: for checkpoints.
        evaluating: whether there are examples to evaluate on.
        processes: how many train together.
        kind: the trainer's class of arguments.
        settings: values of arguments that no recipe decides.

    Raises:
        ValueError, ImportError, RuntimeError: this machine cannot train so.
    """
    train = recipe.train
    when = "steps" if train.eval_steps else "epoch"
    known = {field.name for field in fields(TrainingArguments)}
    prefix = "activation" if "activation_checkpointing" in known else "gradient"  # renamed in transformers 5.23
    checkpointing: dict[str, Any] = {f"{prefix}_checkpointing": train.gradient_checkpointing}
    if kind is not TrainingArguments:  # TRL's have a default of their own under the old name
        checkpointing["gradient_checkpointing"] = train.gradient_checkpointing
    if train.gradient_checkpointing:
        checkpointing[f"{prefix}_checkpointing_kwargs"] = {"use_reentrant": False}
    schedulers = {"onecycle": "constant", "constant": "constant_with_warmup"}
    return kind(
        output_dir=str(folder),
        seed=recipe.seed,
        num_train_epochs=train.epochs or 1,
        max_steps=train.max_steps or -1,
        per_device_train_batch_size=train.batch_size // processes,
        per_device_eval_batch_size=train.eval_batch_size,
        gradient_accumulation_steps=train.gradient_accumulation,
        **checkpointing,
        max_grad_norm=train.max_grad_norm,
        lr_scheduler_type=schedulers.get(train.scheduler, train.scheduler),
        warmup_steps=train.warmup,
        bf16=train.precision == "bf16",
        fp16=train.precision == "fp16",
        use_cpu=train.device == "cpu" or not torch.accelerator.is_available(),
        logging_steps=train.log_steps,
        eval_strategy=when if evaluating else "no",
        eval_steps=train.eval_steps,
        eval_on_start=evaluating and train.evaluate_first,
        save_strategy="steps" if train.save_steps else "epoch",
        save_steps=train.save_steps or 500,
        save_total_limit=None,  # RecipeTrainer counts them
        logging_nan_inf_filter=False,  # RecipeTrainer stops at the first
        report_to=train.report_to or "none",
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available() and train.device != "cpu",
        disable_tqdm=True,
        log_level="error",
        **(settings or {}),
    )


def device_of(recipe: Recipe, folder: Path) -> str:
    """Where the recipe is trained on this machine."""
    return str(training_arguments(recipe, folder, evaluating=True).device)
