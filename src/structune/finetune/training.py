"""The main job: a recipe in, a run folder out."""

from __future__ import annotations

import errno
import shutil
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import peft
import safetensors.torch
import torch
from rich.console import Console
from rich.markup import escape
from torch import nn

from structune.doubt import DataWarning, say
from structune.errors import Diverged, Interrupted, UserError
from structune.files import NotWritten, new_folder, write_json, write_text, written
from structune.finetune.adapters import (
    WEIGHTS_FILE,
    apply_method,
    check_method,
    in_head,
    save_trained,
    split_parameters,
)
from structune.finetune.distributed.processes import Processes
from structune.finetune.distributed.sharding import Sharding
from structune.finetune.outputs import shortest_first
from structune.finetune.recipe.recipe import Recipe, ResolvedRecipe
from structune.finetune.run_folder.card import model_card
from structune.finetune.run_folder.checkpoint import checkpoint_processes
from structune.finetune.run_folder.fingerprint import Fingerprint
from structune.finetune.run_folder.place import check_writable
from structune.finetune.run_folder.run import Run
from structune.finetune.stopping.interrupt import StopOnInterrupt
from structune.finetune.stopping.resume import refuse_both
from structune.finetune.task_data import TaskData, load_data
from structune.finetune.trainer.arguments import check_settings, device_of
from structune.finetune.trainer.choosing import Best
from structune.finetune.trainer.curve import draw_curve
from structune.finetune.trainer.meters import MemoryMeter, StepClock
from structune.finetune.trainer.progress import LogFile, ProgressBar
from structune.finetune.trainer.shown import Shown
from structune.finetune.trainer.trainer import OwnNumbers, RecipeTrainer
from structune.quiet import quiet
from structune.tasks.parts.pretrained import hub_name
from structune.tasks.parts.weights import check_weights
from structune.tasks.task import Base

_OF_THE_DISK = {
    getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE")
} - {None}


def train(
    recipe: Recipe,
    *,
    resume: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
    recipe_file: Path | None = None,
    noted: Mapping[str, Any] | None = None,
) -> Run:
    """Fine-tune as the recipe says and return the finished run.

    The run folder holds `run.json` (that it is one), `recipe.yaml` (resolved), `versions.json`, `data.json`
    (what the data were), `prepared.json` (what the task found out before, if anything), `log.jsonl`, `curve.png`,
    `adapter/`, `checkpoints/` and, written last, `metrics.json`. Everything is checked before the folder is touched,
    and one process at a time writes there. Started by torchrun or accelerate launch, all processes of the launch train
    one run: each has its part of every batch, and the first speaks and writes.

    Args:
        recipe: what to do; its open choices are filled in by `Recipe.resolved`.
        resume: go on from the last checkpoint of an unfinished run of the same recipe, on the same data.
        overwrite: replace the run that is in the output folder. What else is in there stays.
        console: where progress is shown; nowhere by default.
        recipe_file: where the recipe was read; the output folder may not hold it.
        noted: what `Run.noted` says of the folder from now on.

    Raises:
        UserError: the recipe, the data, the model or the output folder does not work, and nothing was written; or the
            disk failed on the way.
        Diverged: numbers ran away; nothing was saved since the last checkpoint.
        Interrupted: a signal such as Ctrl-C asked for the end; a checkpoint was saved.
    """
    ready = make_ready(recipe, resume=resume, overwrite=overwrite, console=console, recipe_file=recipe_file)
    run, processes = ready.run, ready.processes
    with StopOnInterrupt(processes) as stop, _explaining_disk_errors(run), ExitStack() as stack:
        with processes.agreeing():
            if processes.first:
                stack.enter_context(run.lock())
                run.check_free(resume, overwrite)  # another process may have been quicker
                known = not resume or run.data_file.is_file()
                run.begin(ready.settings, resume, ready.fingerprint if known else None, ready.prepared, noted)
        _carry_out(ready, resume, stop)
    return run


class Ready(NamedTuple):
    """A run that may begin: everything was checked and made, and nothing written."""

    run: Run
    settings: ResolvedRecipe
    data: TaskData
    fingerprint: Fingerprint
    prepared: Mapping[str, Any]
    base: Base
    model: nn.Module
    encoded: Encoded
    processes: Processes
    console: Console


