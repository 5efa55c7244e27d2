"""What a task is: the questions that everything which is the same for all tasks asks it.

A task is one file. It is a section of the recipe (`task:`), and it answers, in the order of a run:

- what its examples are and what is learned from the data alone (`examples`, `targets`, …), and what it predicts on
  (`inputs`, `from_lines`): none of this needs torch;
- which pretrained model, processor and new modules it takes (`load`), and what it finds out with them (`prepare`);
- how examples become batches (`encode`, `collator`) and batches a loss and outputs (`step`);
- what outputs are worth (`metrics`, `scores`, `details`, `draw`) and what they say to a person (`answers`), or what is
  made for examples step by step (`respond`, `show`);
- what a merged model needs to be used without structune (`finish`);
- what its model card says (`describe`, `loading`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from structune.data.examples import Examples
from structune.data.section import DataSection
from structune.data.table import Table
from structune.errors import UserError
from structune.section import Section

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import TrainerCallback

    from structune.tasks.parts.model_section import ModelSection

Targets = Mapping[str, Any]
"""What is learned from the data alone, such as the names of the classes: JSON that is kept with the run."""

IGNORED = -100
"""What stands in labels and outputs where there is nothing, as in transformers."""

Outputs = Any
"""Arrays, or tuples of arrays, with the examples as their first axis."""


@dataclass(frozen=True)
class Metric:
    """A score.

    Args:
        key: its name in files, for example `accuracy`.
        title: its name in tables and figures.
        percent: whether it is a share, shown in percent; then its standard error is √(a (1 − a) / examples).
        greater_is_better: its direction.
        range: between which it can be; None where it has no bound on that side.
        digits: how many digits are shown after the point, where it is no share.
    """

    key: str
    title: str
    percent: bool = False
    greater_is_better: bool = True
    range: tuple[float | None, float | None] = (None, None)
    digits: int = 3

    def text(self, value: float, more: int = 0) -> str:
        """The value as people read it; with `more` digits than usual."""
        return f"{value:.{1 + more}%}" if self.percent else self._number(value, self.digits + more)

    def plain(self, value: float) -> str:
        """The value without a unit, for a table whose column has it (`unit_title`)."""
        return f"{100 * value:.1f}" if self.percent else self._number(value, self.digits)

    def _number(self, value: float, digits: int) -> str:
        """So many digits after the point; a number that they would not show is written with as many of its own."""
        return f"{value:.{digits}g}" if 0 < abs(value) < 10**-digits else f"{value:.{digits}f}"

    @property
    def unit_title(self) -> str:
        """The title with the unit of `plain`."""
        return f"{self.title} %" if self.percent else self.title

    def standard_error(self, value: float, examples: int) -> float | None:
        """Of the value as an estimate from so many examples; None where that takes more than the two."""
        return math.sqrt(max(value * (1 - value), 0.0) / examples) if self.percent else None

    def shown_range(self, values: Sequence[float]) -> tuple[float, float]:
        """Where an axis begins and ends that shows these values: at 0 and 1 for a share, else around them."""
        low, high = self.range
        if self.percent:
            return 0.0, 1.0
        margin = 0.1 * (max(values) - min(values)) or 0.1 * abs(max(values)) or 0.1
        least, most = min(values) - margin, max(values) + margin
        return (least if low is None else max(low, least), most if high is None else min(high, most))

    def better(self, one: float, other: float) -> bool:
        """Whether one value is better than another."""
        return one > other if self.greater_is_better else one < other


@dataclass(frozen=True)
class Base:
    """A pretrained model ready to be adapted.

    Attributes:
        model: the model, in fp32.
        processor: what makes its inputs: a tokenizer, an image processor.
        head: names of the modules that were not pretrained, which are trained beside the adapter.
        frozen: names of modules that no method trains or adapts.
        prepared: what the task found out with the frozen model (`Task.prepare`), as it is now.
        known: what it learned from the data alone, where examples are put together to be trained on.
    """

    model: Any
    processor: Any
    head: list[str] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)
    prepared: dict[str, Any] = field(default_factory=dict)
    known: Targets = field(default_factory=dict)


@dataclass(frozen=True)
class Beneath:
    """The class of trainer on which a run's trainer stands: what `finetune/trainer/` leaves to `super()` is its.

    Attributes:
        trainer: transformers' Trainer or a subclass of it, such as those of TRL. It is given the adapted model.
        arguments: its class of arguments; None: transformers' TrainingArguments.
        settings: values of arguments that no recipe decides.
        options: keyword arguments of its constructor beside model, arguments, examples, collator, scores and callbacks.
        examples: what its constructor takes of encoded examples; None: they themselves.
        own_loss: whether the loss of a batch to train on is the trainer's own, and not that of `Task.step`.
        own_batches: whether it makes the batches to train on out of what `examples` gave.
    """

    trainer: Any
    arguments: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    examples: Callable[[Sequence[Mapping[str, Any]]], Any] | None = None
    own_loss: bool = False
    own_batches: bool = False


class Task(Section, ABC):
    """What is learned. Sections of it have a `name` with a default, by which recipes and the registry know them."""

    name: str

    data_section: ClassVar[type[DataSection]]
    """The recipe's `data` section: where examples are, and the columns that the task reads."""

    metrics: ClassVar[tuple[Metric, ...]]
    """The scores of `scores`, in the order in which they are shown; the first is the headline."""

    hub_name: ClassVar[str]
    """What the hub calls the task (`pipeline_tag` of a model card)."""

    peft_name: ClassVar[str | None] = None
    """PEFT's `task_type`; None: PEFT has none."""

    auto_class: ClassVar[str]
    """The class of transformers that loads a merged model."""

    figures: ClassVar[tuple[str, ...]] = ()
    """Names of the files that `draw` may make: a run knows them as its own."""

    shown_figures: ClassVar[tuple[str, ...]] = ()
    """Names of the files that `show` may draw: a run knows them as its own too, and evaluations leave them."""

    shown_metrics: ClassVar[tuple[Metric, ...]] = ()
    """What `show` may measure, by the names of its numbers: told at the end of training, beside that before it."""

    has_config: ClassVar[bool] = True
    """Whether its model keeps a `config.json` beside its weights, as those of transformers do."""

    makes_images: ClassVar[bool] = False
    """Whether its answers hold images (of Pillow), which `structune predict` writes into a folder beside the table."""

    compared_examples: ClassVar[int] = 64
    """On how many held-out examples a merged model is compared with the unmerged one."""

    reads_files: ClassVar[bool] = False
    """Whether the lines of `from_lines` are paths of files, or of folders of files, such as images."""

    starter_model: ClassVar[str] = "embedded"
    """The model that a recipe to begin with names."""

    starter_data: ClassVar[str] = "your-data.csv"
    """The file, or folder, to train on that a recipe to begin with names."""

    # Data: no torch.

    @abstractmethod
    def examples(self, table: Table, data: Any) -> Examples:
        """The examples of a table's rows, checked.

        Raises:
            UserError: a column is missing, or a cell holds what the task cannot read; names row, column, value, fix.
        """

    def inputs(self, table: Table, data: Any) -> Examples:
        """What the model sees of a table's rows, without labels: to be predicted. `examples` builds on it.

        Columns of labels and groups need not be there. Default: the task predicts nothing.

        Raises:
            UserError: a column is missing, or a cell holds what the task cannot read; names row, column, value, fix.
        """
        raise UserError(f"task = {self.name!r}: reads no examples without labels, so it predicts nothing")

    def from_lines(self, lines: Sequence[str], data: Any) -> Table:
        """The table that `inputs` reads of what somebody types: a row for each line, such as a text or a path.

        Default: nothing can be typed for this task.

        Raises:
            UserError: a line says not enough for a row, or too much.
        """
        raise UserError(f"task = {self.name!r}: its examples are no single lines; give a file with its columns")

    def doubts_about_table(self, table: Table, data: Any) -> Iterator[str]:
        """What is doubtful about the columns of the table to train on, a sentence each."""
        return iter(())

    def targets(self, examples: Examples, data: Any, source: str) -> Targets:
        """What is learned from the examples to train on and to hold out of the training data. Default: nothing.

        Raises:
            UserError: they are nothing that this task can learn; the message says which task could.
        """
        return {}

    def are_targets(self, content: Any) -> bool:
        """Whether JSON that was read back may be targets. Default: it is an object."""
        return isinstance(content, dict)

    def check(self, examples: Examples, targets: Targets, source: str) -> None:
        """Raises `UserError` where examples from elsewhere do not go with the targets. Default: they do."""

    def check_left(self, train: Examples, targets: Targets, source: str) -> None:
        """Raises `UserError` where what is left to train on lacks something. Default: it does not."""

    def doubts(self, train: Examples, held_out: Examples, data: Any) -> Iterator[str]:
        """What trains but is hardly meant, a sentence each."""
        return iter(())

    def doubts_about_test(self, train: Examples, test: Examples, data: Any) -> Iterator[str]:
        """What of the examples to train on those of the test part lack, a sentence each. Default: nothing."""
        return iter(())

    def doubts_about_file(self, examples: Examples, data: Any) -> Iterator[str]:
        """What is doubtful about examples to evaluate on, a sentence each."""
        return iter(())

    def about(self, targets: Targets) -> str:
        """The targets in a few words, such as `3 classes`; nothing where there is nothing to say."""
        return ""

    def baseline(self, held_out: Examples) -> Mapping[str, Any]:
        """What an answer that never looks would score, as `{words: …, value: …}` of the headline; empty: not known."""
        return {}

    def with_files(self, change: Callable[[str], str]) -> Task:
        """The task with the names of files among its options changed. Default: it has none."""
        return self

    def check_training(self, train: Any, examples: int, processes: int) -> None:
        """Raises `UserError` where the recipe's `train` section does not go with the task. Default: it does.

        Args:
            train: the section.
            examples: how many there are to train on.
            processes: how many train together.
        """

    # Model and batches.

    def trains_head(self) -> bool:
        """Whether its models have modules that were not pretrained, so that there is a head to train. Default: yes."""
        return True

    def keeps_base(self) -> bool:
        """Whether the base model is needed as it is beside the adapted one, as a reference. Default: no.

        Then methods are refused that train numbers of the model itself.
        """
        return False

    @abstractmethod
    def processor(self, section: ModelSection) -> Any:
        """What makes the model's inputs, without the model: a tokenizer, an image processor.

        Raises:
            UserError: there is none.
        """

    @abstractmethod
    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        """The pretrained model with new modules for the targets, initialised from the seed.

        Raises:
            UserError: there is no such model, or it cannot do the task.
        """

    def prepare(self, base: Base, train: Sequence[Mapping[str, Any]], data: Any, device: str) -> Mapping[str, Any]:
        """What is found out with the frozen model before training, as JSON that is kept with the run. Default: nothing.

        Args:
            base: what `load` gave; its model is on the CPU, before and after.
            train: the encoded examples to train on.
            data: the recipe's `data` section.
            device: where the model may work.
        """
        return {}

    def equip(self, base: Base, prepared: Mapping[str, Any]) -> Base:
        """The base with what `prepare` found put to use, before it is adapted or loaded. Default: it knows it.

        Args:
            base: what `load` gave.
            prepared: what `prepare` found, or what training made of it.
        """
        return replace(base, prepared=dict(prepared))

    def restore(self, base: Base, prepared: Mapping[str, Any]) -> None:
        """Put to use what training had made of `base.prepared` at a checkpoint. Default: nothing, it stays as it is."""

    def adapted(self, base: Base) -> Sequence[str] | str | None:
        """Which layers are adapted where a recipe names none, as PEFT's `target_modules`.

        Default: None, the attention's query and value where the architecture is a known one; else the user is asked.
        """
        return None

    def skeleton(self, section: ModelSection) -> nn.Module | None:
        """The model on the meta device, by which `structune inspect` knows the sizes of layers; no weight is read.

        Default: None, what transformers makes of the model's configuration.

        Raises:
            UserError: there is no such model.
        """
        return None

    @abstractmethod
    def encode(self, examples: Examples, base: Base, targets: Targets, data: Any) -> Sequence[Mapping[str, Any]]:
        """Examples as the model reads them, one at each place, in the order of the examples.

        Examples without labels (to be predicted) give entries without `labels`.
        """

    def pack(self, encoded: Sequence[Mapping[str, Any]], base: Base, data: Any) -> Sequence[Mapping[str, Any]]:
        """What stands in the rows of batches to train on, such as several short examples in one. Default: an example.

        Args:
            encoded: the examples to train on.
            base: what `load` gave; its model is not adapted yet.
            data: the recipe's `data` section.

        Raises:
            UserError: the model cannot keep them apart.
        """
        return encoded

    def doubts_about_encoding(self, parts: Sequence[Examples], base: Base, data: Any) -> Iterator[str]:
        """What is lost when examples are encoded, such as the ends of texts, a sentence each."""
        return iter(())

    @abstractmethod
    def collator(self, base: Base, training: bool) -> Callable[[list[Mapping[str, Any]]], dict[str, Tensor]]:
        """What puts encoded examples together into a batch; it may vary them where they are trained on.

        Has it a method `begin_epoch(seed, epoch)`, that is called before the first batch of each epoch and when a run
        is resumed: variation that is drawn as a function of these and of the example is the same in a resumed run.
        """

    def length(self, encoded: Mapping[str, Any]) -> int | None:
        """How long an encoded example is, for `group_by_length` and for evaluating alike ones together.

        None: all are the same.
        """
        return len(encoded["input_ids"]) if "input_ids" in encoded else None

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor | None, Outputs]:
        """Loss (None without labels) and outputs of a batch. Default: the model's own loss and its logits.

        The loss is a mean over what `weight` counts. The model may be wrapped, as where several processes train: it is
        called, and nothing else is asked of it.
        """
        outputs = model(**batch)
        return getattr(outputs, "loss", None), outputs.logits

    def compared(self, model: nn.Module, batch: dict[str, Tensor]) -> Outputs:
        """What merging may not change, by which it is checked. Default: the outputs of `step`."""
        return self.step(model, batch)[1]

    def weight(self, batch: Mapping[str, Tensor]) -> float:
        """Over how much a batch's loss is a mean, by which parts of a batch and batches are put together.

        Default: its examples.
        """
        return len(next(iter(batch.values())))

    def trainer(self, base: Base, data: Any) -> Beneath | None:
        """The class of trainer beneath the run's own while it trains. Default: None, transformers' Trainer.

        Rates, schedules, checkpoints, several processes and every evaluation stay as they are for all tasks: examples
        are evaluated in batches of `collator` by `step`, whatever the trainer would do.

        Args:
            base: what `load` gave; its model is adapted by now.
            data: the recipe's `data` section.

        Raises:
            UserError: what it needs is not installed.
        """
        return None

    def callbacks(self, base: Base) -> list[TrainerCallback]:
        """What the task does while training, beside training. Default: nothing.

        Where that changes `base.prepared`, checkpoints and the finished run have it as it is then.
        """
        return []

    def shown_at(self, steps: int) -> Sequence[int]:
        """After which of so many steps of training `show` is asked, 0 being before the first. Default: none."""
        return ()

    def show(self, model: nn.Module, base: Base, targets: Targets, step: int, folder: Path) -> Mapping[str, float]:
        """Draw what the model makes of fixed examples after this step of training, and measure it. Default: nothing.

        Asked again for a step, as in a resumed run, it replaces what was drawn for this step and later ones.

        Args:
            model: with its adapter, in evaluation mode, where it is trained. Random numbers may be drawn.
            base: what `load` gave.
            targets: what was learned from the data alone.
            step: how many steps were taken; one that `shown_at` named, or the last.
            folder: where files with names out of `shown_figures` are, and are put.

        Returns:
            numbers for the log, by names of their own; those of the last step are kept with the run's metrics.
        """
        return {}

    # Outputs.

    @abstractmethod
    def scores(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, float]:
        """The value of each metric, by its key.

        Args:
            outputs: arrays of all examples' outputs of `step`.
            labels: array of their `labels`.
            targets: what was learned from the data alone.
        """

    def details(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, Any]:
        """More than `scores`, as JSON that `structune evaluate` writes and shows where it is a table."""
        return {}

    def draw(self, outputs: Outputs, labels: Any, targets: Targets, folder: Path) -> list[Path]:
        """Draw what people look at into the folder: the files, with names out of `figures`. Default: nothing."""
        return []

    def found(self, prepared: Mapping[str, Any], targets: Targets) -> dict[str, dict[str, dict[str, Any]]]:
        """What `prepare` found, as tables by title, with a row for each name. Default: none."""
        return {}

    def draw_found(self, prepared: Mapping[str, Any], targets: Targets, folder: Path) -> list[Path]:
        """Draw what `prepare` found into the folder; the files. Default: nothing."""
        return []

    @abstractmethod
    def answers(self, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        """What each output says to a person: the values of columns such as `prediction` and `probability`."""

    def answers_about(self, examples: Examples, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        """`answers` in words of the examples, such as the text of what was found in them. Default: `answers` alone."""
        return self.answers(outputs, targets)

    def respond(
        self, model: nn.Module, base: Base, examples: Examples, targets: Targets, data: Any
    ) -> Iterator[dict[str, Any]] | None:
        """What the model makes for examples without labels, one after the other, where that takes more than one pass.

        Default: None, outputs of `step` are what `answers` tell.

        Args:
            model: with its adapter, in evaluation mode, where it works.
            base: what `load` gave.
            examples: to be answered.
            targets: what was learned from the data alone.
            data: the recipe's `data` section.

        Returns:
            for each example the values of columns, as `answers`; an image (of Pillow) is one, see `makes_images`. Made
            when it is asked for, so that no more than a few are in memory.
        """
        return None

    def samples_of(
        self, model: nn.Module, base: Base, examples: Examples, targets: Targets, data: Any
    ) -> dict[str, Any]:
        """More than `details` of an evaluation, which takes the model itself, such as what it writes. Default: nothing.

        Args:
            model: with its adapter, in evaluation mode, where it works.
            base: what `load` gave.
            examples: those that are evaluated.
            targets: what was learned from the data alone.
            data: the recipe's `data` section.
        """
        return {}

    def converse(
        self, model: nn.Module, base: Base, messages: list[dict[str, Any]], data: Any, tell: Callable[[str], None]
    ) -> str:
        """What the model answers in a conversation; `tell` is given it piece by piece, as it is written.

        Default: it does not converse.

        Args:
            model: with its adapter, in evaluation mode, where it works.
            base: what `load` gave.
            messages: so far, each with `role` and `content`.
            data: the recipe's `data` section.
            tell: shows a piece.

        Raises:
            UserError: it does not, or the conversation is none that it can go on with.
        """
        raise UserError(f"task {self.name}: does not converse; ask the run with `structune predict`")

    def finish(self, model: Any, targets: Targets, batch: dict[str, Tensor]) -> Any:
        """A merged model made ready for who loads it without the targets. Default: as it is.

        Args:
            model: in evaluation mode.
            targets: what was learned from the data alone.
            batch: of examples, to look at what the model does.
        """
        return model

    # What is kept.

    def save(self, model: nn.Module, base: Base, targets: Targets, folder: Path) -> None:
        """Write a merged model so that neither structune nor PEFT is needed to load it. Default: as transformers does.

        Args:
            model: the base model with its updates added to its weights.
            base: what `load` gave.
            targets: what was learned from the data alone.
            folder: is there, and empty.
        """
        model.save_pretrained(str(folder))  # type: ignore[operator]  # a model of transformers
        base.processor.save_pretrained(str(folder))

    def write(self, examples: Examples, path: Path, data: Any) -> Path:
        """Write examples into a file that `examples` reads again, under the columns of `data`; the file's name.

        Default: CSV where all cells are texts, else JSON Lines: a column for each input and one for the label, called
        what the key of that name in `data` says.

        Args:
            examples: what is written.
            path: of the file, without an ending.
            data: the recipe's `data` section.

        Raises:
            UserError: they are nothing that a file can hold.
        """
        from structune.data.written import write_examples

        return write_examples(examples, path, data)

    # To be tried without its data and its model.

    def made_up(self, count: int, data: Any) -> Examples:
        """So many examples of nothing, in the task's form, that `write` can write. Default: none can be made up.

        Args:
            count: how many.
            data: the recipe's `data` section, whose columns they will have.

        Raises:
            UserError: it makes none up.
        """
        raise UserError(f"task {self.name}: makes up no examples; give its data")

    def save_small_model(self, section: ModelSection, folder: Path, widest: int) -> str:
        """Write a small random model of the section's architecture, as `load` reads it; what it is, in words.

        Args:
            section: which model it stands for; its weights are not needed.
            folder: where it goes.
            widest: how wide its layers may be.

        Raises:
            UserError: it makes none. Default.
        """
        raise UserError(f"task {self.name}: makes no small model")

    def in_small(self, data: dict[str, Any]) -> tuple[Task, dict[str, Any]]:
        """The task and keys of its `data` section with all cut short that takes long. Default: texts of 64 tokens."""
        if "max_length" in data:
            data = {**data, "max_length": min(64, data["max_length"])}
        return self, data

    # Card.

    @abstractmethod
    def describe(self, targets: Targets) -> str:
        """What the model was fine-tuned for, as the end of a sentence: `text classification into 2 classes (…)`."""

    @abstractmethod
    def loading(self, names: CardNames, targets: Targets, data: Any, base: Base) -> str:
        """Python lines that load a saved adapter of PEFT and use it, without the import of structune."""


@dataclass(frozen=True)
class CardNames:
    """What a card's lines call things.

    Attributes:
        base: the base model.
        options: more arguments of `from_pretrained`, each with a comma before it.
    """

    base: str
    options: str = ""
