"""transformers' Trainer with two learning rates and the OneCycle schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data import Sampler
from transformers import DataCollatorWithPadding, EvalPrediction, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from structune.finetune.adapters import split_parameters
from structune.finetune.model import Base
from structune.finetune.recipe import Recipe
from structune.finetune.sampler import SimilarLengths
from structune.finetune.scores import confusion, scores

__all__ = ["RecipeTrainer"]


class RecipeTrainer(Trainer):
    """Trains ``model`` as the recipe says; ``recipe`` must be resolved.

    AdamW has one parameter group for the adapter and one for the head, each with its own largest learning rate.
    OneCycle (Smith and Topin 2019, as in HyDRA) raises both over the first ``warmup`` of the steps, then lowers them
    to almost zero.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        base: Base,
        recipe: Recipe,
        folder: Path,
        train: list[dict[str, Any]] | None = None,
        evaluation: list[dict[str, Any]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self.recipe = recipe
        self.head = base.head
        super().__init__(
            model=model,
            args=_arguments(recipe, folder, evaluating=evaluation is not None),
            data_collator=DataCollatorWithPadding(base.tokenizer),
            train_dataset=train,
            eval_dataset=evaluation,
            compute_metrics=_scores,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        # Losses of sequence classification are means over the batch whatever arguments the model takes: without this,
        # the Trainer would add up those of accumulated batches instead of averaging them.
        self.model_accepts_loss_kwargs = False

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            settings = self.recipe.train
            assert self.model is not None  # given at the start
            adapter, head = split_parameters(self.model, self.head)
            groups = [
                {"params": list(adapter.values()), "lr": settings.learning_rate},
                {"params": list(head.values()), "lr": settings.head_learning_rate},
            ]
            self.optimizer = torch.optim.AdamW(
                [group for group in groups if group["params"]], weight_decay=settings.weight_decay
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        settings = self.recipe.train
        if self.lr_scheduler is None and settings.scheduler == "onecycle":
            optimizer = optimizer or self.create_optimizer()
            largest = [group["lr"] for group in optimizer.param_groups]
            self.lr_scheduler = OneCycleLR(  # type: ignore[assignment]  # the Trainer takes any scheduler
                optimizer, max_lr=largest, total_steps=num_training_steps, pct_start=settings.warmup
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if not self.recipe.train.group_by_length:
            return super()._get_train_sampler(train_dataset)
        examples: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(example["input_ids"]) for example in examples]
        size = self.args.train_batch_size
        return SimilarLengths(lengths, size, self.recipe.seed, lambda: int(self.state.epoch or 0))

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Evaluate without drawing on the random numbers of training: how often does not change the weights."""
        with torch.random.fork_rng():
            return super().evaluate(*arguments, **options)


def _arguments(recipe: Recipe, folder: Path, evaluating: bool) -> TrainingArguments:
    train = recipe.train
    when = "steps" if train.eval_steps else "epoch"
    schedulers = {"onecycle": "constant", "constant": "constant_with_warmup"}
    return TrainingArguments(
        output_dir=str(folder),
        seed=recipe.seed,
        num_train_epochs=train.epochs or 1,
        max_steps=train.max_steps or -1,
        per_device_train_batch_size=train.batch_size,
        per_device_eval_batch_size=train.eval_batch_size,
        gradient_accumulation_steps=train.gradient_accumulation,
        activation_checkpointing=train.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if train.gradient_checkpointing else None,
        max_grad_norm=train.max_grad_norm,
        lr_scheduler_type=schedulers.get(train.scheduler, train.scheduler),
        warmup_steps=train.warmup,
        bf16=train.precision == "bf16",
        fp16=train.precision == "fp16",
        use_cpu=train.device == "cpu",
        logging_steps=train.log_steps,
        eval_strategy=when if evaluating else "no",
        eval_steps=train.eval_steps,
        save_strategy="steps" if train.save_steps else "epoch",
        save_steps=train.save_steps or 500,
        save_total_limit=train.keep_checkpoints,
        report_to=train.report_to or "none",
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available() and train.device != "cpu",
        disable_tqdm=True,
        log_level="error",
    )


def _scores(outcome: EvalPrediction) -> dict[str, float]:
    logits, labels = np.asarray(outcome.predictions), np.asarray(outcome.label_ids)
    return scores(confusion(logits.argmax(-1), labels, logits.shape[-1]))
