"""What a finished run says about rows without labels, any number of them, in the order in which they come."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from structune.data.examples import Examples
from structune.data.pieces import ENDINGS, cut, file_pieces, is_data_file, line_pieces
from structune.data.section import TO_PREDICT
from structune.data.table import Table
from structune.doubt import say
from structune.errors import UserError
from structune.finetune.adapters import WEIGHTS_FILE
from structune.finetune.answers.answers_file import Writer, answers_file, check_answers_file
from structune.finetune.answers.image_folder import ImageFolder, image_folder
from structune.finetune.evaluate import load_run
from structune.finetune.outputs import by_length
from structune.finetune.recipe.recipe import ResolvedRecipe
from structune.finetune.run_folder.run import Run
from structune.finetune.trainer.trainer import RecipeTrainer
from structune.quiet import quiet
from structune.tasks.task import Outputs, Task

ROWS = 512
"""Rows that are in memory at a time."""

Row = dict[str, Any]


class Stream(NamedTuple):
    """Lines, or JSON Lines, that come one after the other, and what to call where they come from."""

    lines: IO[bytes]
    name: str = "standard input"


Given = str | Path | Sequence[str] | Sequence[Mapping[str, Any]] | Stream


class Predictor:
    """A finished run, loaded once to answer as often as it is asked.

    Args:
        folder: the run, or its adapter.
        overrides: other columns than the run was trained on, such as `data.text=review`.

    Raises:
        UserError: no finished run is there, its base model or adapter cannot be loaded, or an override is none of data.
    """

    def __init__(self, folder: str | Path, overrides: Sequence[str] = ()) -> None:
        run = Run.finished(run_of(folder))
        if other := [override for override in overrides if not override.strip().startswith("data.")]:
            raise UserError(f"--set {other[0]!r}: what is not in data, such as data.text, is what was trained")
        self.data = ResolvedRecipe.load(run.recipe_file, overrides).data
        self.loaded = load_run(run.folder)
        self.task: Task = self.loaded.recipe.task
        self._told_of_cuts = False

    def __call__(self, given: Given, rows: int = ROWS) -> list[Row]:
        """The answers to all rows, each with the columns that it has.

        Args:
            given: a file or a text as on the command line; several texts (where the task reads files, paths); or rows
                as mappings with the columns that the run reads.
            rows: how many are worked on at a time.

        Raises:
            UserError: they do not work.
        """
        return [row for piece in self.rows(self.tables(given, rows)) for row in piece]

    def write(
        self,
        given: Given,
        writer: Writer,
        rows: int = ROWS,
        console: Console | None = None,
        images: ImageFolder | None = None,
    ) -> int:
        """Write the answers as they come, and return how many there are.

        Args:
            given: see `Predictor`, as `rows`.
            writer: of the answers.
            rows: how many are worked on at a time.
            console: where progress is shown; nowhere by default.
            images: where the images among the answers go.

        Raises:
            UserError: the rows do not work, or answers are images and there is no place for them.
        """
        if images is None:
            self.refuse_images()
        count = 0
        columns = (TextColumn("predicting"), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
        hidden = console is None or not console.is_terminal
        with Progress(*columns, console=console, disable=hidden, transient=True) as bar:
            shown = bar.add_task("rows", total=None)
            for piece in self.rows(self.tables(given, rows)):
                writer.write(piece if images is None else [images.put(row) for row in piece])
                count += len(piece)
                bar.update(shown, completed=count)
        return count

    def refuse_images(self) -> None:
        """Raises `UserError` where the answers are images, which no table holds."""
        if self.task.makes_images:
            raise UserError(
                f"task {self.task.name}: answers with images, which are files; give --out FILE: with --out "
                f"images.csv they go into the folder images beside it"
            )

    def is_line(self, given: Given) -> bool:
        """Whether one text, or one file that is an example, is given."""
        is_file = is_data_file(str(given), self.data) or (os.path.exists(str(given)) and not self.task.reads_files)
        return isinstance(given, str) and not is_file and not os.path.isdir(given)

    def tables(self, given: Given, rows: int) -> Iterator[Table]:
        """What is given as tables of at most so many rows.

        Raises:
            UserError: there is no such file, or it is of no kind that is read.
        """
        task, data = self.task, self.data
        if isinstance(given, Stream):
            yield from line_pieces(given.lines, given.name, rows, lambda lines: task.from_lines(lines, data))
        elif not isinstance(given, (str, Path)):
            yield from cut(self._table_of(given), rows)
        elif is_data_file(str(given), data):
            yield from file_pieces(str(given), data, rows)
        elif not task.reads_files and (isinstance(given, Path) or os.path.exists(given)):
            own: Table | None = data.read(str(given), TO_PREDICT)
            if own is not None:
                yield from cut(own, rows)
                return
            raise UserError(
                f"{str(given)!r}: no file of a kind that is read ({', '.join(ENDINGS)}); if each of its lines is an "
                f"example, give these: `structune predict RUN - < {given}`"
            )
        else:
            yield from cut(task.from_lines([str(given)], data), rows)

    def rows(self, tables: Iterable[Table]) -> Iterator[list[Row]]:
        """The rows of each table: its columns, and what the run says.

        Raises:
            UserError: a table is not what the task reads, has a column of the name of an answer, or the outputs on it
                are no numbers.
        """
        loaded = self.loaded
        with tempfile.TemporaryDirectory() as scratch, quiet():
            trainer = RecipeTrainer(loaded.model, loaded.base, loaded.recipe, loaded.targets, Path(scratch))
            for table in tables:
                examples = self.task.inputs(table, self.data)
                made = self._made(examples, trainer)
                if made is None:
                    yield self._answered(table, examples, trainer)
                else:
                    for row, answer in enumerate(made):
                        yield self._beside(table, [answer], first=row)

    def _made(self, examples: Examples, trainer: RecipeTrainer) -> Iterator[dict[str, Any]] | None:
        """What the task makes step by step, one answer after the other; None where outputs are answers."""
        model = trainer.model
        assert model is not None  # given at the start
        with torch.no_grad():
            made = self.task.respond(model.eval(), self.loaded.base, examples, self.loaded.targets, self.data)
        return None if made is None else _without_gradients(made)

    def _answered(self, table: Table, examples: Examples, trainer: RecipeTrainer) -> list[Row]:
        task, targets = self.task, self.loaded.targets
        if not self._told_of_cuts:
            doubts = list(task.doubts_about_encoding([examples], self.loaded.base, self.data))
            self._told_of_cuts = bool(doubts)
            say(doubts)
        encoded = task.encode(examples, self.loaded.base, targets, self.data)
        order = by_length(task, encoded)
        sorted_ones: Any = encoded if order is None else [encoded[row] for row in order]
        outputs = trainer.predict(sorted_ones).predictions
        self.loaded.check_outputs(outputs, table.source)
        return self._beside(
            table, task.answers_about(examples, outputs if order is None else _back(outputs, order), targets)
        )

    def _beside(self, table: Table, answers: Sequence[Mapping[str, Any]], first: int = 0) -> list[Row]:
        """The rows of the table from that one on, each with its answer."""
        if taken := [name for name in table.columns if answers and name in answers[0]]:
            raise UserError(
                f"{table.source}: has a column {taken[0]!r}, which is the name of an answer; rename the column, or "
                f"leave it out"
            )
        return [
            {name: cells[row] for name, cells in table.columns.items()}
            | {name: _short(value) for name, value in answer.items()}
            for row, answer in enumerate(answers, first)
        ]

    def _table_of(self, given: Sequence[Any]) -> Table:
        if not given:
            raise UserError("nothing to predict on: no rows are given")
        if all(isinstance(row, str) for row in given):
            return self.task.from_lines(given, self.data)
        names = list(given[0]) if isinstance(given[0], Mapping) else []
        wrong = [row for row in given if not isinstance(row, Mapping) or row.keys() != set(names)]
        if wrong:
            raise UserError(
                f"row {list(given).index(wrong[0]) + 1} of what is given is no mapping with the keys {names}"
            )
        columns = {name: [row[name] for row in given] for name in names}
        return Table("what is given", columns, list(range(1, len(given) + 1)), unit="row")


def run_of(folder: str | Path) -> Path:
    """The run that a folder is, or whose adapter it is.

    Raises:
        UserError: it is an adapter of no run: what there is to predict with is missing.
    """
    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file() and not (folder / WEIGHTS_FILE).is_file():
        return folder
    run = Run(folder.absolute().parent)
    if run.adapter == folder.absolute() and run.state() == "finished":
        return run.folder
    raise UserError(
        f"{str(folder)!r}: an adapter without its run. Beside it are missing recipe.yaml (which task, model and "
        f"columns) and metrics.json (what the outputs mean, such as the names of the classes). Name the folder of the "
        f"run; or load the adapter in Python, as its README.md shows."
    )


def predict(folder: str | Path, given: Given, rows: int = ROWS) -> list[Row]:
    """`Predictor(folder)(given)`."""
    return Predictor(folder)(given, rows)


def write_predictions(
    folder: str | Path,
    given: Given,
    out: Path,
    *,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> int:
    """Write what a finished run says about some rows to a file, and return how many there are.

    Memory does not grow with the number of rows. The file is there at the end, whole, and not after an error. Images
    among the answers are PNG files in a folder named as the file is, without its ending.

    Args:
        folder: the run.
        given: see `Predictor`.
        out: a file that ends with .csv, .jsonl or .parquet.
        overwrite: whether one that is there is replaced.
        overrides: see `Predictor`.
        console: where progress is shown; nowhere by default.

    Raises:
        UserError: the run, the rows or the file do not work.
    """
    check_answers_file(out, overwrite)
    predictor = Predictor(folder, overrides)
    with ExitStack() as stack:  # the table last: what it names is there
        writer = stack.enter_context(answers_file(out))
        images = stack.enter_context(image_folder(out, overwrite)) if predictor.task.makes_images else None
        return predictor.write(given, writer, console=console, images=images)


def _without_gradients(made: Iterator[Row]) -> Iterator[Row]:
    """What is made when it is asked for, without gradients there: a generator leaves the mode of who asks alone."""
    while True:
        with torch.no_grad():
            answer = next(made, None)
        if answer is None:
            return
        yield answer


def _back(outputs: Outputs, order: Sequence[int]) -> Outputs:
    """Outputs that came in this order, in the order of the rows."""
    if isinstance(outputs, (tuple, list)):
        return type(outputs)(_back(each, order) for each in outputs)
    rows = np.empty_like(outputs)
    rows[order] = outputs
    return rows


def _short(value: Any) -> Any:
    """A number in as many digits as single precision has."""
    return float(f"{value:.7g}") if isinstance(value, float) else value
