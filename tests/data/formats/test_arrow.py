"""Parquet, Arrow and Feather as other programs write them."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path

import datasets
import pandas
import pyarrow
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest

from structune.data.reading import read_table
from structune.errors import UserError

ROWS = {
    "text": ["naïve", "b"],
    "stars": [1.5, None],
    "tags": [["x", "y"], []],
    "image": [{"bytes": b"\x89PNG", "path": "a.png"}] * 2,
    "day": [datetime.date(2020, 1, 2)] * 2,
    "price": [Decimal("1.50")] * 2,
}


def write(path: Path, how: str) -> Path:
    table = pyarrow.table(ROWS)
    match how:
        case "parquet":
            pyarrow.parquet.write_table(table, path)
        case "file":
            with pyarrow.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)
        case "stream":
            with pyarrow.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table)
        case "feather":
            pyarrow.feather.write_feather(table, path)
    return path


@pytest.mark.parametrize("how", ["parquet", "file", "stream", "feather"])
@pytest.mark.parametrize("name", ["x.parquet", "x.csv"])
def test_cells_keep_their_types(tmp_path: Path, how: str, name: str) -> None:
    table = read_table(write(tmp_path / name, how), "train")
    assert table.columns == ROWS
    assert table.column("day", "text") == ["2020-01-02"] * 2
    assert table.column("price", "label") == ["1.50"] * 2
    assert table.column("tags", "label") == ['["x", "y"]', "[]"]
    assert table.values("image.bytes", "image") == [b"\x89PNG"] * 2
    with pytest.raises(UserError, match=r"data\.label = 'stars': 1 of 2 rows of .* have nothing there \(row 2\)"):
        table.column("stars", "label")


def test_as_pandas_writes_it(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"text": ["a", "b"], "kind": pandas.Categorical(["x", "y"]), "n": [1.0, None]})
    frame.to_parquet(tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet", "train").columns == {
        "text": ["a", "b"],
        "kind": ["x", "y"],
        "n": [1, None],
    }


def test_class_numbers_become_the_names_that_the_file_says(tmp_path: Path) -> None:
    features = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"]), "n": datasets.Value("int8")})
    datasets.Dataset.from_dict({"label": [1, 0, -1], "n": [1, 0, 1]}, features=features).to_parquet(
        tmp_path / "x.parquet"
    )
    assert read_table(tmp_path / "x.parquet", "train").columns == {"label": ["yes", "no", None], "n": [1, 0, 1]}


def test_what_does_not_work(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", "parquet")
    assert read_table(path, "train", ";", None, "latin-1", "one").columns == ROWS
    with pytest.raises(UserError, match=r"data\.columns is for files without a header; a Parquet file has names"):
        read_table(path, "train", columns=["a"])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="a Parquet file, and damaged"):
        read_table(path, "train")
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    with pytest.raises(UserError, match=r"columns \('text'\) and no rows"):
        read_table(path, "train")
