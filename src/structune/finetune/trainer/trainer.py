"""transformers' Trainer with two learning rates and the OneCycle schedule, which stops when numbers run away."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data import DataLoader, RandomSampler, Sampler, SequentialSampler
from transformers import (
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import nested_detach, nested_numpify
from transformers.trainer_utils import EvalLoopOutput

from structune.errors import Diverged, UserError
from structune.files import NotWritten, written
from structune.finetune.adapters import split_parameters
from structune.finetune.distributed.processes import Processes
from structune.finetune.distributed.sharding import average_gradients, give_back, is_sharded, save_adapter
from structune.finetune.outputs import are_finite, joined
from structune.finetune.recipe.recipe import ResolvedRecipe
from structune.finetune.run_folder.checkpoint import checkpoint_folders, checkpoint_step, remove_checkpoint
from structune.finetune.trainer.arguments import training_arguments
from structune.finetune.trainer.choosing import Best, Choosing, best
from structune.finetune.trainer.sampler import Counted, Shares, Shuffled, SimilarLengths, Turns, Uncounted
from structune.tasks.task import Base, Beneath, Targets

_PREPARED = "prepared"
"""Under which name a checkpoint holds what the task's findings have become while training."""

_UNLOGGED = "unlogged"
"""Likewise, the losses of the steps since the last that was logged, added up, and which step that was."""

_COUNTS = "structune: it counts"  # whether a batch has examples of its own
_SKIPPED = 40  # steps in a row that fp16 may skip while it looks for a scale


class _AllTaken(Exception):
    """Every step was taken before, or training had stopped early: the run ended before its results."""


class _Epochs(TrainerCallback):
    """Tells what puts batches together which epoch begins, or is gone on with."""

    def __init__(self, begin: Callable[[int, int], None], seed: int) -> None:
        self.begin = begin
        self.seed = seed

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.begin(self.seed, int(state.epoch or 0))


class _Losses(TrainerCallback):
    """Lets a trainer that goes on count the losses that were not logged before the checkpoint."""

    def __init__(self, go_on: Callable[[], None]) -> None:
        self.go_on = go_on

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.go_on()


