"""How images are made of prompts: in samples and predictions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from structune.section import Section

Positive = Annotated[int, Field(ge=1)]


class Sampling(Section):
    """How images are made: in `steps` steps, with that `guidance`, the k-th prompt's with the seed `seed` + k.

    Before, while and after training, `times` times in all (0: never), the first `count` captions are drawn, or those of
    `prompts`.
    """

    steps: Positive = 25
    guidance: Annotated[float, Field(ge=0)] = 7.5
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    times: Annotated[int, Field(ge=0, le=20)] = 3
    count: Annotated[int, Field(ge=1, le=16)] = 4
    prompts: Annotated[list[str], Field(min_length=1)] | None = None
