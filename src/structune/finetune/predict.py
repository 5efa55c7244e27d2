"""What a finished run says about rows without labels, any number of them, in the order in which they come."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from structune.data.pieces import ENDINGS, cut, file_pieces, is_data_file, line_pieces
from structune.data.table import Table
from structune.doubt import say
from structune.errors import UserError
from structune.finetune.adapters import WEIGHTS_FILE
from structune.finetune.answers_file import Writer, answers_file, check_answers_file
from structune.finetune.evaluate import load_run
from structune.finetune.outputs import by_length
from structune.finetune.recipe import ResolvedRecipe
from structune.finetune.run import Run
from structune.finetune.trainer import RecipeTrainer
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

    def write(self, given: Given, writer: Writer, rows: int = ROWS, console: Console | None = None) -> int:
        """Write the answers as they come, and return how many there are; progress is shown on the console."""
        count = 0
        columns = (TextColumn("predicting"), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
        hidden = console is None or not console.is_terminal
        with Progress(*columns, console=console, disable=hidden, transient=True) as bar:
            shown = bar.add_task("rows", total=None)
            for piece in self.rows(self.tables(given, rows)):
                writer.write(piece)
                count += len(piece)
                bar.update(shown, completed=count)
        return count

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
            own: Table | None = data.read(str(given), "given")
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
                yield self._answered(table, trainer)

    def _answered(self, table: Table, trainer: RecipeTrainer) -> list[Row]:
        task, targets = self.task, self.loaded.targets
        examples = task.inputs(table, self.data)
        if not self._told_of_cuts:
            doubts = list(task.doubts_about_encoding([examples], self.loaded.base, self.data))
            self._told_of_cuts = bool(doubts)
            say(doubts)
        encoded = task.encode(examples, self.loaded.base, targets, self.data)
        order = by_length(task, encoded)
        sorted_ones: Any = encoded if order is None else [encoded[row] for row in order]
        outputs = trainer.predict(sorted_ones).predictions
        self.loaded.check_outputs(outputs, table.source)
        answers = task.answers_about(examples, outputs if order is None else _back(outputs, order), targets)
        if taken := [name for name in table.columns if answers and name in answers[0]]:
            raise UserError(
                f"{table.source}: has a column {taken[0]!r}, which is the name of an answer; rename the column, or "
                f"leave it out"
            )
        return [
            {name: cells[row] for name, cells in table.columns.items()}
            | {name: _short(value) for name, value in answer.items()}
            for row, answer in enumerate(answers)
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

    Memory does not grow with the number of rows. The file is there at the end, whole, and not after an error.

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
    with answers_file(out) as writer:
        return predictor.write(given, writer, console=console)


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
