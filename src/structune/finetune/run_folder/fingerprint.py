"""What a run was trained and evaluated on: 16 bytes of hashes for each row, and the task's targets."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structune.errors import UserError
from structune.finetune.run_folder.rows import NO_ROWS, Rows
from structune.finetune.task_data import TaskData
from structune.tasks.task import Targets


@dataclass(frozen=True)
class Fingerprint:
    """Of the rows of each part, and what the task learned from the data alone. Without a test part it has no rows."""

    train: Rows
    evaluation: Rows
    targets: Targets
    test: Rows = NO_ROWS

    @classmethod
    def of(cls, data: TaskData) -> Fingerprint:
        """That of what was loaded."""
        train, evaluation, *test = data.rows
        return cls(train, evaluation, data.targets, *test)

    @classmethod
    def load(cls, path: Path) -> Fingerprint | None:
        """What a run stored; None for a run from before this was done.

        Raises:
            UserError: the file is damaged.
        """
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            train, evaluation = Rows.from_json(content["train"]), Rows.from_json(content["evaluation"])
            # Runs from before there were tasks have classes alone.
            classes = {"classes": content["classes"]} if "classes" in content else {}
            test = Rows.from_json(content["test"]) if "test" in content else NO_ROWS
            return cls(train, evaluation, content.get("targets", classes), test)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is damaged ({error}); restore it, or train again") from None

    def to_json(self) -> dict[str, Any]:
        """As `data.json` holds it."""
        return {
            "targets": dict(self.targets),
            "train": self.train.to_json(),
            "evaluation": self.evaluation.to_json(),
            **({"test": self.test.to_json()} if len(self.test) else {}),
        }

    def digest(self) -> tuple[str, ...]:
        """Equal for the same rows and targets, in whatever order the rows stand."""
        parts = (self.train, self.evaluation, self.test)
        return *(part.digest() for part in parts), json.dumps(dict(self.targets))

    def changes(self, now: Fingerprint, ordered: bool = False, words: tuple[str, str] = ("then", "now")) -> list[str]:
        """What is different `now`, a phrase each; the order of the rows too, if it matters.

        `words` stand behind what is here and what is there.
        """
        here, there = words
        found = []
        for what, before, after in (
            ("training rows", self.train, now.train),
            ("held-out rows", self.evaluation, now.evaluation),
            ("test rows", self.test, now.test),
        ):
            gone, new = Counter(before.whole) - Counter(after.whole), Counter(after.whole) - Counter(before.whole)
            if gone or new:
                counts = f"{gone.total():,} gone, {new.total():,} new"
                found.append(f"{what}: {len(before):,} {here}, {len(after):,} {there} ({counts})")
            elif ordered and before.whole != after.whole:
                found.append(f"{what}: the same, in another order")
        for name in {**self.targets, **now.targets}:
            old, new_one = self.targets.get(name), now.targets.get(name)
            if old != new_one:
                found.append(f"{name}: {_shown(old)} {here}, {_shown(new_one)} {there}")
        return found

    def trained_on(self, rows: Rows) -> int:
        """How many of these rows were trained on, whatever their label."""
        return rows.among(self.train)


def _shown(target: Any) -> str:
    if not isinstance(target, list):
        return repr(target)
    shown = ", ".join(map(repr, target[:10]))
    return f"{shown}, ... ({len(target)})" if len(target) > 10 else shown
