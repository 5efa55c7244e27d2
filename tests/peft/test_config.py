"""The configuration: presets, overrides by name, JSON, and errors that name the argument, the value and the fix."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model

import structune
from structune import StructuneConfig


def test_presets_are_plain_configurations() -> None:
    c3a = structune.c3a(block_size=64, target_modules=["q"], dropout=0.1)
    assert (c3a.structure, c3a.block_size, c3a.num_splits, c3a.pool_size) == ("circulant", 64, None, None)
    assert (c3a.target_modules, c3a.dropout, c3a.scale) == ({"q"}, 0.1, 1.0)
    split = structune.c3a(num_splits=4)
    assert (split.structure, split.block_size, split.num_splits, split.pool_size) == ("circulant", None, 4, None)
    hydra = structune.hydra(structure="hankel", pool_size=384)
    assert (hydra.structure, hydra.num_splits, hydra.block_size, hydra.pool_size) == ("hankel", 4, None, 384)
    assert (hydra.fixed_ratio, hydra.seed) == (0.0, 0)


@pytest.mark.parametrize(
    ("cut", "sizes"),
    [
        ({"block_size": "gcd"}, {"thin": (8, 8), "wide": (12, 12), "square": (24, 24)}),
        ({"num_splits": 4}, {"thin": (2, 12), "wide": (6, 3), "square": (6, 6)}),
        (
            {"block_size": "gcd", "block_size_pattern": {"square": 6}},
            {"thin": (8, 8), "wide": (12, 12), "square": (6, 6)},
        ),
        (
            {"num_splits": 4, "block_size_pattern": {"w.*": "gcd"}},
            {"thin": (2, 12), "wide": (12, 12), "square": (6, 6)},
        ),
    ],
)
def test_c3a_on_layers_of_many_sizes(cut, sizes, tmp_path) -> None:
    """Each layer has the block that fits it, its repr says so, and a saved adapter comes back the same."""

    def model() -> torch.nn.Module:
        torch.manual_seed(0)
        layers = {
            "thin": torch.nn.Conv2d(48, 8, 1),
            "wide": torch.nn.Conv2d(12, 24, 1),
            "square": torch.nn.Linear(24, 24),
        }
        return torch.nn.ModuleDict(layers)

    adapted = get_peft_model(model(), structune.c3a(target_modules=list(sizes), init_weights=False, **cut))
    deltas = {name: adapted.base_model.model[name].structune_delta["default"] for name in sizes}
    assert {name: (delta.grid.rows, delta.grid.cols) for name, delta in deltas.items()} == sizes
    for name, (rows, cols) in sizes.items():
        by_gcd = rows == cols and rows == np.gcd(*deltas[name].dense().shape)
        said = (
            f"blocks of {rows}×{cols}{' (gcd of the sizes)' if by_gcd else ''} circulant, {deltas[name].num_trainable} "
        )
        assert said in repr(deltas[name])
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(model(), tmp_path)
    for name, delta in deltas.items():
        other = loaded.base_model.model[name].structune_delta["default"]
        assert torch.equal(other.dense(), delta.dense()) and delta.dense().abs().max() > 0


def test_gcd_of_sizes_without_a_common_divisor_names_the_layer() -> None:
    model = torch.nn.ModuleDict({"good": torch.nn.Linear(4, 8), "odd": torch.nn.Linear(7, 10)})
    with pytest.raises(ValueError, match="odd.*block_size='gcd': a weight of 10×7 has sizes without a common divisor"):
        get_peft_model(model, structune.c3a("gcd", target_modules=["good", "odd"]))


def test_json_round_trip(tmp_path) -> None:
    config = structune.hydra(
        structure="toeplitz_like",
        pool_size=20,
        rank=2,
        fixed_ratio=0.25,
        seed=7,
        target_modules=["query", "value"],
        pool_size_pattern={"value": 30},
    )
    config.save_pretrained(tmp_path)
    loaded = PeftConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, StructuneConfig)
    assert loaded == config
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "STRUCTUNE"


def test_patterns_override_by_name_and_expression() -> None:
    config = structune.c3a(
        block_size=8,
        block_size_pattern={"fc1": 16, r"layers\.1\.fc2": 4},
        num_splits_pattern={"out": 3},
        scale_pattern={"fc1": 2.0},
        structure_pattern={"fc3": "low_rank"},
        pool_size_pattern={"fc1": 9},
        fixed_ratio_pattern={"fc1": 0.5},
    )

    def options(name: str) -> dict:
        return config.layer_options(name)

    assert options("model.layers.0.fc1")["block_size"] == 16
    assert options("model.layers.0.fc1")["scale"] == 2.0
    assert (options("fc1")["pool_size"], options("fc1")["fixed_ratio"]) == (9, 0.5)
    assert options("model.layers.1.fc2")["block_size"] == 4
    assert options("model.layers.0.fc2")["block_size"] == 8
    assert (options("out")["num_splits"], options("out")["block_size"]) == (3, None)
    assert options("myfc1")["block_size"] == 8, "a pattern matches whole name parts only"
    assert options("fc3")["structure"] == "low_rank"


def test_overriding_the_structure_drops_a_rank_that_it_has_not() -> None:
    config = StructuneConfig(structure="low_rank", num_splits=1, rank=4, structure_pattern={"a": "toeplitz"})
    assert config.layer_options("a")["structure_options"] == {}
    assert config.layer_options("b")["structure_options"] == {"rank": 4}


def test_a_family_of_a_pattern_has_options_of_its_own_by_pattern() -> None:
    config = StructuneConfig(
        structure="circulant",
        num_splits=1,
        structure_pattern={"a": "monarch", "b": "low_rank"},
        num_blocks_pattern={"a": 2},
        rank_pattern={"a": 1, "b": 3},
    )
    loaded = StructuneConfig(**config.to_dict())
    for each in (config, loaded):
        assert each.at("a").structure_options == {"num_blocks": 2, "rank": 1}
        assert each.at("b").structure_options == {"rank": 3}
        assert each.at("c").structure_options == {}


def test_an_option_of_none_of_the_families_is_refused_in_a_pattern() -> None:
    with pytest.raises(ValueError, match=r"left_rows_pattern\['a'\]: left_rows=2 does not go with .*kronecker"):
        StructuneConfig(num_splits=1, structure_pattern={"a": "monarch"}, left_rows_pattern={"a": 2})
    with pytest.raises(ValueError, match=r"num_blocks_pattern\['a'\]: num_blocks=0 must be"):
        StructuneConfig(num_splits=1, structure_pattern={"a": "monarch"}, num_blocks_pattern={"a": 0})


def test_an_option_of_another_family_than_a_modules_own_is_refused_there() -> None:
    config = StructuneConfig(
        num_splits=1, structure_pattern={"0": "monarch"}, num_blocks_pattern={".*": 2}, target_modules=["0", "1"]
    )
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    with pytest.raises(ValueError, match="^1: num_blocks=2 does not go with structure='circulant'"):
        get_peft_model(model, config)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "give exactly one of them"),
        ({"block_size": 8, "num_splits": 2}, "block_size=8 and num_splits=2"),
        ({"block_size": 0}, "block_size=0 must be an integer of at least 1"),
        ({"block_size": 2.5}, "block_size=2.5 must be"),
        ({"num_splits": -1}, "num_splits=-1 must be"),
        ({"block_size": 8, "structure": "toeplits"}, "did you mean 'toeplitz'"),
        ({"block_size": 8, "structure": "sparse"}, "known are .*, circulant, "),
        ({"block_size": 8, "rank": 2}, "rank=2 does not go with structure='circulant'"),
        ({"block_size": 8, "structure": "low_rank", "rank": 0}, "rank=0 must be"),
        ({"block_size": 8, "pool_size": 0}, "pool_size=0 must be an integer of at least 1"),
        ({"block_size": 8, "fixed_ratio": 1.0}, r"fixed_ratio=1.0 must be a number in \[0, 1\)"),
        ({"block_size": 8, "fixed_ratio": -0.1}, "fixed_ratio=-0.1 must be"),
        ({"block_size": 8, "scale": 0.0}, "scale=0.0 must be a finite number other than 0"),
        ({"block_size": 8, "scale": 10**400}, "scale=1000.* must be"),
        ({"block_size": 8, "scale": float("nan")}, "scale=nan must be"),
        ({"block_size": 8, "scale": "1/out"}, "scale='1/out' must be"),
        ({"block_size": 8, "init_weights": "zeros"}, "init_weights='zeros' must be"),
        ({"block_size": 8, "algorithm": "quick"}, "algorithm='quick' does not multiply circulant"),
        ({"block_size": 8, "algorithm": "factored"}, "choose one of 'auto', 'dense', 'fft'"),
        ({"block_size": 8, "seed": 1.5}, "seed=1.5 must be an integer"),
        ({"block_size": 8, "seed": 2**63}, "seed=9223372036854775808 must be"),
        ({"block_size": 8, "dropout": 1.0}, "dropout=1.0 must be"),
        ({"block_size": 8, "bias": "lora_only"}, "bias='lora_only' must be"),
        ({"block_size": 8, "sampler_version": 99}, "sampler_version=99 is not known"),
        ({"block_size": 8, "pool_size_pattern": {"q": 0}}, r"pool_size_pattern\['q'\]: pool_size=0"),
        ({"block_size": 8, "structure_pattern": {"q": "x"}}, r"structure_pattern\['q'\]: structure='x' is unknown"),
        ({"block_size": 8, "block_size_pattern": {"(": 4}}, r"block_size_pattern\['\('\]"),
        ({"block_size": 8, "block_size_pattern": [4]}, r"block_size_pattern=\[4\] must map"),
        ({"block_size": 8, "target_modules": "q", "layers_to_transform": [0]}, "layers_to_transform=.* needs a list"),
        ({"block_size": 8, "target_modules": ["q"], "layers_pattern": "h"}, "says nothing without layers_to_transform"),
    ],
)
def test_bad_arguments_name_the_argument_the_value_and_the_fix(arguments, said) -> None:
    with pytest.raises(ValueError, match=said):
        StructuneConfig(**arguments)


def test_numbers_of_numpy_are_numbers(tmp_path) -> None:
    """From a sweep over np.arange, say; the file has plain ones."""
    config = structune.hydra(
        structure="toeplitz_like",
        pool_size=np.int64(20),
        num_splits=np.int32(2),
        fixed_ratio=np.float32(0.25),
        rank=np.int16(2),
        seed=np.uint8(7),
        scale=np.float64(0.5),
        dropout=np.float32(0.125),
        rank_pattern={"key": np.int64(1)},
        layers_to_transform=np.arange(2),
        target_modules=["query", "key"],
    )
    config.save_pretrained(tmp_path)
    assert StructuneConfig.from_pretrained(str(tmp_path)).to_dict() == config.to_dict()
    assert (config.pool_size, config.seed, config.rank_pattern, config.layers_to_transform) == (
        20,
        7,
        {"key": 1},
        [0, 1],
    )
    with pytest.raises(ValueError, match=r"pool_size=2\.5 must be an integer"):
        structune.hydra("toeplitz", pool_size=np.float64(2.5))


SAVE = """
import sys
from peft import LoraConfig
from structune import StructuneConfig
from structune.peft.convert.converted import Converted

