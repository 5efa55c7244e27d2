"""Labelled texts for a recipe: read, checked, split; torch is not needed for any of it.

table: files to columns (file_text, quotes, header: what a file holds) · hub, embedded: other sources · examples: from
columns to labelled texts · other_tasks: labels that are no classes · split: what is held out · doubts: what is hardly
meant
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from structune.errors import UserError
from structune.finetune.data import doubts
from structune.finetune.data.embedded import load_embedded
from structune.finetune.data.examples import Examples, check_labels, examples_from, label_names
from structune.finetune.data.hub import load_hub
from structune.finetune.data.other_tasks import combined_labels, other_indicators
from structune.finetune.data.split import stratified_split
from structune.finetune.data.table import read_table
from structune.finetune.doubt import DataWarning, say
from structune.finetune.recipe import DataSection

__all__ = ["DataWarning", "Examples", "TaskData", "load_data", "load_file"]


@dataclass(frozen=True)
class TaskData:
    """Examples to train on, examples held out, and the classes in the order of the model's outputs."""

    train: Examples
    evaluation: Examples
    label_names: list[str]


def load_data(section: DataSection) -> TaskData:
    """Read, check and split what a recipe's `data` section names.

    Raises:
        UserError: a file, a column, a label or a count is wrong; the message names it and the fix.

    Warns:
        DataWarning: what is doubtful, one for each kind, with counts.
    """
    everything, evaluation, source = _sources(section)
    names = label_names(everything.labels, source, section.label)
    say(combined_labels(everything.labels, section.label))
    rows = range(len(everything))
    if evaluation is None:
        count = section.evaluation_examples or max(1, round(section.evaluation_fraction * len(rows)))
        held_out, left = stratified_split(everything, rows, count, section.split_seed)
        evaluation = everything.subset(held_out)
    else:
        left = list(rows)
        check_labels(evaluation.labels, names, section.evaluation or f"{section.hub}/{section.evaluation_split}")
        evaluation = _limit(evaluation, section.evaluation_examples, section.split_seed)
    train = _limit(everything.subset(left), section.train_examples, section.split_seed)
    _check_sizes(section, train, evaluation, len(everything), names, source)
    say(doubts.doubts_about(train, evaluation, section.text, section.label))
    return TaskData(train, evaluation, names)


def load_file(path: str | Path, section: DataSection, names: Sequence[str]) -> Examples:
    """Labelled examples of another file with the columns of `section` and the known label names.

    Raises:
        UserError: the file or a label in it is wrong.

    Warns:
        DataWarning: what is doubtful.
    """
    examples = _examples(section, str(path), "evaluation")
    check_labels(examples.labels, names, str(path))
    say(doubts.doubts_about_file(examples, section.text))
    return examples


def _sources(section: DataSection) -> tuple[Examples, Examples | None, str]:
    if section.embedded is not None:
        table = load_embedded(section.embedded)
        return examples_from(table, group="group"), None, table.source
    columns = (section.text, section.text_pair, section.label, section.group)
    if section.hub is not None:
        everything = examples_from(load_hub(section.hub, section.subset, section.train_split), *columns)
        if section.evaluation_split is None:
            return everything, None, section.hub
        held_out = load_hub(section.hub, section.subset, section.evaluation_split)
        return everything, examples_from(held_out, *columns), section.hub
    assert section.train is not None  # one source, as the section has checked
    everything = _examples(section, section.train, "train")
    held_out_file = None if section.evaluation is None else _examples(section, section.evaluation, "evaluation")
    return everything, held_out_file, section.train


def _examples(section: DataSection, path: str, field: str) -> Examples:
    table = read_table(path, field, section.separator, section.columns)
    if field == "train":
        say(other_indicators(table, section.label))
    return examples_from(table, section.text, section.text_pair, section.label, section.group)


def _limit(examples: Examples, count: int | None, seed: int) -> Examples:
    if count is None or count >= len(examples):
        return examples
    return examples.subset(stratified_split(examples, range(len(examples)), count, seed)[0])


def _check_sizes(
    section: DataSection, train: Examples, evaluation: Examples, total: int, names: Sequence[str], source: str
) -> None:
    if not len(evaluation) or not len(train):
        raise UserError(
            f"{source}: {total} examples leave {len(train)} to train on and {len(evaluation)} to evaluate on; "
            f"give more examples, an evaluation file, or other counts"
        )
    missing = [name for name in names if name not in set(train.labels)]
    if missing:
        raise UserError(
            f"{source}: no example of the label {', '.join(map(repr, missing[:5]))} is left to train on; "
            f"give more examples of it, or hold out fewer"
        )
    if section.train_examples is not None and len(train) < 0.9 * section.train_examples:
        raise UserError(
            f"data.train_examples = {section.train_examples}: only {len(train)} are left of the {total} in {source} "
            f"when {len(evaluation)} are held out; ask for fewer"
        )
