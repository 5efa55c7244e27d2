"""The recipe's `data` section: where examples come from, and how many of them are held out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from structune.paths import FilePath
from structune.section import Section

Positive = Annotated[int, Field(ge=1)]


class DataSection(Section):
    """Which examples: exactly one of `train` (a CSV, TSV or JSON Lines file), `hub` and `embedded`.

    Without an evaluation file or split, `evaluation_examples` or else `evaluation_fraction` of the examples are held
    out: stratified by label, the same for a `split_seed` whatever the training seed is, with equal texts (or equal
    values in the `group` column) never on both sides. `columns` names the columns of files without a header.
    """

    train: FilePath | None = None
    evaluation: FilePath | None = None
    hub: FilePath | None = None
    subset: str | None = None
    train_split: str = "train"
    evaluation_split: str | None = None
    embedded: Literal["movie-sentences", "tweets", "product-reviews", "editorials"] | None = None
    group: str | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    train_examples: Positive | None = None
    evaluation_examples: Positive | None = None
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
            "separator": "train",
            "columns": "train",
            "subset": "hub",
            "evaluation_split": "hub",
        }
        for key, source in wrong.items():
            if getattr(self, key) is not None and source not in given:
                raise ValueError(f"{key} goes with {source}, not with {given[0]}; remove it")
        if self.embedded is not None and self.group is not None:
            raise ValueError("the embedded data has its own groups; remove group")
        return self
