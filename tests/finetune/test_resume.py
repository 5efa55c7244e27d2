"""What commands that can be gone on with say."""

from __future__ import annotations

import pytest

from structune.errors import UserError
from structune.finetune.stopping.resume import changes, refuse_both, resume_line


def test_both_are_refused() -> None:
    refuse_both(True, False)
    refuse_both(False, True)
    with pytest.raises(UserError, match="--resume and --overwrite exclude each other"):
        refuse_both(True, True)


def test_a_line_can_be_typed_as_it_stands() -> None:
    line = resume_line(["train", "my runs/recipe.yaml"])
    assert line == "continue with: structune train 'my runs/recipe.yaml' --resume"


def test_changes_are_named_with_both_values() -> None:
    before = {"epochs": 3, "name": "a", "same": 1, "gone": "x"}
    now = {"epochs": 4, "name": "a" * 100, "same": 1, "new": None}
    found = changes(before, now)
    assert list(found) == ["epochs", "gone", "name"]
    assert found["epochs"] == "epochs: 3 then, 4 now"
    assert found["gone"] == "gone: x then, None now"
    assert found["name"].endswith("... now") and len(found["name"]) < 100
