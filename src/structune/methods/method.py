"""What a method is: its settings, and what everything that trains, compares or draws methods asks it.

A method is one file: a section of the recipe (`method:`) with a `name`. It adds an adapter of PEFT's to layers of the
frozen model (`PeftMethod`), or it trains numbers of the model itself (`PartOfModel`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from structune.palette import BLACK
from structune.section import Section

if TYPE_CHECKING:
    import peft
    from torch import nn
    from transformers import TrainerCallback
    from typing_extensions import Self  # in typing from Python 3.11 on

Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class LearningRates(NamedTuple):
    """The largest learning rate of the adapter's numbers and of what was not pretrained, such as a head."""

    adapter: float = 1e-3
    head: float = 1e-3


class Method(Section):
    """What every method has: a name, rates to start from, and how it looks in figures."""

    name: str

    colour: ClassVar[str] = BLACK
    """Its colour in figures."""

    marker: ClassVar[str] = "o"
    """Its marker in figures, as matplotlib calls it."""

    searched_rate: ClassVar[str] = "learning_rate"
    """Which of a recipe's rates a search tries."""

    @property
    def label(self) -> str:
        """A short name for folders and tables, for example `hydra-toeplitz`."""
        return self.name.replace("_", "-")

    def rates(self) -> LearningRates:
        """Learning rates to start from when the recipe gives none."""
        return LearningRates()

    def doubts(self, model: nn.Module, rate: float) -> Iterator[str]:
        """What is doubtful about training that adapted model at that rate, a sentence each. Default: nothing."""
        return iter(())

    def callbacks(self, model: nn.Module) -> list[TrainerCallback]:
        """What it does while the adapted model trains, beside training. Default: nothing."""
        return []

    @classmethod
    def presets(cls) -> Mapping[str, Self]:
        """Sections by a short name, which a recipe may say in place of a section. Default: its own, with defaults."""
        section = cls.model_validate({})
        return {section.label: section}


class PeftMethod(Method):
    """A method that adds an adapter to chosen layers of a frozen model.

    `target_modules`: names of the layers; left out, the attention query and value layers of the architecture.
    """

    target_modules: list[str] | str | None = None

    @abstractmethod
    def config(self, **common: Any) -> peft.PeftConfig:
        """PEFT's configuration of it.

        Args:
            **common: what a configuration of any type takes: `target_modules`, `modules_to_save`, `task_type`.

        Raises:
            ValueError, TypeError, KeyError, NotImplementedError: the settings do not go together.
        """

    def mend(self, model: nn.Module) -> None:
        """Put right what PEFT's model of it lacks, after it was made or loaded. Default: nothing."""


class PartOfModel(Method):
    """A method that trains numbers of the model itself."""

    @abstractmethod
    def trains(self, parameter: str) -> bool:
        """Whether it trains the pretrained parameter of this name."""


Targets = Sequence[str] | str
"""Layers, as PEFT's `target_modules` has them."""