names = [f"layer{number}" for number in range(20)]
StructuneConfig(
    block_size=8, target_modules=names, exclude_modules=set(names), modules_to_save=frozenset(names),
    target_parameters=set(names), layers_to_transform=range(3), layers_pattern=set(names),
).save_pretrained(sys.argv[1] + "/ours")
Converted(LoraConfig(target_modules=names, exclude_modules=names), {}).save(sys.argv[1] + "/lora")
"""


def test_the_file_has_the_same_bytes_in_every_process(tmp_path, monkeypatch) -> None:
    """Sets iterate in an order that the hash seed of the process decides."""
    environment = os.environ | {"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"}
    subprocess.run([sys.executable, "-c", SAVE, str(tmp_path / "there")], env=environment, check=True)
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "here")])
    exec(SAVE, {})
    for adapter in ("ours", "lora"):
        first, second = (tmp_path / where / adapter / "adapter_config.json" for where in ("here", "there"))
        assert first.read_bytes() == second.read_bytes()
        assert len(json.loads(first.read_text())["target_modules"]) == 20


def test_saving_leaves_the_configuration_as_it_was(tmp_path) -> None:
    config = StructuneConfig(block_size=8, target_modules=["q", "k"], layers_to_transform=range(3))
    config.save_pretrained(str(tmp_path))
    assert config.target_modules == {"q", "k"}
    assert list(config.layers_to_transform) == [0, 1, 2]
    assert config.to_dict()["target_modules"] == ["k", "q"]
    loaded = StructuneConfig.from_pretrained(str(tmp_path))
    assert (loaded.target_modules, loaded.layers_to_transform) == ({"q", "k"}, [0, 1, 2])
