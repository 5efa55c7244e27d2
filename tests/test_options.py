"""Each option of an update is written once, and families' own options are taken wherever options are."""

from __future__ import annotations

import copy
import inspect
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig

import structune
from structune import StructuneConfig, StructuredDelta, structures
from structune.methods.hydra import Hydra
from structune.options import OPTIONS, PATTERNED, OptionsByModule, UpdateOptions
from structune.structures import registry
from structune.structures.base import Structure
from structune.structures.generator import zeros

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def outsider(monkeypatch: pytest.MonkeyPatch) -> str:
    """A family with two options of its own, none of them known to the package."""
    monkeypatch.setattr(registry, "_families", dict(registry._families))

    @structures.register
    @dataclass(frozen=True)
    class Striped(Structure):
        name = "striped"
        stripes: int = 2
        width: int = 3

        def generators(self) -> dict[str, Any]:
            return {"s": zeros(self.stripes * self.width)}

        def entries(self, s: torch.Tensor) -> torch.Tensor:
            return s.sum(-1)[..., None, None].expand(*s.shape[:-1], self.rows, self.cols)

    return "striped"


def test_own_options_are_keywords_wherever_options_are_given(outsider: str) -> None:
    given: dict[str, Any] = {"structure": outsider, "num_splits": 2, "stripes": 5}
    assert UpdateOptions(**given).structure_options == {"stripes": 5}
    delta = StructuredDelta(8, 6, **given)
    assert delta.options == UpdateOptions(structure=outsider, num_splits=2, structure_options={"stripes": 5})
    assert delta.num_trainable == 4 * 5 * 3
    assert "striped, stripes=5, width=3" in repr(delta)
    for config in (StructuneConfig(**given), structune.hydra(pool_size=9, **given)):
        assert config.structure_options == {"stripes": 5}
        assert config.layer_options("any")["structure_options"] == {"stripes": 5}
    section = Hydra(**given)
    assert section.structure_options == {"stripes": 5}


def test_each_own_option_has_patterns_of_its_own(outsider: str) -> None:
    config = StructuneConfig(
        structure=outsider, num_splits=2, width=4, stripes_pattern={"b": 7, "a": 9}, width_pattern={"a": 5, "b|c": 6}
    )
    assert config.structure_options_pattern == {
        "b": {"stripes": 7},
        "a": {"stripes": 9, "width": 5},
        "b|c": {"width": 6},
    }
    assert config.at("x.a").structure_options == {"stripes": 9, "width": 5}
    assert config.at("x.b").structure_options == {"stripes": 7, "width": 6}
    assert config.at("c").structure_options == {"width": 6}
    assert config.at("d").structure_options == {"width": 4}
    assert config.idle_patterns(["x.a", "d"]) == {"stripes": ["b"], "width": ["b|c"]}
    assert (config.stripes_pattern, config.width_pattern) == ({"b": 7, "a": 9}, {"a": 5, "b|c": 6})


def test_own_options_are_read_and_set_as_they_are_written() -> None:
    config = StructuneConfig(structure="low_rank", num_splits=1)
    assert config.rank is None
    assert config.rank_pattern == {}
    config.rank = 4
    config.rank_pattern = {"q": 2}
    assert (config.rank, config.structure_options) == (4, {"rank": 4})
    assert (config.rank_pattern, config.structure_options_pattern) == ({"q": 2}, {"q": {"rank": 2}})
    assert (config.at("q").rank, config.at("v").rank) == (2, 4)
    assert not hasattr(config, "r")
    assert not hasattr(config, "alpha_pattern")
    config.r = 3  # no family's
    assert config.structure_options == {"rank": 4}


