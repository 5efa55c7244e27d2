"""The examples of a run: read, checked by the task, split; torch is not needed for any of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from structune.data import sources
from structune.data.examples import Examples
from structune.data.section import DataSection
from structune.data.split import stratified_split
from structune.doubt import say
from structune.errors import UserError
from structune.tasks.task import Targets, Task


@dataclass(frozen=True)
class TaskData:
    """Examples to train on, examples held out, and what the task learned from the data alone."""

    train: Examples
    evaluation: Examples
    targets: Targets


def load_data(task: Task, section: DataSection) -> TaskData:
    """Read, check and split what a recipe's `data` section names.

    Raises:
        UserError: a file, a column, a label or a count is wrong; the message names it and the fix.

    Warns:
        DataWarning: what is doubtful, one for each kind, with counts.
    """
    tables = sources.load_tables(section)
    everything = task.examples(tables.train, section)
    source = tables.train.source if section.hub is None else section.hub
    say(task.doubts_about_table(tables.train, section))
    targets = task.targets(everything, section, source)
    rows = range(len(everything))
    if tables.evaluation is None:
        count = section.evaluation_examples or max(1, round(section.evaluation_fraction * len(rows)))
        held_out, left = stratified_split(everything, rows, count, section.split_seed)
        evaluation = everything.subset(held_out)
    else:
        left = list(rows)
        evaluation = task.examples(tables.evaluation, section)
        task.check(evaluation, targets, tables.evaluation.source)
        evaluation = _limit(evaluation, section.evaluation_examples, section.split_seed)
    train = _limit(everything.subset(left), section.train_examples, section.split_seed)
    _check_sizes(section, train, evaluation, len(everything), source)
    task.check_left(train, targets, source)
    say(task.doubts(train, evaluation, section))
    return TaskData(train, evaluation, targets)


def load_file(path: str | Path, task: Task, section: DataSection, targets: Targets) -> Examples:
    """Examples of another file with the columns of `section` and known targets.

    Raises:
        UserError: the file or a label in it is wrong.

    Warns:
        DataWarning: what is doubtful.
    """
    examples = task.examples(sources.load_file(path, section), section)
    task.check(examples, targets, str(path))
    say(task.doubts_about_file(examples, section))
    return examples


def _limit(examples: Examples, count: int | None, seed: int) -> Examples:
    if count is None or count >= len(examples):
        return examples
    return examples.subset(stratified_split(examples, range(len(examples)), count, seed)[0])


def _check_sizes(section: DataSection, train: Examples, evaluation: Examples, total: int, source: str) -> None:
    if not len(evaluation) or not len(train):
        raise UserError(
            f"{source}: {total} examples leave {len(train)} to train on and {len(evaluation)} to evaluate on; "
            f"give more examples, an evaluation file, or other counts"
        )

    if section.train_examples is not None and len(train) < 0.9 * section.train_examples:
        raise UserError(
            f"data.train_examples = {section.train_examples}: only {len(train)} are left of the {total} in {source} "
            f"when {len(evaluation)} are held out; ask for fewer"
        )