class RecipeTrainer(Trainer):
    """Trains `model` as the recipe says; `recipe` must be resolved.

    AdamW has one parameter group for the adapter and one for the head, each with its own largest learning rate.
    OneCycle (Smith and Topin 2019, as in HyDRA) raises both over the first `warmup` of the steps, then lowers them
    to almost zero.

    A loss, a gradient or a trained number that is not finite raises `Diverged` before it is logged or saved.

    `standing_on` puts it on another class of trainer than transformers' own: what is left to `super()` is that one's.
    Examples are evaluated as the task says, whatever that one does.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        base: Base,
        recipe: ResolvedRecipe,
        targets: Targets,
        folder: Path,
        train: Sequence[Mapping[str, Any]] | None = None,
        evaluation: Sequence[Mapping[str, Any]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        processes: Processes | None = None,
        beneath: Beneath | None = None,
    ) -> None:
        self.recipe = recipe
        self.beneath = beneath or Beneath(Trainer)
        self.processes = processes or Processes()
        self.task = recipe.task
        self.base = base
        self.head = base.head
        self._prepared = dict(base.prepared)
        self.folder = folder
        self.sharded = is_sharded(model)
        self._skipped = 0
        self._unproven = False
        self.choosing = Choosing(recipe.train, recipe.chosen_by)
        arguments = training_arguments(
            recipe,
            folder,
            evaluation is not None,
            self.processes.count,
            self.beneath.arguments or TrainingArguments,
            self.beneath.settings,
        )
        own: dict[str, Any] = {
            "data_collator": self.task.collator(replace(base, known=targets), training=True),
            "compute_metrics": lambda outcome: self.task.scores(outcome.predictions, outcome.label_ids, targets),
        }
        taken = inspect.signature(self.beneath.trainer).parameters  # TRL's trainers that generate take neither
        trained = {name: part.data for name, part in model.named_parameters() if part.requires_grad}
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=self._theirs(train),
            eval_dataset=self._theirs(evaluation),
            callbacks=[self.choosing, *(callbacks or [])],
            **{name: value for name, value in own.items() if name in taken},
            **self.beneath.options,
        )
        self._keep_precision(trained)
        self.compute_metrics = own["compute_metrics"]
        self.eval_dataset = evaluation
        if not self.beneath.own_batches:
            self.train_dataset = train
            self.data_collator = own["data_collator"]
        self._still = self.task.collator(base, training=False)
        if hasattr(self.data_collator, "begin_epoch"):
            self.add_callback(_Epochs(self.data_collator.begin_epoch, recipe.seed))
        self.add_callback(_Losses(self._take_up_losses))
        self.remove_callback(PrinterCallback)
        # A task's loss is a mean over the batch whatever arguments the model takes: without this, the Trainer would add
        # up those of accumulated batches instead of averaging them.
        self.model_accepts_loss_kwargs = False
        if not self.beneath.own_loss:
            self.loss_is_scaled_for_ga = False

    @classmethod
    def standing_on(cls, beneath: Beneath | None, *arguments: Any, **options: Any) -> RecipeTrainer:
        """One that stands on the trainer of a task: transformers' own for None. Arguments as for the class."""
        theirs = Trainer if beneath is None else beneath.trainer
        whole = cls if theirs is Trainer else type(f"Recipe{theirs.__name__}", (cls, theirs), {})
        made: RecipeTrainer = whole(*arguments, beneath=beneath, **options)
        return made

    def _theirs(self, examples: Sequence[Mapping[str, Any]] | None) -> Any:
        """Encoded examples as the trainer beneath takes them."""
        return examples if examples is None or self.beneath.examples is None else self.beneath.examples(examples)

    def _keep_precision(self, trained: Mapping[str, torch.Tensor]) -> None:
        """What trains stays as precise as it was made: TRL's trainers would have it in bf16 on quantised bases."""
        assert self.model is not None  # given at the start
        for name, parameter in self.model.named_parameters():
            if name in trained and parameter.dtype != trained[name].dtype:
                parameter.data = trained[name].to(parameter.device)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            settings = self.recipe.train
            assert self.model is not None  # given at the start
            adapter, head = split_parameters(self.model, self.head)
            groups: list[dict[str, Any]] = [
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
            rise = settings.warmup
            if rise * num_training_steps == 1:  # a rise of exactly one step: OneCycleLR would divide by zero
                rise *= 1 - 1e-9
            self.lr_scheduler = OneCycleLR(  # type: ignore[assignment]  # the Trainer takes any scheduler
                optimizer, max_lr=largest, total_steps=num_training_steps, pct_start=rise
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        examples: Any = self.train_dataset if train_dataset is None else train_dataset
        if not self.recipe.train.group_by_length or self.task.length(examples[0]) is None:  # all are of one length
            return super()._get_train_sampler(train_dataset)
        lengths = [self.task.length(example) or 0 for example in examples]
        size = self.args.train_batch_size * self.processes.count
        return SimilarLengths(lengths, size, self.recipe.seed, lambda: int(self.state.epoch or 0))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches in the order of one process; of several, each has its part of every batch."""
        if not self.processes.several or self.beneath.own_batches:
            return super().get_train_dataloader()
        examples: Any = self.train_dataset
        order = self._get_train_sampler() or SequentialSampler(examples)
        if isinstance(order, RandomSampler):
            order = Shuffled(len(examples), self.recipe.seed, lambda: int(self.state.epoch or 0))
        shares = Shares(order, self.recipe.train.batch_size, self.processes.rank, self.processes.count)
        collate = self.data_collator
        return DataLoader(
            Counted(examples),  # type: ignore[arg-type]  # any sequence is a data set
            batch_sampler=shares,
            collate_fn=lambda rows: collate(rows) | {_COUNTS: not any(isinstance(row, Uncounted) for row in rows)},
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        if self.processes.several:
            return self._turns(self.eval_dataset if eval_dataset is None else eval_dataset)
        with self._without_variation():
            return Trainer.get_eval_dataloader(self, eval_dataset)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int] | None:
        return SequentialSampler(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        if self.processes.several:
            return self._turns(test_dataset)
        with self._without_variation():
            return super().get_test_dataloader(test_dataset)

    def _turns(self, examples: Any) -> DataLoader[Any]:
        """Batches of examples to evaluate on, of which each of several processes has every so many."""
        turns = Turns(len(examples), self.recipe.train.eval_batch_size, self.processes.rank, self.processes.count)
        return DataLoader(examples, batch_sampler=turns, collate_fn=self._still)

    @contextmanager
    def _without_variation(self) -> Iterator[None]:
        """Batches as they are put together where nothing is learned from them."""
        before, self.data_collator = self.data_collator, self._still
        try:
            yield
        finally:
            self.data_collator = before

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, *_: Any, **__: Any
    ) -> Any:
        """The task's loss, or that of the trainer beneath; with the outputs as a dictionary where they are wanted.

        Of several processes each has a part of the batch. The processes' gradients are averaged, so what one process
        would have is the mean of their losses, each times its share of what the loss is a mean over.
        """
        counts = inputs.pop(_COUNTS, True)
        loss: Any
        if self.beneath.own_loss:
            loss, outputs = super().compute_loss(model, inputs), None
        else:
            loss, outputs = self.task.step(model, inputs)
        if self.processes.several and loss is not None and not self.beneath.own_batches:
            own = torch.tensor(float(self.task.weight(inputs)) if counts else 0.0, device=loss.device)
            loss = loss * (self.processes.count * own / self.processes.sum(own).clamp_min(1e-30))
        return (loss, {"outputs": outputs}) if return_outputs else loss

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, *_: Any, **__: Any
    ) -> tuple[Any, Any, Any]:
        """Loss, outputs and labels of a batch."""
        batch = Trainer._prepare_inputs(self, inputs)  # on the device, and nothing else
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.task.step(model, batch)
        loss = None if loss is None else loss.detach().mean()
        return (loss, None, None) if prediction_loss_only else (loss, nested_detach(outputs), batch.get("labels"))

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Train; resumed after what was the last step, load what it left and take no other."""
        if options.get("resume_from_checkpoint"):
            self.args.eval_on_start = False  # it was made before the first step
        try:
            return super().train(*arguments, **options)
        except _AllTaken:
            return None

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """Forward and backward, and a look at the loss and, before an update, at the norm of the gradient.

        In fp16 a gradient that is not finite is how the loss scale is found: the step is skipped.
        """
        if self.is_over():
            raise _AllTaken
        loss = super().training_step(*arguments, **options)
        loss = self.processes.mean(loss)
        measured = {"the training loss": loss}
        assert self.model is not None  # given at the start
        if self.sharded and self.accelerator.sync_gradients:
            average_gradients(self.model)
        if self.accelerator.sync_gradients and self.recipe.train.precision != "fp16":
            gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
            measured["the gradient's norm"] = torch.nn.utils.get_total_norm(gradients).to(loss.device)
        if not torch.stack([value.float() for value in measured.values()]).isfinite().all():
            what, value = next((what, float(value)) for what, value in measured.items() if not value.isfinite())
            if self._unproven and len(checkpoint_folders(self.folder)) > 1:
                self._remove(
                    self.folder / f"checkpoint-{self.state.global_step}"
                )  # it leads here, an older one is good
            raise Diverged(self._divergence(self.state.global_step + 1, f"{what} is {value}"))
        if self.recipe.train.precision == "fp16":
            self._skipped = self._skipped + 1 if self.accelerator.optimizer_step_was_skipped else 0
            if self._skipped > _SKIPPED * self.args.gradient_accumulation_steps:
                raise Diverged(self._divergence(self.state.global_step + 1, "no gradient is finite in fp16"))
        if self._unproven and self.accelerator.sync_gradients:
            self.rotate()
        return loss

    def is_over(self) -> bool:
        """Whether all steps were taken, or the evaluations so far end training."""
        return self.state.global_step >= self.state.max_steps or self.choosing.stopped

    def stopped_early(self) -> bool:
        """Whether the evaluations ended training before its last step."""
        return self.choosing.stopped and self.state.global_step < self.state.max_steps

    def best(self) -> Best | None:
        """The evaluation whose weights are kept, where the recipe asks for it; so far."""
        return best(self.state.log_history, self.recipe.chosen_by) if self.recipe.train.best_checkpoint else None

    def take_best(self) -> Best | None:
        """Put the weights of the best evaluation into the model, as resuming would; they stay trainable.

        Raises:
            UserError: their checkpoint is gone.
        """
        found = self.best()
        if found is not None and found.step != self.state.global_step:
            folder = self.folder / f"checkpoint-{found.step}"
            if folder not in checkpoint_folders(self.folder):
                raise UserError(
                    f"train.best_checkpoint: {folder}, the best of the run, is gone; restore it, or start anew with "
                    f"--overwrite"
                )
            self._load_from_checkpoint(str(folder))
        return found

    def rotate(self) -> None:
        """Remove all but the newest checkpoints, by their exact names, now that the newest is known to be good.

        The best so far stays where it is to be kept.
        """
        self._unproven = False
        if not self.processes.first:
            return
        found = self.best()
        before = [path for path in checkpoint_folders(self.folder) if checkpoint_step(path) <= self.state.global_step]
        for path in before[: -self.recipe.train.keep_checkpoints]:
            if found is None or checkpoint_step(path) != found.step:
                self._remove(path)

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        for key, value in logs.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise Diverged(self._divergence(self.state.global_step, f"{key} is {value}"))
        super().log(logs, *arguments, **options)

    def check_trained(self) -> None:
        """Raises `Diverged` when a trained number is not finite."""
        assert self.model is not None  # given at the start
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not parameter.isfinite().all():
                raise Diverged(self._divergence(self.state.global_step, f"numbers of {name} are not finite"))

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        """A checkpoint of finite numbers, whole or not at all. Older ones go when the next step is taken."""
        self.check_trained()
        folder = self.folder / f"checkpoint-{self.state.global_step}"
        kept: Any = self.state.stateful_callbacks
        kept[_UNLOGGED] = {"sum": float(self._tr_loss), "after": self._globalstep_last_logged}
        if self.base.prepared != self._prepared:
            kept[_PREPARED] = dict(self.base.prepared)
        if self.sharded and self.model is not None:
            give_back(self.model)
        try:
            # The first process writes the state, which makes it a checkpoint, when all others have written theirs.
            with self.processes.agreeing(), written(folder):
                if not self.processes.first:
                    self._save_rng_state(str(folder))
            with self.processes.agreeing(), written(folder):
                if self.processes.first:
                    super()._save_checkpoint(*arguments, **options)
        except NotWritten:
            self._remove(folder)
            raise
        self._unproven = True

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The weights of a checkpoint, and with them what the task's findings had become by then."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        state = TrainerState.load_from_json(str(Path(resume_from_checkpoint) / TRAINER_STATE_NAME))
        kept: Any = state.stateful_callbacks or {}
        self.task.restore(self.base, kept.get(_PREPARED, self._prepared))

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nothing: a run has a card of its own."""

    def _send_telemetry(self) -> None:
        """Nothing: TRL's trainers would tell their makers of each run."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.sharded:
            super()._save(output_dir, state_dict)
        elif output_dir is not None:
            save_adapter(self.model, output_dir)
            torch.save(self.args, Path(output_dir) / TRAINING_ARGS_NAME)

    def _move_model_to_device(self, model: torch.nn.Module, device: torch.device) -> None:
        if not self.sharded:  # else every part is where it belongs
            super()._move_model_to_device(model, device)

    def _take_up_losses(self) -> None:
        """Mean losses are over all steps since the one before, whether training was broken off in between or not."""
        kept: Any = self.state.stateful_callbacks or {}
        if unlogged := kept.get(_UNLOGGED):  # older checkpoints have none
            self._tr_loss = torch.full_like(self._tr_loss, unlogged["sum"])
            self._globalstep_last_logged = unlogged["after"]

    def store_flos(self) -> None:
        """Count without asking other processes, which are not here."""
        self.state.total_flos += self.current_flos
        self.current_flos = 0

    def _remove(self, checkpoint: Path) -> None:
        if self.processes.first:
            with suppress(OSError):  # no reason to stop training
                remove_checkpoint(checkpoint)

    def _divergence(self, step: int, what: str) -> str:
        """When, what, at which rates, and what to try."""
        train = self.recipe.train
        rates = [f"{group['lr']:.3g}" for group in self.optimizer.param_groups] if self.optimizer else []
        if self.state.global_step == 0:
            advice = "No number was updated yet: look for numbers that are not finite in the base model"
        else:
            usual = dict(zip(("learning_rate", "head_learning_rate"), self.recipe.method.rates(), strict=True))
            rates_now = {key: rate for key in usual if (rate := getattr(train, key)) is not None}
            lower = {key: usual[key] for key, rate in rates_now.items() if usual[key] < rate}
            lower = lower or {key: rate / 10 for key, rate in rates_now.items()}
            shown = " and ".join(f"train.{key}={rate:.1g}" for key, rate in lower.items())
            advice = f"Try lower rates, such as {shown}, or more train.warmup"
        if train.precision != "fp32":
            advice += f", or train.precision=fp32 in place of {train.precision}"
        return (
            f"step {step} of {self.state.max_steps}: {what} (learning rate {', head '.join(rates) or '–'}). {advice}."
        )

    def evaluation_loop(
        self, dataloader: DataLoader[Any], description: str, *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        """Outputs, scores and mean loss of all examples, in their order, whatever the sizes of batches.

        Of several processes each takes every so many batches, and all get everything.
        """
        assert self.model is not None  # given at the start
        if not self.accelerator._models:
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.model.eval()
        self.callback_handler.eval_dataloader = dataloader
        found = []
        for batch in dataloader:
            weight = self.task.weight(batch)
            loss, outputs, labels = self.prediction_step(self.model, batch, prediction_loss_only=False)
            found.append(
                (weight, *(None if part is None else nested_numpify(part) for part in (loss, outputs, labels)))
            )
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        examples: Any = dataloader.dataset
        batches = [batch for turn in zip(*self.processes.gather(found), strict=True) for batch in turn]
        if self.processes.several:  # what was begun from the front again comes last
            batches = batches[: -(-len(examples) // self.recipe.train.eval_batch_size)]
        weights, losses, outputs, labels = (list(column) for column in zip(*batches, strict=True))
        metrics: dict[str, float] = {}
        predictions, label_ids = joined(outputs), None if labels[0] is None else joined(labels)
        if losses[0] is not None:
            total = sum(weight * float(loss) for weight, loss in zip(weights, losses, strict=True))
            metrics[f"{metric_key_prefix}_loss"] = total / max(sum(weights), 1e-30)
        if label_ids is not None and self.compute_metrics is not None:
            scores = self.compute_metrics(EvalPrediction(predictions=predictions, label_ids=label_ids))
            metrics |= {f"{metric_key_prefix}_{key}": float(value) for key, value in scores.items()}
        return EvalLoopOutput(predictions, label_ids, metrics, len(examples))

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Evaluate without drawing on the random numbers of training: how often does not change the weights."""
        with torch.random.fork_rng():
            return Trainer.evaluate(self, *arguments, **options)

    def test(self, encoded: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """`test_loss` and `test_…` of every score on examples that training did not see.

        Raises:
            Diverged: an output is not finite.
        """
        with torch.random.fork_rng():
            outcome: Any = self.predict(encoded)  # type: ignore[arg-type]  # any sequence is a data set
        if not are_finite(outcome.predictions) or not are_finite(outcome.metrics["test_loss"]):
            raise Diverged(self._divergence(self.state.global_step, "an output on the test part is not finite"))
        return {
            key: outcome.metrics[key] for key in ("test_loss", *(f"test_{metric.key}" for metric in self.task.metrics))
        }


class OwnNumbers(TrainerCallback):
    """Of several processes each draws random numbers of its own (dropout, augmentation), by its rank."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self.processes.first:
            set_seed(args.seed + self.processes.rank)
