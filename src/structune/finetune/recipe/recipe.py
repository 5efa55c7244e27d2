"""A recipe: everything that decides a fine-tuning run, as readable YAML, validated before anything heavy is imported.

    recipe = Recipe.load("movie-sentences", ["train.learning_rate=1e-3", "method=hydra-toeplitz"])

Sections: `task`, `model`, `data`, `method`, `train`; beside them `name`, `seed` and `output`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from structune.data.section import DataSection
from structune.errors import UserError
from structune.finetune.recipe import yaml_file
from structune.finetune.recipe.shipped import find_recipe
from structune.methods import registry as methods
from structune.methods.c3a import C3A
from structune.methods.method import Method, PeftMethod
from structune.paths import FilePath
from structune.section import Section, explain, kinds, wrong_text
from structune.tasks import registry
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.task import Metric, Task
from structune.tasks.text_classification import TextClassification

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on


def _listed(value: Any) -> Any:
    """One text stands for a list of it."""
    return [value] if isinstance(value, str) else value


Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1e6)]  # beyond, one step overflows


class RatesSection(Section):
    """Largest learning rates of one method: of the adapter's numbers and of the head."""

    adapter: Rate | None = None
    head: Rate | None = None


class EarlyStopping(Section):
    """When to stop: after `patience` evaluations in a row without a gain in the task's first score.

    A gain is more than `minimum_gain` above the last one (below, where less is better), in the unit of the score: 0.01
    of an accuracy is one example in a hundred.
    """

    patience: Positive
    minimum_gain: Annotated[float, Field(ge=0)] = 0.0


def _patience(value: Any) -> Any:
    """`early_stopping: 3` stands for that patience."""
    return {"patience": value} if isinstance(value, int) and not isinstance(value, bool) else value


