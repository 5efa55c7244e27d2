"""`structune train`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from structune.cli.arguments import Debug, Overrides, RecipeFile, path_of
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console
from structune.duration import duration
from structune.finetune.distributed.launch import first_rank
from structune.finetune.importing import without_remarks
from structune.finetune.tables import pairs, print_table


def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Do all but train: what it will take, and every warning; writes nothing.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Fine-tune a model as a recipe says.

    The run folder (**output**, by default runs/RECIPE-METHOD) gets the adapter with its model card, the metrics, the
    training curve and the log. Ctrl-C and SIGTERM save a checkpoint; **--resume** goes on from it. Several processes
    train one run: `torchrun --nproc_per_node N -m structune train RECIPE`.
    """
    with errors_as_lines(debug, several=True):
        from structune.finetune.recipe.recipe import Recipe
        from structune.finetune.run_folder.reported import CHOSEN_BY, TEST, reported
        from structune.finetune.stopping.resume import refuse_both

        refuse_both(resume, overwrite)
        recipe = path_of("RECIPE", recipe)
        settings = Recipe.load(recipe, overrides or [])

        with without_remarks():
            from structune.finetune import training
            from structune.finetune.trainer.shown import BEFORE

        if check:
            from structune.finetune.check import check as all_but_train

            _show_check(
                all_but_train(settings, resume=resume, overwrite=overwrite, console=console, recipe_file=recipe)
            )
            return
        run = training.train(settings, resume=resume, overwrite=overwrite, console=console, recipe_file=recipe)
        if not first_rank():
            return
        metrics = run.metrics()
        first, *others = settings.task.metrics
        part = reported(metrics)
        more = "".join(f"   {metric.title} {metric.text(part.score(metrics, metric))}" for metric in others)
        table = pairs()
        title = f"test {first.title}" if part is TEST else first.title
        table.add_row(title, f"[bold]{first.text(part.score(metrics, first))}[/]{more}")
        if blind := metrics[part.baseline]:
            table.add_row("", f"[dim]{escape(blind['words'])}: {first.text(blind['value'])}[/]")
        for metric in settings.task.shown_metrics:
            if metric.key in metrics:
                before = metrics.get(f"{metric.key}{BEFORE}")
                was = "" if before is None else f"   [dim]before training: {metric.text(before)}[/]"
                table.add_row(metric.title, f"{metric.text(metrics[metric.key])}{was}")
        table.add_row("adapter", f"{metrics['trainable_adapter']:,} numbers, {metrics['adapter_bytes'] / 1e3:,.1f} kB")
        table.add_row("time", f"{metrics['train_seconds']:.0f} s, {metrics['seconds_per_step']:.3f} s a step")
        table.add_row("memory", f"{metrics['peak_memory_bytes'] / 2**20:,.0f} MiB peak ({metrics['peak_memory_kind']})")
        table.add_row("saved in", escape(str(run.folder)))
        if part is not TEST:
            table.add_row("note", f"[dim]{escape(CHOSEN_BY)}[/]")
        print_table(console, table)


def _show_check(found: Any) -> None:
    """What a run takes (`structune.finetune.check.Check`)."""
    table = pairs()
    table.add_row("steps", f"{found.steps:,}, of {found.seconds_per_step:.3f} s each")
    table.add_row("evaluations", f"{found.evaluations:,}, of {found.seconds_per_evaluation:.1f} s each")
    table.add_row("time", f"[bold]about {duration(found.seconds)}[/]")
    table.add_row("memory", f"{found.memory_bytes / 2**20:,.0f} MiB peak ({found.memory_kind})")
    table.add_row("disk", f"about {found.disk_bytes / 1e6:,.1f} MB for checkpoints and the adapter")
    print_table(console, table)
    console.print(f"judged by {found.steps_taken} steps, which were thrown away; nothing was written", highlight=False)
