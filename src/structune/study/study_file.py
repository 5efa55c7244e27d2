"""A study as a file: tasks × methods × learning rates × seeds, validated before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from structune.errors import UserError
from structune.finetune.recipe import yaml_file
from structune.finetune.recipe.recipe import Recipe, TrainSection
from structune.methods.method import Method
from structune.section import Section, closest, explain
from structune.study.results.files import plain
from structune.study.search.points import SearchSection, Space
from structune.study.search.rates import Rates
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.task import Metric

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Number = TypeVar("Number", int, float)


class TaskSection(Section):
    """One task: its held-out examples are the test part, and `validation_examples` come out of the training part.

    `task`, `data` and `train` are as in a recipe; `metric` is the score that rates are chosen by and that is reported,
    the task's first by default. `model` is the task's own, in place of the study's.
    """

    task: Any = None
    model: ModelSection | None = None
    data: dict[str, Any]
    metric: str | None = None
    validation_examples: Positive = 500
    train: TrainSection = TrainSection()

    @field_validator("data")
    @classmethod
    def _without_test(cls, data: dict[str, Any]) -> dict[str, Any]:
        """A study holds out its own validation part, so what else is held out is the test part."""
        if given := [key for key in ("test", "test_split", "test_examples") if key in data]:
            raise ValueError(f"data.{given[0]}: in a study {given[0].replace('test', 'evaluation')} says the test part")
        return data

    def recipe(self, where: str) -> Recipe:
        """A recipe of the task and its data. Raises `UserError` where one of them is wrong."""
        task = {} if self.task is None else {"task": self.task}
        return Recipe.parse({**task, "data": self.data}, where)


class MethodGroup(Section):
    """Methods that differ in a few options: a list as an option's value stands for each of its values.

    `label` names them, with the options' names in braces. `rates` are tried in place of the study's, as many of them:
    of methods whose numbers are on another scale. `fixed_rates` are not searched: one for each task by its name, such
    as those of a paper. On tasks that it does not name the methods are searched like the others.
    """

    label: str
    method: dict[str, Any]
    rates: Annotated[list[Rate], Field(min_length=1)] | None = None
    fixed_rates: dict[str, Rate] = Field(default_factory=dict)

    @field_validator("method")
    @classmethod
    def _no_empty_list(cls, method: dict[str, Any]) -> dict[str, Any]:
        """No value at all would be no method at all."""
        if empty := [key for key, value in method.items() if value == []]:
            raise ValueError(f"{empty[0]} = []: name values, or leave it out")
        return method

    def each(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Label and settings of every method of the group, the last option running fastest."""
        lists = {key: value for key, value in self.method.items() if isinstance(value, list)}
        for values in product(*lists.values()):
            settings = self.method | dict(zip(lists, values, strict=True))
            yield self.label.format(**settings), settings


