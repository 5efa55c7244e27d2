"""A recipe: everything that decides a fine-tuning run, as readable YAML, validated before anything heavy is imported.

    recipe = Recipe.load("movie-sentences", ["train.learning_rate=1e-3", "method=hydra-toeplitz"])

Sections: `model`, `data`, `method`, `train`; beside them `name`, `seed` and `output`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from structune.finetune import yaml_file
from structune.finetune.methods import C3A, Method, MethodSection, PeftSection, preset, recommended
from structune.finetune.paths import FilePath
from structune.finetune.section import Section, explain, kinds, wrong_text
from structune.finetune.shipped import find_recipe

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on


def _listed(value: Any) -> Any:
    """One text stands for a list of it."""
    return [value] if isinstance(value, str) else value


Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1e6)]  # beyond, one step overflows


class ModelSection(Section):
    """Which pretrained model: `embedded`, an id on the hub, or a local folder.

    The embedded one is all-MiniLM-L6-v2 (BERT, 6 layers, 384 wide, 22.7 million numbers, Apache-2.0), which installs
    from PyPI. Its pooler was not used in its training, so a head alone on the frozen model does poorly: adapters have
    room.
    """

    name: FilePath = "embedded"
    revision: str | None = None


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
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    group: str | None = None
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    train_examples: Positive | None = None
    evaluation_examples: Positive | None = None
    evaluation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    split_seed: int = 0
    max_length: Annotated[int, Field(ge=4)] = 128

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
        if self.embedded is not None:
            for key, default in (("text", "text"), ("label", "label"), ("text_pair", None), ("group", None)):
                if getattr(self, key) != default:
                    raise ValueError(f"the embedded data has its own columns; remove {key}")
        return self


class RatesSection(Section):
    """Largest learning rates of one method: of the adapter's numbers and of the classification head."""

    adapter: Rate | None = None
    head: Rate | None = None


class TrainSection(Section):
    """How to train: AdamW with one learning rate for the adapter and one for the classification head.

    `learning_rate` and `head_learning_rate` left out are those that `learning_rates` has for the method (by its
    short name, for comparisons), else the method's general recommendation. `warmup` is the fraction of the steps in
    which the learning rate rises. `group_by_length` puts texts of similar lengths into a batch: less padding, and up
    to twice the speed. `eval_steps` and `save_steps` left out mean once an epoch.
    """

    learning_rate: Rate | None = None
    head_learning_rate: Rate | None = None
    learning_rates: dict[str, RatesSection] = {}
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    batch_size: Positive = 32
    gradient_accumulation: Positive = 1
    eval_batch_size: Positive = 64
    group_by_length: bool = False
    epochs: Rate | None = None
    max_steps: Positive | None = None
    scheduler: Literal["onecycle", "linear", "cosine", "constant"] = "onecycle"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu"] = "auto"
    gradient_checkpointing: bool = False
    log_steps: Positive = 10
    eval_steps: Positive | None = None
    save_steps: Positive | None = None
    keep_checkpoints: Positive = 1
    report_to: Annotated[list[str], BeforeValidator(_listed)] = []

    @model_validator(mode="after")
    def _one_length(self) -> TrainSection:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError(f"epochs = {self.epochs} and max_steps = {self.max_steps} are both given; remove one")
        if self.scheduler == "onecycle" and self.warmup == 0:
            raise ValueError("warmup = 0 leaves onecycle no rise; use warmup: 0.1, or scheduler: cosine")
        return self

    @field_validator("learning_rates")
    @classmethod
    def _known_methods(cls, rates: dict[str, RatesSection]) -> dict[str, RatesSection]:
        return {preset(name).label: rate for name, rate in rates.items()}


class ResolvedTrainSection(TrainSection):
    """How to train, with nothing left open."""

    learning_rate: Rate
    head_learning_rate: Rate


class Recipe(Section):
    """A whole recipe. Read one with `Recipe.load`; fill in what it leaves to defaults with `resolved`."""

    name: str = "recipe"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    output: FilePath | None = None
    model: ModelSection = ModelSection()
    data: DataSection
    method: Method = C3A()
    train: TrainSection = TrainSection()

    @field_validator("name")
    @classmethod
    def _part_of_a_folder_name(cls, name: str) -> str:
        if name != _as_name(name):
            raise wrong_text(f"becomes part of a folder's name; {_as_name(name)!r} would do")
        return name

    @field_validator("model", "train", mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        """A section whose keys are all commented out is there, with its defaults."""
        return {} if value is None else value

    @field_validator("method", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        """`method: hydra-toeplitz` stands for that preset's section."""
        return preset(value) if isinstance(value, str) else value

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML recipe, apply `section.key=value` overrides and validate the whole.

        Args:
            path: a file, or the name of a recipe that comes with structune.
            overrides: applied in order.

        Raises:
            UserError: the file, an override or a value is wrong; the message names the field, the value and the fix.
        """
        path = find_recipe(Path(path))
        content = yaml_file.read(path)
        for override in overrides:
            yaml_file.apply_override(content, override, partial(kinds, cls))
        content.setdefault("name", _as_name(path.stem))
        return cls.parse(content, where=path.name)

    @classmethod
    def parse(cls, content: dict[str, Any], where: str = "recipe") -> Self:
        """Validate a mapping. Raises `UserError`; `where` begins each of its lines."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise explain(error, cls, where) from None

    def with_method(self, method: str | MethodSection) -> Recipe:
        """The recipe with another method (a preset's name or a section), on the same layers, in its default folder."""
        section = preset(method) if isinstance(method, str) else method
        if isinstance(section, PeftSection) and isinstance(self.method, PeftSection) and section.target_modules is None:
            section = section.model_copy(update={"target_modules": self.method.target_modules})
        return self.model_copy(update={"method": section, "output": None})

    def resolved(self) -> ResolvedRecipe:
        """The recipe with every choice made: learning rates, length, folder; files as absolute paths."""
        general = recommended(self.method)
        found = self.train.learning_rates.get(self.method.label, RatesSection())
        train = {
            "learning_rate": self.train.learning_rate or found.adapter or general.adapter,
            "head_learning_rate": self.train.head_learning_rate or found.head or general.head,
            "epochs": self.train.epochs or (None if self.train.max_steps else 3.0),
        }
        files = {
            key: str(Path(file).absolute()) for key in ("train", "evaluation") if (file := getattr(self.data, key))
        }
        model = self.model
        if Path(model.name).is_dir():
            model = model.model_copy(update={"name": str(Path(model.name).absolute())})
        return ResolvedRecipe.model_construct(
            **{
                **dict(self),
                "output": self.output or str(Path("runs") / f"{self.name}-{self.method.label}"),
                "model": model,
                "data": self.data.model_copy(update=files),
                "train": ResolvedTrainSection.model_construct(**{**dict(self.train), **train}),
            }
        )

    def to_yaml(self) -> str:
        """The recipe as YAML text that `load` reads back to an equal recipe."""
        return yaml_file.dump(self.model_dump(mode="json", exclude_none=True))


class ResolvedRecipe(Recipe):
    """A recipe with nothing left open, as a run folder holds it."""

    output: FilePath
    train: ResolvedTrainSection


def _as_name(text: str) -> str:
    """The text as it can stand in a folder's name: on one line, without slashes, and short enough."""
    shown = "".join(char if char.isprintable() and char not in "/\\" else "_" for char in text)
    cut = shown.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return cut if cut.strip() else "recipe"


_LONGEST_NAME = 150  # bytes; a folder's name may have 255, with the method and the seed