class TrainSection(Section):
    """How to train: AdamW with one learning rate for the adapter and one for the head (what was not pretrained).

    `learning_rate` and `head_learning_rate` left out are those that `learning_rates` has for the method (by its
    short name, for comparisons), else the method's general recommendation. `warmup` is the fraction of the steps in
    which the learning rate rises. `group_by_length` puts texts of similar lengths into a batch: less padding, and up
    to twice the speed. `eval_steps` and `save_steps` left out mean once an epoch. `evaluate_first` scores the held-out
    examples before the first step as well: what the model does untrained.

    `early_stopping` is a number of evaluations, or a section. `best_checkpoint` keeps the weights of the evaluation
    with the best score in place of the last ones. Both choose by the held-out examples, and by the score that `metric`
    names, the task's first by default.
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
    evaluate_first: bool = False
    save_steps: Positive | None = None
    early_stopping: Annotated[
        EarlyStopping | None, BeforeValidator(_patience, json_schema_input_type=EarlyStopping | Positive | None)
    ] = None
    best_checkpoint: bool = False
    metric: str | None = None
    keep_checkpoints: Positive = 1
    report_to: Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=list[str] | str)] = []

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
        return {methods.preset(name).label: rate for name, rate in rates.items()}


class ResolvedTrainSection(TrainSection):
    """How to train, with nothing left open."""

    learning_rate: Rate
    head_learning_rate: Rate | None = None  # where there is no head


class Recipe(Section):
    """A whole recipe: `Recipe(data={"train": "reviews.csv"}, method="lora")`. What it leaves open, `resolved` fills in.

    `Recipe.load` reads one from a file, `Recipe.parse` from a mapping. What `task` and `data` may hold is the task's to
    say.

    Raises:
        UserError: a key or a value is wrong; the message names it and the fix.
    """

    name: str = "recipe"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    output: FilePath | None = None
    task: SerializeAsAny[Task] = TextClassification()
    model: ModelSection = ModelSection()
    data: SerializeAsAny[DataSection]
    method: SerializeAsAny[methods.OurMethod] = C3A()
    train: TrainSection = TrainSection()

    def __init__(self, **content: Any) -> None:
        if type(self) in (Recipe, ResolvedRecipe):  # the sections of a task are known to a class of their own
            valid = type(self).parse(content)
            content = {key: getattr(valid, key) for key in valid.model_fields_set}
        super().__init__(**content)

    @field_validator("name")
    @classmethod
    def _part_of_a_folder_name(cls, name: str) -> str:
        if name != _as_name(name):
            raise wrong_text(f"becomes part of a folder's name; {_as_name(name)!r} would do")
        return name

    @field_validator("task", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """`task: text-classification` stands for that task's section."""
        return {"name": value} if isinstance(value, str) else {} if value is None else value

    @field_validator("model", "train", mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        """A section whose keys are all commented out is there, with its defaults."""
        return {} if value is None else value

    @field_validator("method", mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        """`method: hydra-toeplitz` stands for that preset's section."""
        return methods.preset(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _metric_of_the_task(self) -> Self:
        known = [metric.key for metric in self.task.metrics]
        if self.train.metric not in (None, *known):
            raise ValueError(f"train.metric = {self.train.metric!r}: task {self.task.name} has {', '.join(known)}")
        return self

    @property
    def chosen_by(self) -> Metric:
        """The score by which checkpoints are chosen and training may end early."""
        return next(one for one in self.task.metrics if self.train.metric in (None, one.key))

    @model_validator(mode="after")
    def _rates_of_what_trains(self) -> Self:
        if not self.task.trains_head():
            own = self.train.learning_rates.get(self.method.label, RatesSection()).head
            for key, rate in (("head_learning_rate", self.train.head_learning_rate), ("learning_rates", own)):
                if rate is not None:
                    raise ValueError(f"train.{key}: a head's rate of {rate:g}, and no head is trained here; remove it")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """With the short forms that the validators above take."""
        schema = handler(core)
        sections = handler.resolve_ref_schema(schema)["properties"]
        task = cls.model_fields["task"].default.name
        for key, short in {
            "task": [{"const": task}, {"type": "null"}],
            "model": [{"type": "null"}],
            "train": [{"type": "null"}],
            "method": [{"enum": methods.preset_names()}],
        }.items():
            sections[key] = {"anyOf": [*short, sections[key]]}
        return schema

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
            yaml_file.apply_override(content, override, lambda keys: kinds(cls.of_task(content.get("task")), keys))
        content.setdefault("name", _as_name(path.stem))
        return cls.parse(content, where=path.name)

    @classmethod
    def parse(cls, content: dict[str, Any], where: str = "recipe") -> Self:
        """Validate a mapping. Raises `UserError`; `where` begins each of its lines."""
        whole = cls.of_task(content.get("task"), where)._of_method(content.get("method"), where)
        try:
            valid = whole.model_validate(content)
        except ValidationError as error:
            raise explain(error, whole, where) from None
        return cls.model_construct(valid.model_fields_set, **dict(valid))

    @classmethod
    def of_task(cls, given: Any, where: str = "recipe") -> type[Self]:
        """This class with the sections `task` and `data` of the task that a recipe's `task` names.

        Raises:
            UserError: there is no such task.
        """
        name = given.get("name") if isinstance(given, dict) else getattr(given, "name", given)
        try:
            return _with_sections_of(cls, registry.get(registry.DEFAULT if name is None else str(name)))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None

    @classmethod
    def _of_method(cls, given: Any, where: str) -> type[Self]:
        """This class, with the section of another package's method where that is what `method` names."""
        try:
            section = methods.preset(given) if isinstance(given, str) else given
            name = section.get("name") if isinstance(section, dict) else getattr(section, "name", None)
            if not isinstance(name, str) or name in methods.METHODS.places or name not in methods.names():
                return cls
            return _with_method(cls, methods.get(name))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None

    def with_method(self, method: str | Method) -> Recipe:
        """The recipe with another method (a preset's name or a section), on the same layers, in its default folder."""
        section = methods.preset(method) if isinstance(method, str) else method
        if isinstance(section, PeftMethod) and isinstance(self.method, PeftMethod) and section.target_modules is None:
            section = section.model_copy(update={"target_modules": self.method.target_modules})
        return self.model_copy(update={"method": section, "output": None})

    def resolved(self) -> ResolvedRecipe:
        """The recipe with every choice made: learning rates, length, folder; files as absolute paths."""
        general, with_head = self.method.rates(), self.task.trains_head()
        found = self.train.learning_rates.get(self.method.label, RatesSection())
        train = {
            "learning_rate": self.train.learning_rate or found.adapter or general.adapter,
            "head_learning_rate": self.train.head_learning_rate or found.head or general.head if with_head else None,
            "epochs": self.train.epochs or (None if self.train.max_steps else 3.0),
        }
        model = self.model
        if Path(model.name).is_dir():
            model = model.model_copy(update={"name": str(Path(model.name).absolute())})
        return ResolvedRecipe.model_construct(
            **{
                **dict(self),
                "output": self.output or str(Path("runs") / f"{self.name}-{self.method.label}"),
                "task": self.task.with_files(lambda file: str(Path(file).absolute())),
                "model": model,
                "data": self.data.with_files(lambda file: str(Path(file).absolute())),
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


@cache
def _with_sections_of(recipe: Any, task: type[Task]) -> Any:
    return create_model(
        recipe.__name__, __base__=recipe, task=(task, task.model_validate({})), data=(task.data_section, ...)
    )


@cache
def _with_method(recipe: Any, method: type[Method]) -> Any:
    return create_model(recipe.__name__, __base__=recipe, method=(method, ...))


def _as_name(text: str) -> str:
    """The text as it can stand in a folder's name: on one line, without slashes, and short enough."""
    shown = "".join(char if char.isprintable() and char not in "/\\" else "_" for char in text)
    cut = shown.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return cut if cut.strip() else "recipe"


_LONGEST_NAME = 150  # bytes; a folder's name may have 255, with the method and the seed
