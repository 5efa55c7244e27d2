"""What a run was trained and evaluated on: 16 bytes of hashes for each row, and the task's targets."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structune.data.examples import Examples
from structune.errors import UserError
from structune.finetune.task_data import TaskData
from structune.tasks.task import Targets

_BYTES = 8


@dataclass(frozen=True)
class Rows:
    """Rows in their order, 8 bytes of a hash each.

    Attributes:
        inputs: of what the model sees, texts but for case and spaces: equal for what the split takes for the same.
        whole: of what the model sees as it stands, and the label.
    """

    inputs: tuple[bytes, ...]
    whole: tuple[bytes, ...]

    @classmethod
    def of(cls, examples: Examples) -> Rows:
        """Hash each row."""
        inputs = [_hash(*(_plain(part) for part in row)) for row, _ in examples.rows()]
        whole = [_hash(*row, *([] if label is None else [label])) for row, label in examples.rows()]
        return cls(tuple(inputs), tuple(whole))

    def __len__(self) -> int:
        return len(self.whole)

    def digest(self) -> str:
        """SHA-256 of all rows, in whatever order they stand."""
        return hashlib.sha256(b"".join(sorted(self.whole))).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As `data.json` holds it."""
        return {"rows": len(self), "sha256": self.digest(), "texts": _joined(self.inputs), "whole": _joined(self.whole)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Rows:
        """What `to_json` gave."""
        return cls(_cut(content["texts"]), _cut(content["whole"]))


@dataclass(frozen=True)
class Fingerprint:
    """Of the training rows, the held-out rows, and what the task learned from the data alone."""

    train: Rows
    evaluation: Rows
    targets: Targets

    @classmethod
    def of(cls, data: TaskData) -> Fingerprint:
        """Hash what was loaded."""
        return cls(Rows.of(data.train), Rows.of(data.evaluation), data.targets)

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
            classes = (
                {"classes": content["classes"]} if "classes" in content else {}
            )  # of a run from before there were tasks
            return cls(train, evaluation, content.get("targets", classes))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is damaged ({error}); restore it, or train again") from None

    def to_json(self) -> dict[str, Any]:
        """As `data.json` holds it."""
        return {
            "targets": dict(self.targets),
            "train": self.train.to_json(),
            "evaluation": self.evaluation.to_json(),
        }

    def digest(self) -> tuple[str, str, str]:
        """Equal for the same rows and targets, in whatever order the rows stand."""
        return self.train.digest(), self.evaluation.digest(), json.dumps(dict(self.targets))

    def changes(self, now: Fingerprint, ordered: bool = False, words: tuple[str, str] = ("then", "now")) -> list[str]:
        """What is different `now`, a phrase each; the order of the rows too, if it matters.

        `words` stand behind what is here and what is there.
        """
        here, there = words
        found = []
        for what, before, after in (
            ("training rows", self.train, now.train),
            ("held-out rows", self.evaluation, now.evaluation),
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
        trained = set(self.train.inputs)
        return sum(row in trained for row in rows.inputs)


def _plain(part: Any) -> Any:
    """A text but for case and spaces; anything else as it is."""
    return " ".join(part.lower().split()) if isinstance(part, str) else part


def _hash(*parts: Any) -> bytes:
    """Of the parts with their lengths, so that no two lists of parts run into the same bytes.

    Texts are hashed as they stand, what has a `digest` of its own by that, and anything else as JSON.
    """
    digest = hashlib.blake2b(digest_size=_BYTES)
    for part in parts:
        known = getattr(part, "digest", None) or (part if isinstance(part, str) else json.dumps(part))
        encoded = known.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()


def _joined(hashes: Sequence[bytes]) -> str:
    return base64.b64encode(b"".join(hashes)).decode()


def _cut(text: str) -> tuple[bytes, ...]:
    raw = base64.b64decode(text, validate=True)
    return tuple(raw[start : start + _BYTES] for start in range(0, len(raw), _BYTES))


def _shown(target: Any) -> str:
    if not isinstance(target, list):
        return repr(target)
    shown = ", ".join(map(repr, target[:10]))
    return f"{shown}, ... ({len(target)})" if len(target) > 10 else shown
