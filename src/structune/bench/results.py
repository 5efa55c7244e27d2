"""What a benchmark measured, as files: JSON with everything, CSV with one line a method and case."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from structune.errors import UserError
from structune.files import write_text
from structune.finetune.stopping.resume import changes
from structune.section import Section


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
                parts = isinstance(before, dict) and isinstance(now, dict)
                changed = changes(before, now) if parts else changes({what: before}, {what: now})
                raise UserError(
                    f"--resume: {path.name} was measured with another {what} ({'; '.join(changed.values())}); "
                    f"start anew with --overwrite"
                )
