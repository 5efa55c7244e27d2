"""Labelled texts, from a table to numbered classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from structune.errors import UserError
from structune.finetune.data.header import refuse_lost_row
from structune.finetune.data.other_tasks import refuse_other_tasks, refuse_split_label
from structune.finetune.data.table import Table


@dataclass(frozen=True)
class Examples:
    """Texts (or pairs of texts) with labels. Rows of one `group` stay on one side of a split."""

    texts: list[str]
    pairs: list[str] | None
    labels: list[str]
    groups: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, rows: Sequence[int]) -> Examples:
        """These rows, in this order."""
        return Examples(
            [self.texts[row] for row in rows],
            None if self.pairs is None else [self.pairs[row] for row in rows],
            [self.labels[row] for row in rows],
            [self.groups[row] for row in rows],
        )


def examples_from(
    table: Table, text: str = "text", text_pair: str | None = None, label: str = "label", group: str | None = None
) -> Examples:
    """The named columns of a table.

    Without a `group` column, rows of the same text, but for case and spaces, are a group.

    Raises:
        UserError: a column is missing or has empty entries.
    """
    refuse_split_label(table, label)
    texts = table.column(text, "text")
    pairs = None if text_pair is None else table.column(text_pair, "text_pair")
    labels = [value.strip() for value in table.column(label, "label")]
    if table.headed and text in table.columns and label in table.columns:
        refuse_lost_row(table.columns, text, label, table.source)
    if group is not None:
        groups = table.column(group, "group")
    else:
        groups = [" ".join(f"{one} {two}".lower().split()) for one, two in zip(texts, pairs or texts, strict=True)]
    return Examples(texts, pairs, labels, groups)


def label_names(labels: Sequence[str], source: str, column: str) -> list[str]:
    """The classes in a fixed order: whole numbers by value, anything else by name.

    Raises:
        UserError: one class only, nearly as many classes as rows, several classes a row, or scores.
    """
    refuse_other_tasks(labels, source, column)
    names = set(labels)
    if len(names) == 1:
        raise UserError(
            f"data.label = {column!r}: every row of {source} has the label {labels[0]!r}; "
            f"classification needs two or more"
        )
    if len(names) > max(20, len(labels) // 4):
        shown = ", ".join(repr(name[:30]) for name in sorted(names)[:4])
        raise UserError(
            f"data.label = {column!r}: {len(names)} different labels in {len(labels)} rows of {source} ({shown}, ...); "
            f"that looks like another column than the label. Set data.label to the column of classes."
        )
    return sorted(names, key=lambda name: (0, int(name), name) if _is_whole(name) else (1, 0, name))


def check_labels(labels: Sequence[str], names: Sequence[str], source: str) -> None:
    """Raises `UserError` when a label is not among the training data's names."""
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise UserError(
            f"{source}: the label {', '.join(map(repr, unknown[:5]))} is not in the training data, which has "
            f"{', '.join(map(repr, list(names)[:20]))}. Check its spelling and case, or add training examples of it."
        )


def _is_whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()