def test_the_keyword_counts_and_none_is_the_default() -> None:
    config = StructuneConfig(structure="low_rank", num_splits=1, structure_options={"rank": 2})
    assert replace(config, rank=8).structure_options == {"rank": 8}
    assert replace(config, rank=None) == StructuneConfig(structure="low_rank", num_splits=1)
    assert StructuredDelta(6, 4, structure="low_rank", num_splits=1, rank=None).structure.own_options() == {"rank": 1}
    # Families without a rank were saved with it too, as null.
    assert StructuneConfig(block_size=2, rank=None, rank_pattern={}) == StructuneConfig(block_size=2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rank": 2}, "rank=2 does not go with structure='circulant': leave it out, or use one of .*low_rank"),
        (
            {"structure_options": {"rnak": 2}, "structure": "low_rank"},
            "rnak=2 does not go .*: leave it out; low_rank has rank$",
        ),
        (
            {"structure_options": {"rnak": 2}},
            "rnak=2 does not go .*: leave it out; circulant has no options of its own$",
        ),
        ({"structure_options": {"seed": 3}}, r"structure_options\['seed'\]: an option of every update has that name"),
        ({"structure_options": 3}, "structure_options=3 must map names of the family's own options to integers"),
        ({"structure_options": 3, "rank": 2}, "structure_options=3 must map names"),
        ({"structure": "low_rank", "rank": True}, "rank=True must be an integer of at least 1"),
        ({"structure": "low_rank", "rank_pattern": {"q": 0}}, r"rank_pattern\['q'\]: rank=0 must be an integer"),
        ({"structure": "low_rank", "rank_pattern": {"(": 2}}, r"rank_pattern\['\('\]: missing \)"),
        ({"structure": "low_rank", "rank_pattern": 2}, "rank_pattern=2 must map module names to values"),
        ({"structure_options_pattern": {"q": 2}}, r"structure_options_pattern\['q'\]=2 must map"),
    ],
)
def test_wrong_own_options(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        StructuneConfig(block_size=4, **given)
    if not any("pattern" in name for name in given):
        with pytest.raises(ValueError, match=said):
            StructuredDelta(8, 8, block_size=4, **given)


@pytest.mark.parametrize("name", ["ranks", "pool_szie", "rankpattern", "alpha_pattern", "structure_options_patern"])
def test_what_no_family_has_is_no_argument(name: str) -> None:
    for make in (StructuneConfig, UpdateOptions, OptionsByModule, structune.c3a):
        with pytest.raises(TypeError, match=f"got an unexpected keyword argument '{name}'"):
            make(block_size=2, **{name: None})
    with pytest.raises(TypeError, match=f"got an unexpected keyword argument '{name}'"):
        StructuredDelta(4, 4, block_size=2, **{name: None})


def test_a_family_that_cannot_be_imported_is_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT and others ask configurations for attributes of other methods all the time."""
    broken = registry.Place("no_such_package:Broken", "broken 1.0")
    monkeypatch.setattr(registry, "_families", {"broken": broken, **registry._families})
    config = StructuneConfig(structure="low_rank", num_splits=1, rank=2)
    assert config.rank == 2
    assert getattr(config, "use_dora", None) is None
    with pytest.raises(ValueError, match=r"of broken 1.0, which cannot be imported .*no_such_package"):
        StructuneConfig(structure="broken", num_splits=1)


def test_a_single_matrix_has_no_patterns() -> None:
    with pytest.raises(TypeError, match="rank_pattern"):
        StructuredDelta(4, 4, structure="low_rank", block_size=2, rank_pattern={"q": 2})


@pytest.mark.parametrize(
    "options",
    [
        UpdateOptions(structure="low_rank", block_size=2, rank=3),
        OptionsByModule(structure="low_rank", block_size=2, rank=3, rank_pattern={"q": 2}),
        StructuneConfig(structure="low_rank", block_size=2, rank=3, rank_pattern={"q": 2}, target_modules=["q"]),
    ],
    ids=lambda options: type(options).__name__,
)
def test_copies(options: UpdateOptions) -> None:
    pickled = pickle.loads(pickle.dumps(options))  # noqa: S301 (its own)
    for other in (copy.copy(options), copy.deepcopy(options), pickled, replace(options)):
        assert other == options
        assert other.rank == 3
    changed = copy.deepcopy(options)
    changed.rank = 5
    assert options.rank == 3


def saved(folder: Path, **changes: Any) -> Path:
    """A configuration as version 0.1 wrote it."""
    old = {
        "algorithm": "auto", "auto_mapping": None, "base_model_name_or_path": None, "bias": "none",
        "block_size": None, "block_size_pattern": {}, "dropout": 0.0, "exclude_modules": None, "fixed_ratio": 0.0,
        "fixed_ratio_pattern": {}, "inference_mode": True, "init_weights": True, "layers_pattern": None,
        "layers_to_transform": None, "modules_to_save": None, "num_splits": 1, "num_splits_pattern": {},
        "peft_type": "STRUCTUNE", "peft_version": "0.21.2", "pool_size": None, "pool_size_pattern": {}, "rank": None,
        "rank_pattern": {}, "revision": None, "sampler_version": 1, "scale": 1.0, "scale_pattern": {}, "seed": 0,
        "structure": "low_rank", "structure_pattern": {}, "target_modules": ["q"], "task_type": None,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(old | changes))
    return folder


@pytest.mark.parametrize("read", [PeftConfig.from_pretrained, StructuneConfig.from_pretrained])
def test_files_that_know_rank_by_name(read: Any, tmp_path: Path) -> None:
    assert read(saved(tmp_path)).structure_options == {}
    config = read(saved(tmp_path, rank=4, rank_pattern={"k": 2}))
    assert (config.structure_options, config.structure_options_pattern) == ({"rank": 4}, {"k": {"rank": 2}})
    assert config.layer_options("q") == config.layer_options("other") != config.layer_options("k")
    with pytest.warns(UserWarning, match=r"Unexpected keyword arguments \['of_a_later_version'\]"):
        config = read(saved(tmp_path, rank=4, rank_pattern={"k": 2}, of_a_later_version=1))
    assert (config.structure_options, config.structure_options_pattern) == ({"rank": 4}, {"k": {"rank": 2}})


def test_the_signature_has_every_argument() -> None:
    """PEFT and editors read it; what families have of their own comes last."""
    arguments = list(inspect.signature(StructuneConfig).parameters)
    options = [field.name for field in fields(StructuneConfig) if field.init]
    assert arguments[: len(options)] == options
    assert {"rank", "rank_pattern"} <= set(arguments[len(options) :])


def test_options_know_neither_torch_nor_peft() -> None:
    """What a recipe is checked with."""
    program = """
import sys
from structune.options import OptionsByModule, UpdateOptions
for cls in (UpdateOptions, OptionsByModule):
    cls(structure="hankel", num_splits=2, pool_size=7, fixed_ratio=0.5, scale=0.5, structure_options={"rank": 2})
    for wrong in ({"structure": "henkel"}, {"pool_size": 0}, {"scale": 1e300}, {"structure_options": {"rank": 0}}):
        try:
            cls(**wrong)
        except ValueError:
            continue
        raise AssertionError(wrong)
print(sorted({"torch", "peft", "transformers", "numpy"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_option_is_on_the_page_and_in_the_help() -> None:
    page = (DOCS / "peft.md").read_text(encoding="utf-8")
    for name, option in OPTIONS.items():
        assert f"`{name}" in page, name
        for documented in (StructuneConfig, StructuredDelta, UpdateOptions):
            assert f"{name}: {option.metadata['help']}." in documented.__doc__
    assert {field.name for field in fields(StructuneConfig)} >= {f"{name}_pattern" for name in PATTERNED}
    assert all(field.metadata["help"] for field in fields(StructuneConfig) if field.name in OPTIONS)


NEW_OPTION = '    made_up: int = option(3, "an option that nobody has thought of", check_count)\n'
NEW_PATTERN = '    made_up_pattern: dict[str, int] = by_module("made_up by module name")\n'

FINDS_IT = """
import json, sys, tempfile
import torch
from peft import PeftConfig, get_peft_model
from torch import nn
import structune
from structune import StructuneConfig, StructuredDelta
from structune.finetune.recipe.recipe import Recipe
from structune.peft.several.hotswap import hotswap_adapter


def fails(make, message):
    try:
        make()
    except Exception as error:
        return message in str(error)
    return False


def model():
    return nn.ModuleDict({"one": nn.Linear(8, 8), "two": nn.Linear(8, 8)})


found = {}
wrong = "made_up=0 must be an integer of at least 1"
found["the update"] = StructuredDelta(8, 8, num_splits=2, made_up=5).options.made_up == 5
found["its check"] = fails(lambda: StructuredDelta(8, 8, num_splits=2, made_up=0), wrong)
targets = {"target_modules": ["one", "two"], "made_up_pattern": {"two": 7}}
presets = [structune.c3a(2, made_up=5, **targets), structune.hydra("toeplitz", 4, 2, made_up=5, **targets)]
found["presets"] = all(config.made_up == 5 for config in presets)
config = presets[0]
found["patterns"] = [config.layer_options(name)["made_up"] for name in ("one", "two")] == [5, 7]
found["their checks"] = fails(lambda: StructuneConfig(block_size=2, made_up_pattern={"one": 0}), wrong)
adapted = get_peft_model(model(), config)
found["layers"] = [adapted.base_model.model[name].delta("default").options.made_up for name in ("one", "two")] == [5, 7]
with tempfile.TemporaryDirectory() as folder:
    adapted.save_pretrained(folder)
    found["files"] = PeftConfig.from_pretrained(folder) == StructuneConfig.from_pretrained(folder)
    found["files"] &= PeftConfig.from_pretrained(folder).made_up == 5
    for name, changed in ("made_up", {"made_up": 6}), ("made_up_pattern", {"made_up_pattern": {}}):
        other = get_peft_model(model(), structune.c3a(2, **{"made_up": 5, **targets, **changed}))
        found[f"hot swaps, {name}"] = fails(lambda: hotswap_adapter(other, folder), f"{name}=")
alone = [structune.c3a(2, made_up=value, target_modules=[name]) for name, value in (("one", 5), ("two", 7))]
several = get_peft_model(model(), alone[0])
several.add_adapter("second", alone[1])
several.base_model.add_weighted_adapter(["default", "second"], [1.0, 2.0], "sum")
summed = several.peft_config["sum"]
found["weighted sums"] = [summed.at(name).made_up for name in ("one", "two")] == [5, 7]
for name in ("c3a", "hydra", "structune"):
    method = {"name": name, "made_up": 5, "made_up_pattern": {"two": 7}}
    recipe = Recipe.parse({"data": {"train": "a.csv"}, "method": method})
    found[f"recipe, {name}"] = "made_up: 5" in recipe.to_yaml() and recipe.method.made_up_pattern == {"two": 7}
    for key, value in ("made_up", 0), ("made_up_pattern", {"two": 0}):
        wrong = {"data": {"train": "a.csv"}, "method": method | {key: value}}
        found[f"recipe, {name}, {key}"] = fails(lambda: Recipe.parse(wrong), "at least 1")
found["help"] = all("nobody has thought of" in cls.__doc__ for cls in (StructuneConfig, StructuredDelta))
print(json.dumps(found))
"""


def test_an_option_is_written_in_one_place(tmp_path: Path) -> None:
    """Two lines in a copy of options.py, and the option is everywhere."""
    package = tmp_path / "structune"
    shutil.copytree(Path(structune.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    file = package / "options.py"
    text = file.read_text(encoding="utf-8")
    for before, line in (
        ("    def __post_init__(self) -> None:\n        self.normalise()", NEW_OPTION),
        ("    def general(self) -> UpdateOptions:", NEW_PATTERN),
    ):
        assert text.count(before) == 1
        text = text.replace(before, f"{line}\n{before}")
    file.write_text(text, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FINDS_IT], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert [place for place, there in found.items() if not there] == []
