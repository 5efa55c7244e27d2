"""The command line: `structune train`, `evaluate`, `predict`, `merge`, `push` and so on, a function each.

Each command imports what it needs when it runs, so that help and errors in a recipe come at once.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer
from rich.console import Console
from rich.markup import escape

from structune import __version__
from structune.bench.folder import SUITES
from structune.duration import duration
from structune.errors import Interrupted, UserError
from structune.finetune.importing import without_remarks
from structune.finetune.launch import first_rank, launched_together, refuse_several_processes
from structune.finetune.shipped import described_recipes, recipe_names
from structune.finetune.signals import raised
from structune.finetune.tables import pairs, print_table, records

app = typer.Typer(
    name="structune",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune pretrained transformers with structured matrices: C3A, HyDRA and the rest of the family.",
    epilog="Start with:  `structune train movie-sentences`",
)
for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to fail
        _stream.reconfigure(errors="backslashreplace")
console = Console()
errors = Console(stderr=True)

RecipeFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        help=f"A YAML file, or one that comes with structune: {', '.join(recipe_names())}.",
        show_default=False,
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.", show_default=False)]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045  (typer reads this at run time, on Python 3.10 too)
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe, for example train.epochs=1."),
]
Device = Literal["auto", "cpu", "cuda"]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]


def _print_versions(asked: bool) -> None:
    if asked:
        own, *others = (f"{package} {number}" for package, number in _versions().items())
        console.print(f"{own}\n{', '.join(others)}", highlight=False, soft_wrap=True)
        raise typer.Exit


@app.callback()
def _app(
    version: Annotated[
        bool, typer.Option("--version", help="Show versions and exit.", callback=_print_versions, is_eager=True)
    ] = False,
) -> None:
    """Options that come before a command."""


@app.command()
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
    with _errors_as_lines(debug, several=True):
        from structune.finetune.recipe import Recipe
        from structune.finetune.reported import CHOSEN_BY, TEST, reported
        from structune.finetune.resume import refuse_both

        refuse_both(resume, overwrite)
        recipe = _path("RECIPE", recipe)
        settings = Recipe.load(recipe, overrides or [])

        with without_remarks():
            from structune.finetune import training
            from structune.finetune.shown import BEFORE

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


@app.command()
def recipe(
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[TASK]", help="A task by name; without one, tasks and recipes are listed."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON schema of recipes, for editors that complete and check YAML.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Print a recipe to begin with: every key of a task's recipe, with its default and what it means."""
    with _errors_as_lines(debug):
        from structune.finetune.starter import starter, summary
        from structune.tasks import registry

        if schema:
            import json

            from structune.finetune.schema import recipe_schema

            if task is not None:
                raise UserError(f"TASK {task!r} and --schema exclude each other: the schema is of all tasks")
            sys.stdout.write(json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n")
        elif task is not None:
            sys.stdout.write(starter(registry.get(task)))
        else:
            table = pairs()
            for name in registry.names():
                table.add_row(f"[bold]{escape(name)}[/]", escape(summary(registry.get(name))))
            print_table(console, table)
            console.print("\n`structune recipe TASK` prints a recipe of one. These come with structune:\n")
            shipped = pairs()
            for name, about in described_recipes().items():
                shipped.add_row(f"[bold]{escape(name)}[/]", escape(about))
            print_table(console, shipped)


@app.command()
def evaluate(
    run: RunFolder,
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A file with the same columns; the run's own examples by default.", show_default=False),
    ] = None,
    part: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="validation|test",
            help="Which of the run's own examples; the test part by default, where there is one.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Load a run's adapter into a fresh model and score it, class by class."""
    with _errors_as_lines(debug):
        with without_remarks():
            from structune.finetune import evaluate as evaluation

        result = evaluation.evaluate(_path("RUN", run), _path_if_given("--data", data), console, part)
        for title, rows in result.tables():
            print_table(console, records(title, rows))
        scores = "   ".join(f"{title} [bold]{text}[/]" for title, text in result.shown())
        console.print(
            f"{scores}   loss {result.loss:.4f}   on {result.examples:,} examples ({escape(result.source)})",
            highlight=False,
            soft_wrap=True,
        )
        if result.baseline:
            console.print(f"[dim]{escape(result.baseline)}[/]", highlight=False)
        for title, number in result.numbers():
            console.print(f"{escape(title)} {number:.3f}", highlight=False)
        if result.figures:
            console.print(f"drawn: {escape(', '.join(map(str, result.figures)))}", highlight=False, soft_wrap=True)


@app.command()
def predict(
    run: RunFolder,
    given: Annotated[
        str,
        typer.Argument(
            metavar="FILE|TEXT|-",
            help="A file with the run's columns, one text (or the path of an image), or - for lines or JSON Lines on "
            "standard input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Ends with .csv, .jsonl or .parquet; CSV on standard output by default."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file that is there.")] = False,
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="KEY=VALUE", help="Other columns than trained on: data.text=review."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Say what a run predicts, with probabilities, beside the columns that were given.

    Rows come and go in pieces, so there may be any number of them, and keep their order. A label column is not needed.
    """
    with _errors_as_lines(debug):
        with without_remarks():
            from structune.finetune import predict as prediction
            from structune.finetune.answers_file import CsvWriter

        source = prediction.Stream(sys.stdin.buffer) if given == "-" else given
        if out is not None:
            target = _path("--out", out)
            count = prediction.write_predictions(
                _path("RUN", run), source, target, overwrite=overwrite, overrides=overrides or (), console=console
            )
            console.print(
                f"{count:,} {'row' if count == 1 else 'rows'} in {escape(str(target))}", highlight=False, soft_wrap=True
            )
            return
        predictor = prediction.Predictor(_path("RUN", run), overrides or ())
        predictor.refuse_images()
        writer = CsvWriter(sys.stdout)
        if not predictor.is_line(source):
            predictor.write(source, writer, console=errors)
        elif len(rows := predictor(source)) > 1:
            writer.write(rows)
        else:
            table = pairs()
            for name, value in rows[0].items():
                table.add_row(escape(name), escape(f"{value:.4g}" if isinstance(value, float) else str(value)))
            print_table(console, table)


@app.command()
def chat(run: RunFolder, debug: Debug = False) -> None:
    """Talk to a run that answers instructions, in the terminal; of what is piped in, each line is said.

    **/new** begins a new conversation, Ctrl-D ends.
    """
    with _errors_as_lines(debug):
        with without_remarks():
            from structune.finetune.chat import Chat

        talk = Chat(_path("RUN", run))
        typed = sys.stdin.isatty()
        if typed:
            console.print("[dim]/new begins a new conversation, Ctrl-D ends[/]", highlight=False)
        while (line := _said(typed)) is not None:
            if line.strip() == "/new":
                talk.forget()
            elif line.strip():
                talk.say(line, _as_it_comes)
                _as_it_comes("\n")


def _said(typed: bool) -> str | None:
    """The next line; None at the end."""
    try:
        return input("> " if typed else "")
    except EOFError:
        return None


def _as_it_comes(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@app.command()
def merge(
    run: RunFolder,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the merged model.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Merge a run's adapter into its model: a plain transformers folder."""
    with _errors_as_lines(debug):
        with without_remarks():
            from structune.finetune import merge as merging

        out = _path("--out", out)
        difference = merging.merge(_path("RUN", run), out)
        console.print(
            f"merged into {escape(str(out))}; outputs differ from the unmerged by at most {difference:.1e} "
            f"of the largest",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def push(
    run: RunFolder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="On the hub: USER/MODEL.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be uploaded; needs no network.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository a private one.")] = False,
    debug: Debug = False,
) -> None:
    """Upload a run's adapter and its model card to the hub."""
    with _errors_as_lines(debug):
        with without_remarks():
            from structune.finetune import push as pushing

        upload = pushing.push(_path("RUN", run), name, private=private, dry_run=dry_run)
        for note in upload.notes:
            errors.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)
        if dry_run:
            table = pairs()
            for file, size in upload.files.items():
                table.add_row(file, f"{size:,} bytes")
            print_table(console, table)
            console.print(f"\n{escape(upload.card)}\n...", highlight=False, soft_wrap=True)
            console.print(f"\nnothing was uploaded; it would go to {escape(upload.name)}", highlight=False)
        else:
            console.print(f"uploaded to {escape(upload.url or upload.name)}", highlight=False, soft_wrap=True)


@app.command()
def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="RUN|ADAPTER", help="A run or an adapter folder.", show_default=False)
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Where to write the figure.", show_default=False),
    ] = None,
    base: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The base model, where it is not the one the adapter names.", show_default=False),
    ] = None,
    debug: Debug = False,
) -> None:
    """Show an adapter layer by layer: numbers, size on disk, spectrum and effective rank of each update."""
    with _errors_as_lines(debug):
        with without_remarks():
            from structune.study.inspect import inspect_path

        base = None if base is None else _expanded("--base", base)
        inspect_path(_path("RUN|ADAPTER", path), _path_if_given("--out", out), base, console)


