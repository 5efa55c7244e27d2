"""From the `data` section to tables: one for training, and those to evaluate on where they are given."""

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
        evaluation: rows that are held out to choose by, where they are given apart.
        test: rows that are held out for the reported score, where they are given apart.
    """

    train: Table
    evaluation: Table | None
    test: Table | None


def load_tables(section: DataSection) -> Tables:
    """Read what a `data` section names.

    Raises:
        UserError: a file or a data set cannot be had or read.
    """
    if section.embedded is not None:
        return Tables(load_embedded(section.embedded), None, None)
    if section.hub is not None:
        splits = (section.evaluation_split, section.test_split)
        held_out = [None if split is None else load_hub(section.hub, section.subset, split) for split in splits]
        return Tables(load_hub(section.hub, section.subset, section.train_split), *held_out)
    assert section.train is not None  # one source, as the section has checked
    files = {"evaluation": section.evaluation, "test": section.test}
    held_out = [None if file is None else load_file(file, section, field) for field, file in files.items()]
    return Tables(load_file(section.train, section, "train"), *held_out)


def load_file(path: str | Path | Sequence[str], section: DataSection, field: str = "evaluation") -> Table:
    """A file, or several, as the section says that files are written; `field` names it in messages."""

    def read(file: str) -> Table:
        own: Table | None = section.read(file, field)
        if own is not None:
            return own
        return read_table(file, field, section.separator, section.columns, section.encoding, section.sheet)

    return read_together(str(path) if isinstance(path, Path) else path, field, read)
