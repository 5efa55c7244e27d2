"""The examples of a run: read, checked by the task, split; torch is not needed for any of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from structune.data import sources
from structune.data.examples import Examples
from structune.data.section import DataSection
from structune.data.split import stratified_split
from structune.data.table import Table
from structune.doubt import say
from structune.errors import UserError
from structune.finetune.run_folder.rows import Rows
from structune.tasks.task import Targets, Task


@dataclass(frozen=True)
class TaskData:
    """The parts of the examples, and what the task learned from the data alone.

    Attributes:
        train: to train on.
        evaluation: held out, to choose by: when to stop, which weights, which rates.
        targets: what was learned from the data alone.
        test: held out for the score that is reported; None where there are none.
    """

    train: Examples
    evaluation: Examples
    targets: Targets
    test: Examples | None = None

    @cached_property
    def rows(self) -> list[Rows]:
        """The hashes of the rows of each part that there is."""
        return [Rows.of(part) for part in self.parts()]

    def parts(self) -> list[Examples]:
        """All parts that there are."""
        return [self.train, self.evaluation, *([] if self.test is None else [self.test])]


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
    left: Sequence[int] = range(len(everything))

    def given(table: Table, count: int | None) -> Examples:
        examples = task.examples(table, section)
        task.check(examples, targets, table.source)
        return _limit(examples, count, section.split_seed)

    def held_out(count: int) -> Examples:
        nonlocal left
        taken, left = stratified_split(everything, left, count, section.split_seed)
        return everything.subset(taken)

    test = None
    if tables.test is not None:
        test = given(tables.test, section.test_examples)
        say(task.doubts_about_file(test, section))
    elif section.test_examples is not None:  # first: the same whatever the validation part is
        test = held_out(section.test_examples)
    if tables.evaluation is not None:
        evaluation = given(tables.evaluation, section.evaluation_examples)
    else:
        evaluation = held_out(section.evaluation_examples or max(1, round(section.evaluation_fraction * len(left))))
    train = _limit(everything.subset(left), section.train_examples, section.split_seed)
    data = TaskData(train, evaluation, targets, test)
    _check_sizes(section, data, len(everything), source)
    task.check_left(train, targets, source)
    say(task.doubts(train, evaluation, section))
    if test is not None:
        say(_doubts_about_test(*data.rows))
        say(task.doubts_about_test(train, test, section))
    return data


def without_validation(data: TaskData, section: DataSection, count: int) -> tuple[Examples, Examples]:
    """What is left to train on when a study takes its validation part, and that part.

    Raises:
        UserError: one of them is empty.
    """
    rows = range(len(data.train))
    taken, left = stratified_split(data.train, rows, count, section.split_seed + 1)
    if not taken or not left:
        raise UserError(
            f"validation_examples = {count}: the part to train on has {len(rows)} examples, which leaves {len(left)} "
            f"to train on and {len(taken)} to choose by; take {'fewer' if taken else 'more'}, or give more examples"
        )
    return data.train.subset(left), data.train.subset(taken)


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


def _doubts_about_test(train: Rows, evaluation: Rows, test: Rows) -> Iterator[str]:
    """How many rows of the test part are in another part too."""
    for part, verb in ((train, "train on"), (evaluation, "choose by")):
        if count := test.among(part):
            yield (
                f"{count} of {len(test)} rows of the test part ({count / len(test):.1%}) are among those to {verb}: "
                f"the test score will be too good"
            )


def _check_sizes(section: DataSection, data: TaskData, total: int, source: str) -> None:
    train, evaluation = len(data.train), len(data.evaluation)
    tested = "" if data.test is None else f" and {len(data.test)} to test on"
    if not all(map(len, data.parts())):
        raise UserError(
            f"{source}: {total} examples leave {train} to train on{',' if tested else ' and'} {evaluation} to evaluate "
            f"on{tested}; give more examples, an evaluation file, or other counts"
        )
    if section.train_examples is not None and train < 0.9 * section.train_examples:
        raise UserError(
            f"data.train_examples = {section.train_examples}: only {train} are left of the {total} in {source} "
            f"when {evaluation}{f' and {len(data.test)}' if data.test is not None else ''} are held out; ask for fewer"
        )
