"""Several files in one table, and what a recipe may name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from structune.data.section import DataSection
from structune.data.sources import load_file, load_tables
from structune.errors import UserError
from structune.finetune.recipe.recipe import Recipe


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("b.csv").write_text("text,label\none,a\n\ntwo,b\n")
    Path("a.csv").write_text("label,text\nb,three\n,four\n")
    Path("c.jsonl").write_text(json.dumps({"text": "five", "label": "c"}) + "\n")
    Path("d.csv").write_text("text,lable\nsix,a\n")
    return tmp_path


def test_a_list_keeps_its_order_and_a_pattern_that_of_names(folder: Path) -> None:
    table = load_tables(DataSection(train=["b.csv", "a.csv", "c.jsonl"])).train
    assert table.columns["text"] == ["one", "two", "three", "four", "five"]
    assert table.columns["label"] == ["a", "b", "b", "", "c"]
    assert table.source == "b.csv and 2 more"
    assert load_tables(DataSection(train="[ab].c*")).train.columns["text"] == ["three", "four", "one", "two"]


def test_rows_are_told_with_their_file(folder: Path) -> None:
    with pytest.raises(UserError, match=r"1 of 4 rows of \[ab\]\.\* have nothing there \(line 3 of a\.csv\)"):
        load_file("[ab].*", DataSection(train="x")).column("label", "label")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (["b.csv", "d.csv"], "d.csv has other columns than b.csv: it lacks 'label' it has besides 'lable'."),
        (["b.csv", "b.csv"], "names 'b.csv' twice"),
        (["*.csv", "a.csv"], "names 'a.csv' twice"),
        ("*.parquet", "data.train = '*.parquet': no file has such a name"),
        (["b.csv", "e.csv"], "data.train = 'e.csv': no such file"),
    ],
)
def test_files_that_do_not_go_together(folder: Path, named: str | list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_tables(DataSection(train=named))
    assert message in str(caught.value)


def test_a_file_whose_name_has_a_star(folder: Path) -> None:
    Path("*.csv").write_text("text\nstar\n")
    assert load_file("*.csv", DataSection(train="x")).columns == {"text": ["star"]}


def test_a_recipe_names_one_or_several(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "b")
    recipe = Recipe.parse({"data": {"train": ["$HERE.csv", "a.csv"], "evaluation": "c.jsonl"}})
    assert recipe.data.files() == {"train[0]": "b.csv", "train[1]": "a.csv", "evaluation": "c.jsonl"}
    assert recipe.resolved().data.train == [str(folder / "b.csv"), str(folder / "a.csv")]
    Path("r.yaml").write_text(recipe.to_yaml())
    assert Recipe.load("r.yaml").data == recipe.data
    assert Recipe.load("r.yaml", ["data.train=[a.csv, b.csv]"]).data.train == ["a.csv", "b.csv"]
    assert Recipe.load("r.yaml", ["data.train=*.csv"]).data.train == "*.csv"
    for wrong, message in (
        ([], r"data\.train = \[\]: must be a text; give one"),
        (5, r"data\.train = 5: must be a text; put it in quotes"),
        (["a.csv", "$NOT_SET_HERE"], "the environment variable NOT_SET_HERE is not set"),
    ):
        with pytest.raises(UserError, match=message):
            Recipe.parse({"data": {"train": wrong}})
