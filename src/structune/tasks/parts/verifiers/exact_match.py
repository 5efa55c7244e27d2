"""1 for the right answer."""

from __future__ import annotations

from typing import ClassVar, Literal

from structune.tasks.parts.verifiers.extraction import Rule, extract, same
from structune.tasks.parts.verifiers.verifier import Row, Verifier


class ExactMatch(Verifier):
    """1 where what `extract` finds in the completion is what it finds in the row's answer, else 0.

    `extract` is `whole`, `number` (the last one), `gsm8k` (the number behind the last `####`), `choice` (the last
    single capital letter), or a regular expression with one group. Where the answer has no such thing, it counts as
    it stands. Numbers are compared as numbers, texts but for case and spaces.
    """

    name: Literal["exact-match"] = "exact-match"
    extract: Rule = "whole"

    reads_answer: ClassVar[bool] = True

    def reward(self, completion: str, answer: str | None, row: Row) -> float:
        found = extract(self.extract, completion)
        assert answer is not None  # it reads answers
        return float(found is not None and same(found, extract(self.extract, answer) or answer))

    def about(self) -> str:
        return "exact match" if self.extract == "whole" else f"exact match of {self.extract!r}"