def make_ready(
    recipe: Recipe, *, resume: bool, overwrite: bool, console: Console | None, recipe_file: Path | None
) -> Ready:
    """Check all that can be, and make what training needs; see `train` for the arguments. What is doubtful is told.

    Raises:
        UserError: the recipe, the data, the model or the output folder does not work.
    """
    refuse_both(resume, overwrite)
    settings = recipe.resolved()
    processes = Processes.joined(cpu=settings.train.device == "cpu")
    sharding = Sharding.asked() if processes.several else None
    if sharding is not None:
        sharding.check(settings)
    console = console if console and processes.first else Console(quiet=True)
    run = Run(Path(settings.output))
    passed_over = processes.shared(lambda: _check_folder(run, settings, resume, overwrite, recipe_file))
    loaded = processes.in_turn(lambda: _load(run, settings, resume, processes))
    task, data, base = settings.task, loaded.data, loaded.base
    device = device_of(settings, run.checkpoints)
    whole_model_on = device if sharding is None else "cpu"
    prepared = processes.shared(
        lambda: (
            (run.prepared() if resume else {})
            or task.prepare(base, loaded.encoded.train, settings.data, whole_model_on)
        )
    )
    base = task.equip(base, prepared)
    with processes.agreeing():
        model = apply_method(base, settings.method, task)
    if processes.first:
        say(settings.method.doubts(model, settings.train.learning_rate))
    notes = processes.shared(lambda: [*passed_over, *loaded.notes, *(_notes(run, processes) if resume else [])])
    processes.shared(lambda: check_writable(run.folder, run.where, bytes_needed(model, settings)))
    _announce(console, settings, data, model, base)
    for note in notes:
        console.print(f"[yellow]{escape(note)}[/]", soft_wrap=True, highlight=False)
    if sharding is not None:
        with processes.agreeing():
            sharding.shard(model, base, device)
    return Ready(run, settings, data, loaded.fingerprint, prepared, base, model, loaded.encoded, processes, console)


class _Loaded(NamedTuple):
    """What every process makes for itself, and what the first has to say of it to whoever resumes."""

    data: TaskData
    fingerprint: Fingerprint
    notes: list[str]
    base: Base
    encoded: Encoded


def _check_folder(
    run: Run, settings: ResolvedRecipe, resume: bool, overwrite: bool, recipe_file: Path | None
) -> list[str]:
    """Which checkpoints are passed over. Raises `UserError` unless the run may begin, or go on, in its folder."""
    passed_over = []
    if not resume:
        run.check_place(settings, recipe_file)
    run.check_free(resume, overwrite)
    if resume:
        run.check_same(settings)
        passed_over = run.check_checkpoints()
    check_writable(run.folder, run.where)
    run.refuse_locked()
    return passed_over


def _load(run: Run, settings: ResolvedRecipe, resume: bool, processes: Processes) -> _Loaded:
    """The data, the model and the encoded examples; what is doubtful about them is told once."""
    check_settings(settings, run.checkpoints, processes.count)
    check_method(settings.method)
    task = settings.task
    with warnings.catch_warnings():
        if not processes.first:
            warnings.simplefilter("ignore", DataWarning)
        data = load_data(task, settings.data)
        task.check_training(settings.train, len(data.train), processes.count)
        fingerprint = Fingerprint.of(data)
        unchecked = run.check_data(fingerprint) if resume and processes.first else None
        base = task.load(settings.model, data.targets, settings.seed)
        check_weights(base.model, settings.model, task.name)
        say(task.doubts_about_encoding(data.parts(), base, settings.data))
    train, *others = [
        shortest_first(task, task.encode(part, base, data.targets, settings.data)) for part in data.parts()
    ]
    if settings.train.gradient_checkpointing and not hasattr(base.model, "gradient_checkpointing_enable"):
        raise UserError(
            f"train.gradient_checkpointing: {type(base.model).__name__} cannot compute its layers again; leave it out"
        )
    encoded = Encoded(task.pack(train, base, settings.data), *others)
    return _Loaded(data, fingerprint, [unchecked] if unchecked else [], base, encoded)


