"""Paths as people write them, in recipes, in `--set` and in the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from structune.data.embedded import cache_folder
from structune.errors import UserError
from structune.finetune.recipe.recipe import Recipe, ResolvedRecipe
from structune.paths import expand


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("DATA", "/big/disk")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("LATER", "~/later")
    monkeypatch.delenv("NOWHERE", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~", "/home/ada"),
        ("~/x.csv", "/home/ada/x.csv"),
        ("~root/x.csv", "/root/x.csv"),
        ("$DATA/x.csv", "/big/disk/x.csv"),
        ("${DATA}2/$DATA", "/big/disk2//big/disk"),
        ("$LATER/x", "/home/ada/later/x"),
        ("in $$DATA.csv", "in $DATA.csv"),
        ("cost in $.csv", "cost in $.csv"),
        ("a~b/~c", "a~b/~c"),
        ("FacebookAI/roberta-base", "FacebookAI/roberta-base"),
        ("../x y.csv", "../x y.csv"),
    ],
)
def test_what_is_meant(written: str, meant: str) -> None:
    assert expand(written) == meant


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("$NOWHERE/x", "the environment variable NOWHERE is not set; set it, or write $$"),
        ("${NOWHERE}", "the environment variable NOWHERE is not set"),
        ("$EMPTY/x", "the environment variable EMPTY is empty"),
        ("${DATA:-x}", "${DATA:-x} is no variable; write ${NAME}"),
        ("~no-such-user/x", "no user 'no-such-user' here; write ./~"),
    ],
)
def test_what_means_nothing(written: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        expand(written)
    assert message in str(caught.value)


def test_a_file_of_that_very_name_is_meant(tmp_path: Path) -> None:
    for name in ("price$NOWHERE.csv", "~draft.csv"):
        (tmp_path / name).write_text("")
        assert expand(name) == name


@pytest.mark.parametrize("key", ["output", "model.name", "data.train", "data.evaluation", "data.hub"])
@pytest.mark.parametrize("by_override", [True, False])
def test_every_path_of_a_recipe(tmp_path: Path, key: str, by_override: bool) -> None:
    section, _, inner = key.rpartition(".")
    other = {"data": {"train": "x.csv"}} if key != "data.hub" else {"data": {}}

    def value(written: str) -> str:
        content: dict[str, dict[str, str] | str] = {name: dict(keys) for name, keys in other.items()}
        if by_override:
            overrides = [f"{key}={written}"]
        else:
            overrides = []
            target = content.setdefault(section, {}) if section else content
            assert isinstance(target, dict)
            target[inner] = written
        (tmp_path / "r.yaml").write_text(str(content))
        recipe: object = Recipe.load("r.yaml", overrides)
        for part in key.split("."):
            recipe = getattr(recipe, part)
        return str(recipe)

    assert value("~/a b") == "/home/ada/a b"
    assert value("${DATA}/c") == "/big/disk/c"
    with pytest.raises(UserError) as caught:
        value("$NOWHERE/c")
    assert f"{key} = '$NOWHERE/c': the environment variable NOWHERE is not set" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.yaml"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "it names nothing; give a name, or leave it out"),
        ("runs/" + "x" * 256, "a name in it has 256 bytes, and file systems take 255; give a shorter one"),
        ("é" * 128 + "/run", "a name in it has 256 bytes"),
        ("runs/a\nb", "it holds a line break or another control character; leave it out"),
    ],
)
def test_what_nothing_is_called(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        expand(name)
    assert message in str(caught.value)
    with pytest.raises(UserError, match="model.name = "):
        Recipe.parse({"model": {"name": name}, "data": {"train": "a.csv"}})
    assert expand("runs/" + "x" * 255).endswith("x")


def test_a_resolved_recipe_reads_back_with_its_dollars(tmp_path: Path) -> None:
    recipe = Recipe.parse({"output": "in $$DATA", "data": {"train": "a$$b.csv"}}).resolved()
    assert (recipe.output, Path(recipe.data.train or "").name) == ("in $DATA", "a$b.csv")
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    assert ResolvedRecipe.load("r.yaml") == recipe


def test_the_cache_folder_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRUCTUNE_CACHE", "~/cache")
    assert cache_folder() == Path("/home/ada/cache")
