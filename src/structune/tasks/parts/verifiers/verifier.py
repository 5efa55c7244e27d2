"""What a verifier is: a section of the recipe that gives a completion a number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from structune.section import Section

Row = Mapping[str, Any]
"""The columns of a row, by name."""


class Verifier(Section, ABC):
    """Gives a completion a reward. Verifiers have a `name` with a default, by which recipes know them."""

    name: str

    reads_answer: ClassVar[bool] = False
    """Whether it compares with the row's answer, so that each row must have one."""

    @abstractmethod
    def reward(self, completion: str, answer: str | None, row: Row) -> float:
        """What the completion is worth.

        Args:
            completion: what the model wrote, without special tokens.
            answer: the row's answer as the data have it, where it has one.
            row: all columns of the row.

        Raises:
            UserError: the verifier is the user's, and does not work.
        """

    def check(self) -> None:
        """Raises `UserError` where the verifier cannot work, before anything heavy is done. Default: it can."""

    def check_answer(self, answer: str) -> str | None:
        """What is wrong with a row's answer, as the end of a sentence; None: nothing."""
        return None

    def about(self) -> str:
        """The verifier in a few words."""
        return self.name.replace("-", " ")

    def code(self) -> str:
        """A short hash of code that is not structune's, so that it is seen when it changes. Default: there is none."""
        return ""

    def with_files(self, change: Callable[[str], str]) -> Verifier:
        """The verifier with the names of its files changed. Default: it has none."""
        return self
