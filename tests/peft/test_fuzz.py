"""Random configurations and damaged files: they work to the last bit, or say what is wrong and change nothing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

import structune
from structune import StructuneConfig

quick = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

anything = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 12), st.integers(), st.floats(), st.text(max_size=4), st.just([1])
)
names = st.sampled_from(structune.structures.names())


def field(valid: st.SearchStrategy) -> st.SearchStrategy:
    """Mostly valid values, and now and then anything."""
    return st.one_of(*[valid] * 8, anything)


FIELDS = {
    "structure": field(names),
    "block_size": field(st.one_of(st.none(), st.integers(1, 12))),
    "num_splits": field(st.one_of(st.none(), st.integers(1, 6))),
    "rank": field(st.one_of(st.none(), st.integers(1, 3))),
    "pool_size": field(st.one_of(st.none(), st.integers(1, 60))),
    "fixed_ratio": field(st.floats(0, 0.9)),
    "seed": field(st.integers(-5, 5)),
    "scale": field(st.sampled_from([1.0, 0.25, "1/in_features"])),
    "init_weights": field(st.sampled_from([True, False, "xavier_uniform", "kaiming_uniform", "lora"])),
    "algorithm": field(st.sampled_from(["auto", "dense"])),
    "dropout": field(st.floats(0, 0.9)),
    "rank_pattern": field(st.dictionaries(st.sampled_from(["lin0", "lin1", "x("]), st.integers(1, 2), max_size=1)),
    "structure_pattern": field(st.dictionaries(st.sampled_from(["lin0", "lin1"]), names, max_size=1)),
    "layers_to_transform": field(st.none()),
}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"lin0": nn.Linear(10, 14), "lin1": nn.Linear(14, 6)})


def outputs(adapted) -> list[torch.Tensor]:
    modules = adapted.get_base_model()
    torch.manual_seed(1)
    return [modules["lin0"](torch.randn(3, 10)).detach(), modules["lin1"](torch.randn(3, 14)).detach()]


@quick
@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_configurations_work_or_say_why_not(tmp_path, fields) -> None:
    """What can be made comes back equal through JSON, and its adapter through a file, bit by bit."""
    message = None
    try:
        config = StructuneConfig(target_modules=["lin0", "lin1"], **fields)
        adapted = get_peft_model(model(), config).eval()
    except (ValueError, TypeError) as error:
        message = str(error)
    if message is not None:
        assert any(name.removesuffix("_pattern") in message for name in [*fields, "block_size", "numbers"])
        return
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        adapted.save_pretrained(folder)
        again = StructuneConfig.from_pretrained(folder)
        for name in fields:
            assert getattr(again, name) == getattr(config, name), name
        reloaded = PeftModel.from_pretrained(model(), folder).eval()
    assert all(torch.equal(a, b) for a, b in zip(outputs(reloaded), outputs(adapted), strict=True))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    config = structune.hydra("toeplitz", pool_size=20, num_splits=3, target_modules=["lin0", "lin1"])
    adapted = get_peft_model(model(), config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    adapted.save_pretrained(folder)
    return folder


def loads_or_refuses(folder: Path, sound: list[torch.Tensor]) -> None:
    base = model()
    before = [(name, type(module)) for name, module in base.named_modules()]
    numbers = {name: (p.clone(), p.requires_grad) for name, p in base.named_parameters()}
    message = None
    try:
        loaded = PeftModel.from_pretrained(base, folder).eval()
    except (ValueError, TypeError, KeyError) as error:
        message = str(error)
    if message is not None:
        assert message
        assert [(name, type(module)) for name, module in base.named_modules()] == before
        assert all(
            torch.equal(p, numbers[name][0]) and p.requires_grad == numbers[name][1]
            for name, p in base.named_parameters()
        )
        return
    stored = load_file(folder / "adapter_model.safetensors")
    state = {name.replace(".default", ""): p for name, p in loaded.named_parameters() if "structune_" in name}
    assert state
    assert all(torch.equal(p, stored[name]) for name, p in state.items())
    assert [output.shape for output in outputs(loaded)] == [output.shape for output in sound]


@quick
@given(st.data())
def test_damaged_weight_files_load_what_they_hold_or_are_refused(file, tmp_path, data) -> None:
    sound = outputs(PeftModel.from_pretrained(model(), file).eval())
    whole = (file / "adapter_model.safetensors").read_bytes()
    bytes_ = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        bytes_[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        (Path(folder) / "adapter_config.json").write_bytes((file / "adapter_config.json").read_bytes())
        (Path(folder) / "adapter_model.safetensors").write_bytes(bytes(bytes_[:cut]))
        loads_or_refuses(Path(folder), sound)


@quick
@given(st.data())
def test_changed_tensors_are_refused(file, tmp_path, data) -> None:
    tensors = load_file(file / "adapter_model.safetensors")
    key = data.draw(st.sampled_from(sorted(tensors)))
    changes = {
        "shape": lambda t: t.new_zeros(data.draw(st.lists(st.integers(0, 40), max_size=3))),
        "dtype": lambda t: t.to(data.draw(st.sampled_from([torch.int8, torch.bool, torch.float8_e5m2]))),
        "drop": None,
        "rename": None,
        "value": lambda t: torch.full_like(t.double(), data.draw(st.sampled_from([float("nan"), float("inf")]))),
    }
    change = data.draw(st.sampled_from(sorted(changes)))
    tensor = tensors.pop(key)
    if change == "rename":
        tensors[data.draw(st.text(max_size=8)) + key] = tensor
    elif change != "drop":
        tensors[key] = changes[change](tensor)
    if key in tensors and tensors[key].shape == tensor.shape and tensors[key].dtype == tensor.dtype:
        return
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        (Path(folder) / "adapter_config.json").write_bytes((file / "adapter_config.json").read_bytes())
        save_file(tensors, Path(folder) / "adapter_model.safetensors")
        if key in tensors and change == "rename":
            return
        with pytest.raises(ValueError, match="checkpoint|structune|holds NaN"):
            PeftModel.from_pretrained(model(), folder)


@quick
@given(st.data())
def test_damaged_configurations_work_or_are_refused(file, tmp_path, data) -> None:
    sound = outputs(PeftModel.from_pretrained(model(), file).eval())
    config = json.loads((file / "adapter_config.json").read_text())
    for name in data.draw(st.lists(st.sampled_from([*FIELDS, "target_modules"]), min_size=1, max_size=2)):
        config[name] = data.draw(anything)
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        (Path(folder) / "adapter_config.json").write_text(json.dumps(config))
        (Path(folder) / "adapter_model.safetensors").write_bytes((file / "adapter_model.safetensors").read_bytes())
        loads_or_refuses(Path(folder), sound)