def _notes(run: Run, processes: Processes) -> list[str]:
    """What whoever resumes should know of how the run stopped."""
    notes = []
    last = run.last_checkpoint()
    if last is not None and (before := checkpoint_processes(last)) != processes.count:
        notes.append(
            f"{last}: was saved by {before} {'process' if before == 1 else 'processes'}, and goes on in "
            f"{processes.count}: batches are the same, dropout draws other numbers than if it had not stopped"
        )
    if divergence := run.divergence():
        notes.append(
            f"This run stopped before: {divergence} A resumed run keeps its recipe, so it will most likely stop there "
            f"again; for other rates train anew with --set and --overwrite."
        )
    return notes


def _carry_out(ready: Ready, resume: bool, stop: StopOnInterrupt) -> None:
    """Train and write the results into a folder that is begun."""
    run, recipe, processes, console = ready.run, ready.settings, ready.processes, ready.console
    base, encoded = ready.base, ready.encoded
    clock, bar = StepClock(), ProgressBar(console, recipe.method.label, recipe.task.metrics[0])
    shown = Shown(recipe.task, base, ready.data.targets, run.folder, processes)
    with quiet(), bar.shown():
        trainer = RecipeTrainer.standing_on(
            recipe.task.trainer(base, recipe.data),
            ready.model,
            base,
            recipe,
            ready.data.targets,
            run.checkpoints,
            encoded.train,
            encoded.evaluation,
            [
                clock,
                LogFile(run.log_file),
                bar,
                stop,
                OwnNumbers(processes),
                shown,
                *recipe.task.callbacks(base),
                *recipe.method.callbacks(ready.model),
            ],
            processes,
        )
        shown.log = trainer.log
        checkpoint = processes.shared(lambda: run.last_checkpoint() if resume else None)
        if resume:
            console.print(f"resuming from {checkpoint}" if checkpoint else "no checkpoint yet: starting from step 0")
        try:
            with MemoryMeter(cuda=trainer.args.device.type == "cuda") as memory:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            if not trainer.is_over():
                raise Interrupted(trainer.state.global_step, run.resume_line(), stop.number or signal.SIGINT)
            evaluation = _last_evaluation(trainer)
            chosen = trainer.take_best()
            trainer.check_trained()
            trainer.rotate()
            tested = {} if encoded.test is None else trainer.test(encoded.test)
            made = shown.last(ready.model, trainer.state)
        except Diverged as error:
            if not processes.first:
                raise
            run.note_divergence(str(error))
            kept = run.last_checkpoint()
            raise Diverged(
                f"{error} No adapter was saved; "
                + (f"the last good checkpoint is {kept}" if kept else "there was no checkpoint yet")
            ) from None

    evaluation, choice = _tell_choice(trainer, evaluation, chosen, console)
    with processes.agreeing():
        if processes.first:
            _write_results(ready, trainer, evaluation | tested, {**choice, **made}, chosen, clock, memory)


def _write_results(
    ready: Ready,
    trainer: RecipeTrainer,
    evaluation: Mapping[str, float],
    choice: Mapping[str, Any],
    chosen: Best | None,
    clock: StepClock,
    memory: MemoryMeter,
) -> None:
    """The adapter with its card, the curve and, last, the metrics."""
    run, recipe, data, base, model = ready.run, ready.settings, ready.data, ready.base, ready.model
    with written(run.adapter), new_folder(run.adapter) as folder:
        save_trained(model, folder, hub_name(recipe.model))
        if base.prepared:
            write_json(folder / run.prepared_file.name, base.prepared)
        adapter, head = split_parameters(model, base.head)
        metrics = {
            "method": recipe.method.label,
            "eval_loss": evaluation["eval_loss"],
            **{f"eval_{metric.key}": evaluation[f"eval_{metric.key}"] for metric in recipe.task.metrics},
            **{key: value for key, value in evaluation.items() if key.startswith("test_")},
            "train_loss": _mean_loss(trainer.state.log_history),
            "steps": trainer.state.global_step,
            **choice,
            "train_examples": len(data.train),
            "eval_examples": len(data.evaluation),
            **({} if data.test is None else {"test_examples": len(data.test)}),
            "baseline": recipe.task.baseline(data.evaluation),
            **({} if data.test is None else {"test_baseline": recipe.task.baseline(data.test)}),
            "targets": data.targets,
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
            "processes": trainer.processes.count,
        }
        write_text(folder / "README.md", model_card(recipe, metrics, data.targets, base))
    title = f"{recipe.name}: {recipe.method.label}"
    draw_curve(trainer.state.log_history, recipe.task.metrics[0], title, run.curve_file, chosen and chosen.step)
    write_json(run.metrics_file, metrics)