class Study(Section):
    """A whole study.

    Every method is tried with each of `rates` on the first seed, and with up to `further_rates` more, `rate_factor`
    apart, for as long as the best is the largest or the smallest tried. What is best on the validation part is trained
    with the other seeds, too, and scored on the test part.

    `search` draws what is tried instead, the same number of tries for every method, between the ends of its `rates`.
    """

    name: str
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    rates: Annotated[list[Rate], Field(min_length=1)]
    rate_factor: Annotated[float, Field(gt=1)] = 4.0
    further_rates: Annotated[int, Field(ge=0)] = 2
    search: SearchSection | None = None
    model: ModelSection = ModelSection()
    tasks: Annotated[dict[str, TaskSection], Field(min_length=1)]
    methods: Annotated[list[MethodGroup], Field(min_length=1)]

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Study:
        """Read a YAML file and apply `section.key=value` overrides.

        Raises:
            UserError: the file, an override or a value is wrong; the message names the field, the value and the fix.
        """
        content = yaml_file.read(path, "study", "'tasks:' and 'methods:'")
        for override in overrides:
            yaml_file.apply_override(content, override)
        try:
            study = cls.model_validate(content)
        except ValidationError as error:
            raise explain(error, cls, path.name) from None
        study.scores()
        study.settings()
        study.spaces()
        return study

    def scores(self) -> dict[str, Metric]:
        """What each task is scored by.

        Raises:
            UserError: a task or its data is wrong, or it has no such metric.
        """
        found = {}
        for name, section in self.tasks.items():
            metrics = {metric.key: metric for metric in section.recipe(f"tasks.{name}").task.metrics}
            key = section.metric or next(iter(metrics))
            if key not in metrics:
                raise UserError(f"tasks.{name}.metric = {key!r}: the task has {', '.join(metrics)}")
            found[name] = metrics[key]
        return found

    @field_validator("name")
    @classmethod
    def _name_of_a_folder(cls, name: str) -> str:
        return _of_a_folder(name)

    @field_validator("seeds")
    @classmethod
    def _each_seed_once(cls, seeds: list[int]) -> list[int]:
        return _each_once(seeds, seeds)

    @field_validator("tasks")
    @classmethod
    def _names_of_folders(cls, tasks: dict[str, TaskSection]) -> dict[str, TaskSection]:
        """Results and data parts of a task are in a folder of its name, where they are looked for."""
        folders: dict[str, str] = {}
        for name in map(_of_a_folder, tasks):
            if (other := folders.setdefault(name.casefold(), name)) != name:  # some disks tell no case
                raise ValueError(f"{other!r} and {name!r} differ in case only; give one of them another name")
        return tasks

    @model_validator(mode="after")
    def _one_search(self) -> Study:
        for rates in (self.rates, *(group.rates or [] for group in self.methods)):
            _each_once(rates, [f"{rate:.3g}" for rate in rates])
        for group in self.methods:
            if unknown := [task for task in group.fixed_rates if task not in self.tasks]:
                raise ValueError(
                    f"methods: fixed_rates of {group.label!r} name {unknown[0]!r}"
                    f"{closest(unknown[0], list(self.tasks))}; the study has {', '.join(self.tasks)}"
                )
            if group.rates is not None and len(group.rates) != len(self.rates):
                raise ValueError(
                    f"methods: {group.label!r} has {len(group.rates)} rates and the others {len(self.rates)}; "
                    f"give it as many, so that all are searched alike"
                )
        return self

    def matching(self, only: str, task: str | None) -> tuple[dict[str, Method], list[str]]:
        """The methods whose label has a match of an expression, and the task of that name; None: all tasks.

        Raises:
            UserError: there is no such method, or no such task.
        """
        if task is not None and task not in self.tasks:
            raise UserError(f"--task {task!r}: the study has {', '.join(self.tasks)}")
        methods = self.settings()
        try:
            re.compile(only)
        except re.error as error:
            raise UserError(
                f"--only {only!r}: no regular expression ({error}); put a backslash before ( [ + * ?"
            ) from None
        chosen = {label: method for label, method in methods.items() if re.search(only, label)}
        if not chosen:
            raise UserError(f"--only {only!r}: no label of the study has a match of it; there are {', '.join(methods)}")
        return chosen, list(self.tasks) if task is None else [task]

    def searches(self) -> dict[tuple[str, str], Rates]:
        """What is searched, by method's label and task: one rate and none beyond where it is fixed."""
        return {
            (label, task): Rates([group.fixed_rates[task]], self.rate_factor, 0)
            if task in group.fixed_rates
            else Rates(group.rates or self.rates, self.rate_factor, self.further_rates)
            for group in self.methods
            for label, _ in group.each()
            for task in self.tasks
        }

    def spaces(self) -> dict[tuple[str, str], Space]:
        """What is drawn from where the file says `search`, by method's label and task; not where a rate is fixed.

        Raises:
            UserError: a range is of no setting of any method, or has a value that is wrong there.
        """
        if self.search is None:
            return {}
        methods = self.settings()
        spaces = {
            label: self.search.space(group.rates or self.rates, methods[label])
            for group in self.methods
            for label, _ in group.each()
        }
        known: set[str] = set().union(*spaces.values())
        if unknown := [name for name in self.search.ranges if name not in known]:
            raise UserError(f"search.ranges.{unknown[0]}: no method of the study has that option")
        for label, space in spaces.items():
            _check_values(space, methods[label])
        fixed = {(label, task) for group in self.methods for label, _ in group.each() for task in group.fixed_rates}
        return {
            (label, task): space for label, space in spaces.items() for task in self.tasks if (label, task) not in fixed
        }

    def settings(self) -> dict[str, Method]:
        """Every method by its label, in the order of the file.

        Raises:
            UserError: two have one label, or labels whose files have one name; or a method's options are wrong.
        """
        found: dict[str, Method] = {}
        by_name: dict[str, str] = {}
        for group in self.methods:
            try:
                labelled = list(group.each())
            except KeyError as error:
                raise UserError(f"methods: label {group.label!r} names {error}, which is no option there") from None
            except (AttributeError, IndexError, ValueError):
                raise UserError(
                    f"methods: label {group.label!r}: braces hold the name of an option, such as {{rank}}; double "
                    f"those that are to be seen"
                ) from None
            for label, options in labelled:
                if label in found:
                    raise UserError(f"methods: two have the label {label!r}; name what they differ in in braces")
                name = plain(f"{label} seed").casefold()  # where a disk tells no case
                if (other := by_name.setdefault(name, label)) != label:
                    raise UserError(
                        f"methods: the files of {other!r} and {label!r} would have one name, as letters from A to Z "
                        f"without case, digits and = . - make it; give one of them another label"
                    )
                found[label] = Recipe.parse(
                    {"data": {"embedded": "tweets"}, "method": options}, where=f"method {label!r}"
                ).method
        return found


def _of_a_folder(name: str) -> str:
    """Raises `ValueError` where no folder can have that name."""
    if not name.strip() or name in (".", "..") or not name.isprintable() or re.search(r"[/\\:]", name):
        fix = plain(name).strip(".-")
        raise ValueError(
            f"{name!r} cannot be the name of a folder, which results are found in; take one without / \\ and :"
            f"{f', such as {fix}' if fix else ''}"
        )
    return name


def _each_once(values: list[Number], names: Sequence[object]) -> list[Number]:
    """Raises `ValueError` where two values have one name: their runs would be in one folder."""
    for value, name in zip(values, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"{value} is there twice (a rate's first three digits count); name each once")
    return values


def _check_values(space: Space, method: Method) -> None:
    """Raises `UserError` where a range has ends or choices that its setting cannot have."""
    for name, each in space.items():
        section, _, key = name.partition(".")
        for value in each.choices or each.ends():
            content: dict[str, Any] = {"data": {"embedded": "tweets"}, "method": method.model_dump(exclude_none=True)}
            if key:
                Recipe.parse(content | {section: content.get(section, {}) | {key: value}}, f"search.ranges.{name}")
