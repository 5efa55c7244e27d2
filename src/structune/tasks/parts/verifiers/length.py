"""1 for a completion of the right length, less the further it is from that."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from structune.tasks.parts.verifiers.verifier import Row, Verifier

Count = Annotated[int, Field(ge=0)]


class Length(Verifier):
    """1 from `least` to `most` units; n / least below, max(0, 2 − n / most) above: 0 from twice the most on."""

    name: Literal["length"] = "length"
    most: Annotated[int, Field(ge=1)]
    least: Count = 0
    unit: Literal["words", "characters"] = "words"

    @model_validator(mode="after")
    def _in_order(self) -> Length:
        if self.least > self.most:
            raise ValueError(f"least = {self.least} is more than most = {self.most}; exchange them")
        return self

    def reward(self, completion: str, answer: str | None, row: Row) -> float:
        count = len(completion.split()) if self.unit == "words" else len(completion.strip())
        if count < self.least:
            return count / self.least
        return max(0.0, 2 - count / self.most) if count > self.most else 1.0

    def about(self) -> str:
        return f"{self.least} to {self.most} {self.unit}"
