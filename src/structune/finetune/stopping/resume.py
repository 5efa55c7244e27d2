"""What every command that can be stopped and gone on with says."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from structune.errors import UserError

LONGEST = 60
"""Characters of a value that are shown."""


def refuse_both(resume: bool, overwrite: bool) -> None:
    """Raises `UserError` when both are asked for."""
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; give one")


def resume_line(command: Sequence[str]) -> str:
    """What to type to go on; `command` is what was typed at first, without `structune`."""
    return f"continue with: {shlex.join(['structune', *command, '--resume'])}"


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """For each key whose values differ, in words: `train.epochs: 3 then, 4 now`. Where one has no value, it is None."""
    return {
        key: f"{key}: {_short(before.get(key))} then, {_short(now.get(key))} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
