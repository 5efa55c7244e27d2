"""What a run was trained and evaluated on: 16 bytes of hashes for each row, and the names of the classes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structune.errors import UserError
from structune.finetune.data import Examples, TaskData

_BYTES = 8


@dataclass(frozen=True)
class Rows:
    """Rows in their order, 8 bytes of a hash each.

    Attributes:
        texts: of the text or pair, but for case and spaces: equal for what the split takes for the same.
        whole: of the text or pair as it stands, and the label.
    """

    texts: tuple[bytes, ...]
    whole: tuple[bytes, ...]

    @classmethod
    def of(cls, examples: Examples) -> Rows:
        """Hash each row."""
        pairs: Sequence[str | None] = examples.pairs or [None] * len(examples)
        texts = [
            _hash(*(" ".join(part.lower().split()) for part in (one, two) if part is not None))
            for one, two in zip(examples.texts, pairs, strict=True)
        ]
        whole = [
            _hash(*(part for part in (one, two, label) if part is not None))
            for one, two, label in zip(examples.texts, pairs, examples.labels, strict=True)
        ]
        return cls(tuple(texts), tuple(whole))

    def __len__(self) -> int:
        return len(self.whole)

    def digest(self) -> str:
        """SHA-256 of all rows, in whatever order they stand."""
        return hashlib.sha256(b"".join(sorted(self.whole))).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As `data.json` holds it."""
        return {"rows": len(self), "sha256": self.digest(), "texts": _joined(self.texts), "whole": _joined(self.whole)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Rows:
        """What `to_json` gave."""
        return cls(_cut(content["texts"]), _cut(content["whole"]))


@dataclass(frozen=True)
class Fingerprint:
    """Of the training rows, the held-out rows and the classes in the order of the model's outputs."""

    train: Rows
    evaluation: Rows
    classes: tuple[str, ...]

    @classmethod
    def of(cls, data: TaskData) -> Fingerprint:
        """Hash what was loaded."""
        return cls(Rows.of(data.train), Rows.of(data.evaluation), tuple(data.label_names))

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
            return cls(train, evaluation, tuple(content["classes"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is damaged ({error}); restore it, or train again") from None

    def to_json(self) -> dict[str, Any]:
        """As `data.json` holds it."""
        return {
            "classes": list(self.classes),
            "train": self.train.to_json(),
            "evaluation": self.evaluation.to_json(),
        }

    def digest(self) -> tuple[str, str, tuple[str, ...]]:
        """Equal for the same rows and classes, in whatever order the rows stand."""
        return self.train.digest(), self.evaluation.digest(), self.classes

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
        if self.classes != now.classes:
            found.append(f"classes: {_named(self.classes)} {here}, {_named(now.classes)} {there}")
        return found

    def trained_on(self, rows: Rows) -> int:
        """How many of these rows have a text that was trained on."""
        trained = set(self.train.texts)
        return sum(text in trained for text in rows.texts)


def _hash(*parts: str) -> bytes:
    """Of the parts with their lengths, so that no two lists of parts run into the same bytes."""
    digest = hashlib.blake2b(digest_size=_BYTES)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.digest()


def _joined(hashes: Sequence[bytes]) -> str:
    return base64.b64encode(b"".join(hashes)).decode()


def _cut(text: str) -> tuple[bytes, ...]:
    raw = base64.b64decode(text, validate=True)
    return tuple(raw[start : start + _BYTES] for start in range(0, len(raw), _BYTES))


def _named(classes: Sequence[str]) -> str:
    shown = ", ".join(map(repr, classes[:10]))
    return f"{shown}, ... ({len(classes)})" if len(classes) > 10 else shown
