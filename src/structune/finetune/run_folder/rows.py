"""Rows of examples by their hashes: 16 bytes for each."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from structune.data.examples import Examples

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

    def among(self, others: Rows) -> int:
        """How many of these rows are among others, whatever their label."""
        known = set(others.inputs)
        return sum(row in known for row in self.inputs)

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


NO_ROWS = Rows((), ())


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