def bytes_needed(model: nn.Module, recipe: ResolvedRecipe) -> int:
    """About what checkpoints and the adapter take: each checkpoint two moments of what trains, and what is saved.

    PEFT saves what it trains; of the other methods a checkpoint holds the whole model.
    """
    sizes = [
        (parameter.numel() * parameter.element_size(), parameter.requires_grad) for parameter in model.parameters()
    ]
    trained = sum(size for size, trains in sizes if trains)
    saved = trained if isinstance(model, peft.PeftModel) else sum(size for size, _ in sizes)
    kept = recipe.train.keep_checkpoints + 1 + recipe.train.best_checkpoint
    return kept * (2 * trained + saved) + trained + 2**20


@contextmanager
def _explaining_disk_errors(run: Run) -> Iterator[None]:
    """Errors of the file system as what is left of the run, and how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        raise UserError(_broken_off(run, f"{error.filename or run.folder}: {error.strerror}")) from error
    except NotWritten as error:
        raise UserError(_broken_off(run, str(error))) from error


def _broken_off(run: Run, reason: str) -> str:
    if not run.is_run():
        return f"{run.where}: cannot be written ({reason})"
    free = f"{shutil.disk_usage(run.folder).free / 1e6:,.1f} MB are left on its disk"
    kept = run.last_checkpoint()
    return f"{reason}. {free}; the run is whole up to {kept or 'step 0'}: make room, then {run.resume_line()}"


class Encoded(NamedTuple):
    """Encoded examples: to train on, held out to choose by, and held out for the score that is reported."""

    train: Sequence[Mapping[str, Any]]
    evaluation: Sequence[Mapping[str, Any]]
    test: Sequence[Mapping[str, Any]] | None = None


def _announce(console: Console, recipe: ResolvedRecipe, data: TaskData, model: nn.Module, base: Base) -> None:
    adapter, head = split_parameters(model, base.head)
    counts = [sum(parameter.numel() for parameter in part.values()) for part in (adapter, head)]
    rates = [f"learning rate {recipe.train.learning_rate:g}"] if adapter else []
    rates += [f"{'' if adapter else 'learning rate '}head {recipe.train.head_learning_rate:g}"] if head else []
    about = recipe.task.about(data.targets)
    tested = "" if data.test is None else f" to choose by, {len(data.test):,} to test on"
    console.print(
        f"[bold]{recipe.method.label}[/] on {escape(recipe.model.name)}: {counts[0]:,} trained numbers"
        f"{f', and {counts[1]:,} in the head' if head else ''}\n"
        f"  {len(data.train):,} examples to train on, {len(data.evaluation):,} held out{tested}"
        f"{f', {escape(about)}' if about else ''}\n"
        f"  {', '.join(rates)}",
        highlight=False,
    )


def _last_evaluation(trainer: RecipeTrainer) -> dict[str, float]:
    """The evaluation of the final weights: the one made at the last step, or a new one."""
    made = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    if made and made[-1]["step"] == trainer.state.global_step:
        return made[-1]
    return trainer.evaluate()


def _tell_choice(
    trainer: RecipeTrainer, last: dict[str, float], chosen: Best | None, console: Console
) -> tuple[dict[str, float], dict[str, Any]]:
    """The evaluation of the weights that are kept, and what `metrics.json` and the log say of the choice."""
    metric, train = trainer.recipe.chosen_by, trainer.recipe.train
    choice: dict[str, Any] = {}
    if train.early_stopping is not None:
        choice["stopped_early"] = trainer.stopped_early()
    if trainer.stopped_early() and train.early_stopping is not None:
        gain = f" by more than {train.early_stopping.minimum_gain:g}" if train.early_stopping.minimum_gain else ""
        console.print(
            f"  stopped early after step {trainer.state.global_step}: {metric.title} did not get better{gain} in "
            f"{train.early_stopping.patience} evaluations",
            highlight=False,
        )
    if chosen is not None:
        choice["best_step"] = chosen.step
        last = next(entry for entry in trainer.state.log_history if Best.of(entry, metric) == chosen)
        console.print(
            f"  kept the weights of step {chosen.step}: {metric.title} {metric.text(chosen.value)}", highlight=False
        )
    if choice:
        trainer.log(choice)
    return last, choice


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
