"""From the `data` section to tables: one for training, and one to evaluate on where it is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from structune.data.embedded import load_embedded
from structune.data.hub import load_hub
from structune.data.reading import read_table
from structune.data.section import DataSection
from structune.data.several import read_together
from structune.data.table import Table


class Tables(NamedTuple):
    """What a `data` section names.

    Args:
        train: rows to train on, of which some may be held out.
        evaluation: rows that are held out, where they are given apart.
    """

    train: Table
    evaluation: Table | None


def load_tables(section: DataSection) -> Tables:
    """Read what a `data` section names.

    Raises:
        UserError: a file or a data set cannot be had or read.
    """
    if section.embedded is not None:
        return Tables(load_embedded(section.embedded), None)
    if section.hub is not None:
        split = section.evaluation_split
        return Tables(
            load_hub(section.hub, section.subset, section.train_split),
            None if split is None else load_hub(section.hub, section.subset, split),
        )
    assert section.train is not None  # one source, as the section has checked
    return Tables(
        load_file(section.train, section, "train"),
        None if section.evaluation is None else load_file(section.evaluation, section, "evaluation"),
    )


def load_file(path: str | Path | Sequence[str], section: DataSection, field: str = "evaluation") -> Table:
    """A file, or several, as the section says that files are written; `field` names it in messages."""

    def read(file: str) -> Table:
        own: Table | None = section.read(file, field)
        if own is not None:
            return own
        return read_table(file, field, section.separator, section.columns, section.encoding, section.sheet)

    return read_together(str(path) if isinstance(path, Path) else path, field, read)
