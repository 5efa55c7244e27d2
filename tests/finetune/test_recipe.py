"""Recipes: reading, overriding, validating, and errors that name the field, the value and the fix."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest

import structune
from structune.errors import UserError
from structune.finetune.recipe.recipe import Recipe, ResolvedRecipe
from structune.finetune.recipe.shipped import recipe_names
from structune.methods import registry as methods
from structune.methods.c3a import C3A
from structune.methods.head import Head
from structune.methods.hydra import Hydra
from structune.methods.lora import LoRA
from structune.methods.structune import Structune
from structune.structures import registry

DATA = {"data": {"train": "reviews.csv"}}


def load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return Recipe.load(path, overrides)


def read_back(tmp_path: Path, recipe: ResolvedRecipe) -> ResolvedRecipe:
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    return ResolvedRecipe.load(path)


def test_reads_yaml_with_plain_exponents(tmp_path: Path) -> None:
    recipe = load(tmp_path, "data: {train: r.csv}\ntrain: {learning_rate: 1e-3, head_learning_rate: 5E-4, epochs: 2}")
    assert recipe.train.learning_rate == 1e-3
    assert recipe.train.head_learning_rate == 5e-4
    assert recipe.name == "mine"


def test_a_section_with_nothing_left_in_it_has_its_defaults(tmp_path: Path) -> None:
    recipe = load(tmp_path, "data: {train: r.csv}\ntrain:\n  # epochs: 2\nmodel:\n")
    assert recipe.train.batch_size == 32
    assert recipe.model.name == "embedded"


def test_overrides_are_yaml_and_reach_any_depth(tmp_path: Path) -> None:
    recipe = load(
        tmp_path,
        "data: {train: r.csv}",
        "train.learning_rate=2e-2",
        "method={name: hydra, structure: hankel, pool_size: 96}",
        "method.fixed_ratio=0.5",
        "method.target_modules=[key]",
        "data.text=review",
    )
    assert recipe.train.learning_rate == 2e-2
    assert recipe.method == Hydra(structure="hankel", pool_size=96, fixed_ratio=0.5, target_modules=["key"])
    assert recipe.data.text == "review"


@pytest.mark.parametrize("name", methods.preset_names())
def test_a_preset_stands_for_its_section_and_has_learning_rates(name: str) -> None:
    recipe = Recipe.parse({**DATA, "method": name}).resolved()
    assert recipe.method == methods.preset(name)
    assert recipe.method.label == name
    assert recipe.train.learning_rate == recipe.method.rates().adapter
    assert recipe.train.head_learning_rate == recipe.method.rates().head
    assert recipe.output == f"runs/recipe-{name}"


def test_own_options_of_a_family_are_keys_of_the_section(tmp_path: Path) -> None:
    """Runs made before `structure_options` have them as keys, null where the family had none."""
    text = "data: {train: a.csv}\nmethod: {name: hydra, structure: low_rank, num_splits: 1}\n"
    recipe = load(tmp_path, text, "method.rank=4", "method.rank_pattern={query: 2}")
    assert recipe.method.structure_options == {"rank": 4}
    assert recipe.method.structure_options_pattern == {"query": {"rank": 2}}
    assert load(tmp_path, recipe.to_yaml()) == recipe
    assert load(tmp_path, text, "method.rank=null") == load(tmp_path, text)
    assert load(tmp_path, text, "method.structure_options={rank: 4}").method.structure_options == {"rank": 4}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "hydra", "pool_szie": 8}, "method.pool_szie: unknown key (did you mean 'pool_size'?)"),
        ({"name": "hydra", "rank": "four"}, "method.rank: unknown key"),
        ({"name": "hydra", "rank": True}, "method.rank: unknown key"),
        ({"name": "hydra", "rank_pattern": 4}, "method.rank_pattern: unknown key"),
        ({"name": "hydra", "rank": 0}, "method.structure_options = {'rank': 0}: rank=0 must be an integer of at least"),
        ({"name": "hydra", "structure_options": [4]}, "method: structure_options=[4] must map names"),
        ({"name": "c3a", "rank": 4}, "method.rank: unknown key"),
        ({"name": "c3a", "structure": "toeplitz"}, "method.structure: unknown key"),
        ({"name": "hydra", "pool_size_pattern": {"query": 0}}, "pool_size=0 must be an integer of at least 1"),
        ({"name": "lora", "pool_size": 4}, "method.pool_size: unknown key"),
    ],
)
def test_keys_that_are_no_option(method: dict[str, Any], message: str) -> None:
    if "structure_options" in method:
        method = method | {"rank": 2}
    with pytest.raises(UserError) as caught:
        Recipe.parse({**DATA, "method": method})
    assert message in str(caught.value)


@pytest.mark.parametrize("scope", ["model", "module", "{attention: query|value}"])
def test_who_shares_a_pool_is_said_in_the_recipe(scope: str, tmp_path: Path) -> None:
    text = "data: {train: a.csv}\nmethod: {name: hydra, pool_size: 13, pool_scope: SCOPE}\n"
    recipe = load(tmp_path, text.replace("SCOPE", scope))
    assert recipe.method.pool_scope == ({"attention": "query|value"} if scope.startswith("{") else scope)
    assert load(tmp_path, recipe.to_yaml()) == recipe
    with pytest.raises(UserError, match="method.pool_scope = 'layer': must be 'matrix', 'module', 'model' or a dict"):
        load(tmp_path, text.replace("SCOPE", "layer"))


@pytest.mark.parametrize(
    ("said", "cut"),
    [
        ("{name: c3a}", (64, None)),
        ("{name: c3a, num_splits: 4}", (None, 4)),
        ("{name: c3a, block_size: gcd}", ("gcd", None)),
        ("{name: c3a, block_size: null, num_splits: 3}", (None, 3)),
    ],
)
def test_c3a_cuts_by_size_or_by_number(tmp_path: Path, said: str, cut: tuple[Any, Any]) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(f"data: {{train: x.csv}}\nmethod: {said}\n")
    method: Any = Recipe.load(file).method
    assert (method.block_size, method.num_splits) == cut
    file.write_text(Recipe.load(file).resolved().to_yaml())
    assert Recipe.load(file).method == method


def test_preset_names_take_underscores_too() -> None:
    assert methods.preset("hydra_low_rank") == Hydra(structure="low_rank", num_splits=1)


@pytest.mark.parametrize(
    ("method", "rate"),
    [
        ({"name": "hydra", "structure": "low_rank"}, 4e-3),
        ({"name": "hydra", "structure": "low_rank", "init_weights": "lora"}, 8e-3),
        ({"name": "structune", "structure": "low_rank", "init_weights": "lora"}, 8e-3),
        ({"name": "hydra", "structure": "toeplitz", "init_weights": "lora"}, 2e-3),  # which is refused with the model
    ],
)
def test_the_start_decides_the_recommended_rate(method: dict[str, Any], rate: float) -> None:
    assert Recipe.parse({**DATA, "method": method}).resolved().train.learning_rate == rate


def test_given_learning_rates_win() -> None:
    recipe = Recipe.parse({**DATA, "train": {"learning_rate": 0.7, "head_learning_rate": 0.3}}).resolved()
    assert (recipe.train.learning_rate, recipe.train.head_learning_rate) == (0.7, 0.3)


def test_learning_rates_by_method_come_before_the_recommendation() -> None:
    rates = {"learning_rates": {"hydra_toeplitz": {"adapter": 0.5}, "head": {"head": 0.25}}}
    recipe = Recipe.parse({**DATA, "method": "hydra-toeplitz", "train": rates})
    assert recipe.resolved().train.learning_rate == 0.5
    assert recipe.resolved().train.head_learning_rate == recipe.method.rates().head
    assert recipe.with_method("head").resolved().train.head_learning_rate == 0.25
    assert recipe.with_method("c3a").resolved().train.learning_rate == C3A().rates().adapter


def test_resolved_recipe_reads_back_equal(tmp_path: Path) -> None:
    recipe = Recipe.parse({**DATA, "method": "hydra-vandermonde", "train": {"learning_rate": 1e-5}}).resolved()
    assert Path(recipe.data.train or "").is_absolute()
    assert read_back(tmp_path, recipe) == recipe


def test_with_method_keeps_the_layers_and_leaves_the_folder() -> None:
    recipe = Recipe.parse({**DATA, "output": "here", "method": {"name": "c3a", "target_modules": ["key"]}})
    other = recipe.with_method("lora")
    assert other.method == LoRA(target_modules=["key"])
    assert other.output is None
    assert recipe.with_method("head").method == Head()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"trian": {}}, "recipe: trian: unknown key (did you mean 'train'?)"),
    ({"train": {"learning_rat": 1}}, "train.learning_rat: unknown key (did you mean 'learning_rate'?)"),
    ({"train": {"learning_rate": "big"}}, "train.learning_rate = 'big'"),
    ({"train": {"learning_rate": 0.0}}, "train.learning_rate = 0.0: input should be greater than 0"),
    ({"train": {"learning_rate": 1e308}}, "train.learning_rate = 1e+308: input should be less than or equal to"),
    ({"method": {"name": "c3a", "scale": 1e308}}, "method.scale = 1e+308: must be a finite number of at most 1e+18"),
    ({"train": {"batch_size": "32"}}, "train.batch_size = '32'"),
    ({"train": {"scheduler": "cosin"}}, "(did you mean 'cosine'?)"),
    ({"train": {"epochs": 1, "max_steps": 5}}, "epochs = 1.0 and max_steps = 5 are both given; remove one"),
    ({"train": {"learning_rates": {"lorra": {"adapter": 1.0}}}}, "method 'lorra': unknown (did you mean 'lora'?)"),
    ({"train": {"warmup": 0}}, "warmup = 0 leaves onecycle no rise"),
    ({"method": "hydra-topelitz"}, "method 'hydra-topelitz': unknown (did you mean 'hydra-toeplitz'?); known: ada"),
    ({"method": {"name": "c3"}}, "method.name = 'c3': unknown (did you mean 'c3a'?); known: adalora, peft, bitfit,"),
    ({"method": {"rank": 8}}, "method: give the section a name"),
    ({"method": {"name": "c3a", "blok_size": 8}}, "method.blok_size: unknown key (did you mean 'block_size'?)"),
    ({"method": {"name": "c3a", "block_size": 0}}, "method.block_size = 0: must be an integer of at least 1"),
    ({"method": {"name": "hydra", "fixed_ratio": 1.0}}, "method.fixed_ratio = 1.0: must be a number in [0, 1)"),
    (
        {"method": {"name": "hydra", "structure": "topelitz"}},
        "method.structure = 'topelitz': is unknown: did you mean 'toeplitz'?",
    ),
    ({"data": {}}, "give exactly one of train (a file), hub (a data set's id) and embedded; found none"),
    ({"data": {"train": "a.csv", "hub": "b"}}, "found train, hub"),
    ({"data": {"embedded": "tweet"}}, "(did you mean 'tweets'?)"),
    ({"data": {"embedded": "tweets", "text": "x"}}, "the embedded data has its own columns; remove text"),
    ({"data": {"hub": "x", "separator": ";"}}, "separator goes with train, not with hub"),
    ({"name": "../escape"}, "name = '../escape'"),
    ({"name": "a/b"}, "name = 'a/b': becomes part of a folder's name; 'a_b' would do"),
    ({"name": "x" * 200}, "becomes part of a folder's name"),
    ({"name": " "}, "'recipe' would do"),
]


@pytest.mark.parametrize(("patch", "message"), WRONG)
def test_mistakes_are_told_by_field_value_and_fix(patch: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipe.parse({**DATA, **patch})
    assert message in str(caught.value)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Recipe.parse({**DATA, "seed": -1, "train": {"batch_size": 0}})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [1,", "line 1, column 11: not valid YAML"),
        ("data: {train: a.csv}\ndata: {train: b.csv}", "the key 'data' is given twice"),
        ("- a\n- b", "expected sections such as 'model:' and 'data:', found ['a', 'b']"),
        ("", "found None"),
    ],
)
def test_wrong_yaml(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_missing_recipe_names_those_there(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("")
    with pytest.raises(UserError, match=r"no such file; recipes there: .*other\.yaml"):
        Recipe.load(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "write it as section.key=value"),
        ("=3", "write it as section.key=value"),
        ("seed.x=3", "seed is 1, not a section"),
        ("train.epochs=[1", "not valid YAML"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, "seed: 1\ndata: {train: a.csv}", override)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "#1 String", "Title: long", "[a", "{a", "*a", "&a", "!a", "%a", "@a", "`a", "- a", "> a", "| a", "? a", "a #b",
        "it's", "'a' or 'b'", '"a" or "b"', "5", "1e3", "yes", "null", "2024-01-01", "text = x", "Spalte für Text",
    ],
)  # fmt: skip
def test_an_override_of_a_text_is_taken_as_it_stands(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, "data: {train: a.csv}", f"data.text={text}").data.text == text
    assert load(tmp_path, "data: {train: a.csv}", f"data.text= {text} ").data.text == text


def test_overrides_keep_their_types_and_quotes(tmp_path: Path) -> None:
    def value(override: str) -> Any:
        recipe: Any = load(tmp_path, "data: {train: a.csv, text_pair: b}\nmethod: {name: lora}\ntrain:\n", override)
        for part in override.partition("=")[0].split("."):
            recipe = getattr(recipe, part)
        return recipe

    assert value('data.text=" a "') == " a "
    assert value("data.text='it''s'") == "it's"
    assert [value(f"data.text_pair={null}") for null in ("null", "~", "")] == [None] * 3
    assert value("data.separator=\t") == "\t"
    assert value("seed=5") == 5
    assert value("train.epochs=2") == 2.0
    assert value("train.report_to=[tensorboard, 'x']") == ["tensorboard", "x"]
    assert value("method.target_modules=[key]") == ["key"]
    assert value("method.target_modules=.*query") == ".*query"
    assert value("method.target_modules=*query") == "*query"
    assert value("train.group_by_length=true") is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {train: a.csv, text: }\n", "data.text: nothing there; put a text that begins with # in quotes"),
        ("data:\n  train: a.csv\n  text: #1 String\n", "data.text: nothing there"),
        ("data: {train: a.csv, label: yes}", "data.label = True: must be a text; put it in quotes"),
        ("data: {train: a.csv, label: [a, b]}", "data.label = ['a', 'b']: must be a text; give one"),
    ],
)
def test_what_yaml_makes_of_a_text(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_a_comment_where_a_text_is_meant_is_told(tmp_path: Path) -> None:
    text = "data:\n  train: a.csv\n  text_pair: #2 String\n"
    with pytest.warns(UserWarning, match=r"'text_pair: #2 String' sets nothing: # begins a comment") as caught:
        assert load(tmp_path, text).data.text_pair is None
    assert len(caught) == 1


def test_other_comments_are_comments(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    load(
        tmp_path,
        "data:  #mine\n  train: a.csv  #here\n  text_pair: # none\n  #text: x\n"
        "train: #all\n\n  learning_rates: #some\n    lora: {adapter: 1.0}\n",
    )
    assert not recwarn


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("reviews [v2].yaml", "reviews [v2]"),
        ("Kritiken für Köche, 2 (neu).yaml", "Kritiken für Köche, 2 (neu)"),
        ("影评 🎬.yaml", "影评 🎬"),
        ("-x.yaml", "-x"),
        ("$a$ {b} %s.yaml", "$a$ {b} %s"),
        ("two\nlines.yaml", "two_lines"),
        ("back\\slash.yaml", "back_slash"),
        (f"{'é' * 120}.yaml", "é" * 75),
    ],
)
def test_a_recipe_file_of_any_name_gives_a_name(tmp_path: Path, file: str, name: str) -> None:
    (tmp_path / file).write_text("data: {train: a.csv}")
    recipe = Recipe.load(tmp_path / file).resolved()
    assert recipe.name == name
    assert read_back(tmp_path, recipe) == recipe
    (tmp_path / str(recipe.output)).mkdir(parents=True)
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [f"{name}-c3a"]


def test_sections_say_the_same_as_the_core() -> None:
    """What is no option of ΔW is repeated in `Structune`: recipes are checked without torch. Here it is held equal."""
    inherited = {field.name for field in dataclasses.fields(peft.PeftConfig)}
    own = {field.name for field in dataclasses.fields(structune.StructuneConfig)} - inherited
    # Encoders have no fused experts, and new tokens are no business of a recipe.
    set_elsewhere = {"modules_to_save", "sampler_version", "target_parameters", "trainable_token_indices"}
    assert set(Structune.model_fields) - {"name"} == own - set_elsewhere


def test_a_family_from_outside_is_as_good_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_families", dict(registry._families))
    method = {"name": "hydra", "structure": "upside_down"}
    expected = r"method\.structure = 'upside_down': is unknown: known are block_diagonal, .*, vandermonde_like"
    with pytest.raises(UserError, match=expected):
        Recipe.parse({**DATA, "method": method})

    @structune.structures.register
    class UpsideDown(structune.structures.Structure):
        name = "upside_down"
        num_splits = 3
        learning_rate = 0.125

    assert Recipe.parse({**DATA, "method": method}).resolved().method.label == "hydra-upside-down"
    preset = Recipe.parse({**DATA, "method": "hydra-upside-down"}).resolved()
    assert preset.method == Hydra(structure="upside_down", num_splits=3)
    assert preset.train.learning_rate == 0.125


def test_recipes_and_data_are_checked_without_torch(tmp_path: Path) -> None:
    """Neither the command line nor a recipe's whole check needs heavy libraries."""
    (tmp_path / "r.csv").write_text("text,label\na,x\nb,y\n" + "".join(f"t{n},{'xy'[n % 2]}\n" for n in range(20)))
    code = """
import sys
import structune.cli
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.task_data import load_data
recipe = Recipe.parse({"data": {"train": "r.csv"}, "method": "hydra-toeplitz"}).resolved()
assert len(load_data(recipe.task, recipe.data).train) > 10
print(sorted(set(sys.modules) & {"torch", "transformers", "peft", "datasets", "matplotlib", "pandas", "numpy"}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_recipes_that_come_with_structune_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"movie-sentences", "own-csv"} <= set(recipe_names())
    for name in recipe_names():
        recipe = Recipe.load(name, ["seed=7"])
        assert (recipe.name, recipe.seed) == (name, 7)
    with pytest.raises(UserError, match=r"no recipe of that name \(did you mean 'own-csv'\?\); with structune come: "):
        Recipe.load("own-cvs")
    with pytest.raises(UserError, match=r"recipe 'recipes/own-csv.yaml': no such file"):
        Recipe.load("recipes/own-csv.yaml")


def test_a_file_here_is_never_mistaken_for_a_recipe_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own-csv.yaml").write_text("data: {train: a.csv}\nseed: 3")
    with pytest.raises(UserError, match=r"own-csv\.yaml is here too: write 'own-csv\.yaml' for yours, or '.*own-csv"):
        Recipe.load("own-csv")
    assert Recipe.load("own-csv.yaml").seed == 3
    (tmp_path / "movie-sentences").write_text("data: {train: a.csv}\nseed: 4")
    assert Recipe.load("movie-sentences").seed == 4


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_recipes_that_come_with_the_project_are_valid(path: Path) -> None:
    recipe = Recipe.load(path).resolved()
    assert recipe.name == path.stem
    assert ResolvedRecipe.parse(recipe.model_dump(mode="json")) == recipe


def test_one_name_is_a_list_of_one(tmp_path: Path) -> None:
    assert load(tmp_path, "data: {train: a.csv}", "train.report_to=wandb").train.report_to == ["wandb"]
    assert load(tmp_path, "data: {train: a.csv}\ntrain: {report_to: tensorboard}").train.report_to == ["tensorboard"]
    assert load(tmp_path, "data: {train: a.csv}", "train.report_to=[wandb, mlflow]").train.report_to == [
        "wandb",
        "mlflow",
    ]
