"""The recipe's `data` section: where examples come from, and how many of them are held out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from structune.paths import FilePath, FilePaths
from structune.section import Section, wrong_text

Positive = Annotated[int, Field(ge=1)]

TO_PREDICT = "given"
"""For `DataSection.read`, in place of a field: what is read is to be predicted, and needs no labels."""


class DataSection(Section):
    """Which examples: exactly one of `train` (a file, or several), `hub` and `embedded`.

    A file is CSV, TSV, JSON Lines, a JSON array, Parquet, Arrow, Feather or Excel, compressed or not, or a folder with
    a subfolder of text files for each class. Several with the same columns are a list, or a name with `*`.
    `encoding` is that of text files other than UTF-8, `sheet` that of a workbook with several, and `columns` names the
    columns of files without a header.

    Choices are made by the validation part: the file `evaluation` or the split `evaluation_split`, else
    `evaluation_examples` or `evaluation_fraction` of the other examples. The score that is reported is that on the test
    part, where there is one: the file `test`, the split `test_split`, or `test_examples`, which are held out before
    the validation part. What is held out is stratified by label, the same for a `split_seed` whatever the training seed
    is, with equal texts (or equal values in the `group` column) never on both sides.
    """

    file_keys: ClassVar[tuple[str, ...]] = ("train", "evaluation", "test")
    """The keys that name files."""

    train: FilePaths | None = None
    evaluation: FilePaths | None = None
    test: FilePaths | None = None
    hub: FilePath | None = None
    subset: str | None = None
    train_split: str = "train"
    evaluation_split: str | None = None
    test_split: str | None = None
    embedded: Literal["movie-sentences", "tweets", "product-reviews", "editorials"] | None = None
    group: str | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    encoding: str | None = None
    sheet: str | None = None
    train_examples: Positive | None = None
    evaluation_examples: Positive | None = None
    test_examples: Positive | None = None
    evaluation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    split_seed: int = 0

    @field_validator("separator", mode="before")
    @classmethod
    def _tab(cls, value: Any) -> Any:
        """A tab as messages spell it: in YAML single quotes and in a shell it stays two characters."""
        return "\t" if value == r"\t" else value

    @field_validator("columns")
    @classmethod
    def _different(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and len({name.strip() for name in names}) < len(names):
            raise ValueError(f"columns = {names!r}: give each a name of its own")
        return names

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str | None) -> str | None:
        try:
            if name is not None:
                "".encode(name)
        except LookupError:
            raise wrong_text(
                "no encoding of texts has such a name; for example utf-8, utf-16, windows-1252, shift_jis"
            ) from None
        return name

    @model_validator(mode="after")
    def _one_source(self) -> DataSection:
        given = [key for key in ("train", "hub", "embedded") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of train (a file), hub (a data set's id) and embedded; "
                f"found {', '.join(given) or 'none'}"
            )
        wrong = {
            "evaluation": "train",
            "test": "train",
            "separator": "train",
            "columns": "train",
            "encoding": "train",
            "sheet": "train",
            "subset": "hub",
            "evaluation_split": "hub",
            "test_split": "hub",
        }
        for key, source in wrong.items():
            if getattr(self, key) is not None and source not in given:
                raise ValueError(f"{key} goes with {source}, not with {given[0]}; remove it")
        if self.embedded is not None and self.group is not None:
            raise ValueError("the embedded data has its own groups; remove group")
        return self

    def files(self) -> dict[str, str]:
        """What is named on this machine, by key: `train`, or `train[0]`, `train[1]`, … of a list."""
        named: dict[str, str] = {}
        for key in self.file_keys:
            given = getattr(self, key)
            named |= {key: given} if isinstance(given, str) else {f"{key}[{n}]": f for n, f in enumerate(given or [])}
        return named

    def with_files(self, change: Callable[[str], str]) -> DataSection:
        """The section with every file's name changed."""
        given = {key: getattr(self, key) for key in self.file_keys if getattr(self, key) is not None}
        return self.model_copy(
            update={
                key: change(name) if isinstance(name, str) else list(map(change, name)) for key, name in given.items()
            }
        )

    def read(self, path: str | Path, field: str) -> Any:
        """The table of what only tasks with this section read, such as a folder of images; None for any other file.

        `field` is `TO_PREDICT` where rows need no labels.

        Raises:
            UserError: it is theirs, and cannot be read; `field` names it in messages.
        """
        return None
