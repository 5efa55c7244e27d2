"""1 for a completion of the right form."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from structune.section import wrong_text
from structune.tasks.parts.verifiers.verifier import Row, Verifier


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise wrong_text(f"is no regular expression ({error})") from None
    return pattern


class RegularExpression(Verifier):
    """1 where the pattern is found in the completion, else 0; with `whole`, where it matches all but outer spaces.

    `.` matches line breaks too; `(?-s:.)` does not.
    """

    name: Literal["regular-expression"] = "regular-expression"
    pattern: Annotated[str, AfterValidator(_compiles)]
    whole: bool = False

    def reward(self, completion: str, answer: str | None, row: Row) -> float:
        if self.whole:
            return float(re.fullmatch(self.pattern, completion.strip(), re.DOTALL) is not None)
        return float(re.search(self.pattern, completion, re.DOTALL) is not None)

    def about(self) -> str:
        return f"form {self.pattern!r}"
