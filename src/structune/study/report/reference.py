"""The method that the others are measured against."""

from __future__ import annotations

from structune.errors import UserError
from structune.methods.lora import LoRA
from structune.section import closest
from structune.study.study_file import Study


def reference_label(plan: Study, asked: str | None = None) -> str | None:
    """The label that was asked for, else that of the first LoRA of the file; None: it has none.

    Raises:
        UserError: no method has that label.
    """
    methods = plan.settings()
    if asked is not None:
        if asked not in methods:
            raise UserError(
                f"--reference {asked!r}: no method of the study has this label{closest(asked, list(methods))}; "
                f"it has {', '.join(methods)}"
            )
        return asked
    return next((label for label, method in methods.items() if isinstance(method, LoRA)), None)