@app.command()
def compare(
    recipe: RecipeFile,
    methods: Annotated[
        str, typer.Option(metavar="A,B,...", help="Methods by name, for example c3a,hydra-toeplitz,lora,head.")
    ] = "c3a,hydra-toeplitz,lora,head",
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Folder for the runs, the table and the figure.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="N,N,...", help="Train each method with each of these seeds.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep finished runs and go on.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the runs in the folder.")] = False,
    debug: Debug = False,
) -> None:
    """Run one recipe with several methods and put the results side by side."""
    with _errors_as_lines(debug):
        from structune.study.compare import compare as run_all

        run_all(
            _path("RECIPE", recipe), _listed(methods), _path_if_given("--out", out), overrides or [], resume,
            overwrite=overwrite, seeds=None if seeds is None else _numbers(seeds), console=console,
        )  # fmt: skip


@app.command()
def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="A YAML file.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="DIR", help="Folder of the results; results/NAME beside the file by default.", show_default=False
        ),
    ] = None,
    work: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Folder of runs and data; runs/NAME by default.", show_default=False),
    ] = None,
    only: Annotated[str, typer.Option(metavar="EXPRESSION", help="Only methods whose label has a match.")] = "",
    task: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="Only this task.", show_default=False),
    ] = None,
    first_seed: Annotated[bool, typer.Option("--first-seed", help="Leave out all seeds but the first.")] = False,
    jobs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            metavar="N",
            help="Runs at a time, each a process of its own; 1 by default, with --ray as many as there is room for.",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ADDRESS", help="Run on a Ray cluster: its address, auto, or local.", show_default=False),
    ] = None,
    gpus: Annotated[float, typer.Option(metavar="X", help="With --ray: GPUs of a run, or a share of one.")] = 0.0,
    hours: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(metavar="H", help="Stop after that time; the same command goes on.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run nothing: say what is left, its time, its cost.")
    ] = False,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="With --dry-run: time a few steps of what never ran here.")
    ] = True,
    price_per_hour: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(metavar="X", help="With --dry-run: what an hour of this machine costs.", show_default=False),
    ] = None,
    others: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--results", metavar="DIR", help="Results that count as well, such as another machine's."),
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Try the study in small, in minutes: random models, two steps. No result."),
    ] = False,
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs", help="Keep the folders of runs whose rate was not chosen.")
    ] = False,
    page: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="FILE",
            help="Run nothing: put the table into this page, and the figure into assets beside it.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Search each method's learning rate on several tasks, and score what is chosen.

    It can be stopped at any time; the same command goes on. Every run leaves one small file.
    """
    with _errors_as_lines(debug):
        from structune.study.engine import run_study
        from structune.study.results import Results
        from structune.study.study_file import Study

        path = _path("STUDY", file)
        plan = Study.load(path, overrides or [])
        if smoke:
            from structune.study.smoke import smoke as try_in_small

            try_in_small(plan, only=only, task=task, console=console)
            return
        results = Results(
            _path_if_given("--out", out) or path.parent / "results" / plan.name,
            [_path("--results", other) for other in others or []],
        )
        if page is not None:
            from structune.study.report.figures.study_figure import draw
            from structune.study.report.summary_table import put_into, table

            put_into(page, plan.name, table(plan, results))
            draw(plan, results, page.parent / "assets" / f"{plan.name}.png")
            return
        folder = _path_if_given("--work", work) or Path("runs") / plan.name
        run_study(
            plan, results, folder, only=only, task=task, first_seed_only=first_seed, jobs=jobs, ray=ray, gpus=gpus,
            hours=hours, keep_runs=keep_runs, dry_run=dry_run, timing=timing, price_per_hour=price_per_hour,
            console=console,
        )  # fmt: skip


app.command("sweep", hidden=True)(study)  # as it was called


@app.command()
def report(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="The study's YAML file.")],
    found: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            "--results",
            metavar="DIR",
            help="Folders of results, which are put together; results/NAME beside the file by default.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Folder of the report; runs/NAME-report by default.", show_default=False),
    ] = None,
    reference: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="LABEL", help="The method to beat; the first LoRA of the file by default.", show_default=False
        ),
    ] = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Make a page of a study's results: figures, tables, statistics, and what is missing.

    Nothing is run. **report.html** needs no network and no other file; the figures as PNG, the tables as Markdown and
    all runs as Parquet lie beside it.
    """
    with _errors_as_lines(debug):
        from structune.study.report.page import write_report
        from structune.study.results import Results
        from structune.study.study_file import Study

        path = _path("STUDY", file)
        plan = Study.load(path, overrides or [])
        folders = [_path("--results", folder) for folder in found or []] or [path.parent / "results" / plan.name]
        command = shlex.join(["structune", *sys.argv[1:]])
        target = _path_if_given("--out", out) or Path("runs") / f"{plan.name}-report"
        page = write_report(plan, Results(folders[0], folders[1:]), target, command, reference)
        console.print(str(page), highlight=False, soft_wrap=True, markup=False)


