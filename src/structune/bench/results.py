"""What a benchmark measured, as files: JSON with everything, CSV with one line a method and case."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from structune.finetune.errors import UserError
from structune.finetune.files import write_text
from structune.finetune.section import Section


class Row(Section):
    """One method in one case. What was not measured is None, and `note` says why a method is left out.

    `ms`: milliseconds a call, one number a round. `saved`: bytes kept for backward, of which `saved_inputs` are
    the inputs. `peak`: the most bytes that a call has allocated at one time.
    """

    method: str
    kind: str
    algorithm: str | None = None
    trainable: int | None = None
    repeats: int | None = None
    ms: list[float] | None = None
    saved: int | None = None
    saved_inputs: int | None = None
    peak: int | None = None
    note: str | None = None


class CaseResult(Section):
    """One case: its name, its dtype, bytes of its inputs and of its largest adapted weight, its rows."""

    name: str
    dtype: str
    input_bytes: int
    weight_bytes: int
    rows: list[Row]

    def row(self, method: str) -> Row | None:
        """A method's row, if it has one."""
        return next((row for row in self.rows if row.method == method), None)


class Results(Section):
    """A suite as run, where and with what, and the cases finished so far."""

    suite: dict[str, Any]
    device: Literal["cpu", "cuda"]
    machine: dict[str, Any]
    versions: dict[str, str]
    commit: dict[str, Any] | None
    date: str
    cases: list[CaseResult]

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a JSON file. Raises `UserError` when it is no result of a benchmark."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: not the result of a benchmark ({reason}); measure again") from None

    def save(self, path: Path) -> None:
        """Write the JSON file, whole or not at all."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    def check_goes_on(self, other: Results, path: Path) -> None:
        """Raises `UserError` naming what differs, unless `other` may be continued from this, stored in `path`."""
        for what in ("suite", "device", "machine", "versions", "commit"):
            before, now = getattr(self, what), getattr(other, what)
            if before != now:
                raise UserError(
                    f"--resume: {path.name} was measured with another {what} ({_difference(before, now)}); "
                    f"start anew with --overwrite"
                )


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        shown = [f"{key}: {_short(before.get(key))} then, {_short(now.get(key))} now" for key in keys]
        return "; ".join(shown)
    return f"{_short(before)} then, {_short(now)} now"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
