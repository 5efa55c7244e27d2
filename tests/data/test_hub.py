"""A data set of the hub as a table, without the hub."""

from __future__ import annotations

import datasets
import pytest

from structune.data.hub import load_hub
from structune.errors import UserError


def test_class_numbers_become_names_in_lists_too(monkeypatch: pytest.MonkeyPatch) -> None:
    label = datasets.ClassLabel(names=["no", "yes"])
    rows = {"n": [1.5, 2.0, None], "label": [1, -1, 0], "tags": [[0, 1], [0], []], "flag": [True, False, True]}
    features = datasets.Features(
        {"n": datasets.Value("float32"), "label": label, "tags": datasets.List(label), "flag": datasets.Value("bool")}
    )
    made = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset, split: made)
    table = load_hub("owner/name", None, "train")
    assert table.columns == {
        "n": [1.5, None],
        "label": ["yes", "no"],
        "tags": [["no", "yes"], []],
        "flag": ["True", "True"],
    }
    assert table.lines == [1, 3]
    with pytest.raises(UserError, match=r"data\.label = 'n': 1 of 2 rows of owner/name/train .* \(row 3\)"):
        table.column("n", "label")


def test_images_stay_as_they_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    features = datasets.Features({"image": datasets.Image()})
    made = datasets.Dataset.from_dict({"image": [{"bytes": b"no image", "path": None}]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset, split: made)
    assert load_hub("owner/name", None, "train").values("image", "image") == [{"bytes": b"no image", "path": None}]