@app.command()
def bench(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help=f"{', '.join(SUITES)}, or a YAML file.",
        ),
    ] = "layer",
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="The suite calibrate: every algorithm, and what auto takes.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and few rounds: does it run?")] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Where results go; benchmarks/results by default.", show_default=False),
    ] = None,
    cases: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TEXT", help="Only cases with this text in their name.", show_default=False),
    ] = None,
    methods: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="A,B,...", help="Only these methods, and the frozen layer.", show_default=False),
    ] = None,
    rounds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(metavar="N", help="How often each method is timed.", show_default=False),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to measure.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget a run that was stopped.")] = False,
    docs: Annotated[
        bool, typer.Option("--docs", help="Measure nothing: write docs/benchmarks.md and its figures from the results.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Measure what methods cost side by side: time, memory, growth.

    Every method of a case runs in one process, once a round in random order. Finished cases are kept: after Ctrl-C,
    **--resume** goes on.
    """
    with _errors_as_lines(debug):
        if docs:
            from structune.bench.page import write_page

            for path in write_page():
                console.print(f"wrote {escape(str(path))}", highlight=False)
            return
        with without_remarks():
            from structune.bench.run import bench as measure

        measure(
            "calibrate" if calibrate else _expanded("SUITE", suite),
            quick=quick,
            out=_path_if_given("--out", out),
            cases=cases,
            methods=_listed(methods or ""),
            rounds=rounds,
            device=device,
            resume=resume,
            overwrite=overwrite,
            console=console,
        )


@app.command()
def version() -> None:
    """Show the version of structune and of what it stands on."""
    table = pairs()
    for package, number in _versions().items():
        table.add_row(package, number)
    print_table(console, table)


def main() -> None:
    """Entry point of `python -m structune.cli`."""
    app()


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


def _expanded(argument: str, given: str) -> str:
    """What is meant: a shell leaves `~` alone in `--out=~/x`, and everything in quotes."""
    from structune.paths import expand

    try:
        return expand(given)
    except UserError as error:
        raise UserError(f"{argument} {given!r}: {error}") from None


def _path(argument: str, given: Path) -> Path:
    return Path(_expanded(argument, str(given)))


def _path_if_given(argument: str, given: Path | None) -> Path | None:
    return None if given is None else _path(argument, given)


def _versions() -> dict[str, str]:
    """Of structune and of what it stands on, as installed: nothing is imported."""
    versions = {"structune": __version__}
    for package in ("torch", "peft", "transformers"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds {text!r}: give whole numbers, for example 0,1,2") from None


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@contextmanager
def _errors_as_lines(debug: bool, several: bool = False) -> Iterator[None]:
    """Errors as one clear red line; of several processes of one launch the first tells it.

    Exit codes: 2 for a mistake the user can fix, 3 for numbers that ran away, 128 + the signal's number for Ctrl-C
    (130), SIGTERM (143) and SIGHUP (129), 1 for the rest.

    Args:
        debug: whether tracebacks are shown.
        several: whether the command runs in several processes.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not debug:
        warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries about each other
    _show_doubts()
    try:
        with raised():
            launched_together() if several else refuse_several_processes()
            yield
    except Interrupted as stop:
        if first_rank():
            errors.print(f"[yellow]{escape(str(stop))}[/]", soft_wrap=True, highlight=False)
        sys.exit(128 + stop.number)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt as stop:
        if first_rank():
            errors.print("[yellow]stopped[/]")
        sys.exit(128 + getattr(stop, "number", signal.SIGINT))
    except Exception as error:
        if debug:
            raise
        if first_rank():
            _print_error(error)
        sys.exit(getattr(error, "exit_code", 2 if isinstance(error, ModuleNotFoundError) else 1))


def _show_doubts() -> None:
    """Let `DataWarning` appear as one yellow line; other warnings as before."""
    from structune.doubt import DataWarning

    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, DataWarning):
            if not first_rank():
                return
            errors.print(f"[yellow]warning:[/] {escape(str(message))}", soft_wrap=True, highlight=False)
        else:
            before(message, category, *place, **more)

    warnings.simplefilter("always", DataWarning)
    warnings.showwarning = show


def _print_error(error: Exception) -> None:
    if isinstance(error, UserError):
        message = escape(str(error))
    elif isinstance(error, ModuleNotFoundError):
        message = escape(f"{error.name} is not installed. Run `pip install 'structune[train]'`.")
    else:
        message = f"{escape(f'{type(error).__name__}: {error}')} [dim](--debug shows where)[/]"
    errors.print(f"[red]error:[/] {message}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
