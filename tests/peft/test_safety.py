"""Hostile and broken files: one clear error, nothing large in memory, and the model as it was."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import structune
from structune import StructuneConfig, pool

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
KEY = "base_model.model.bert.encoder.layer.0.attention.self.query.structune_delta.pool"
IDENTITY, SEED = KEY.replace("pool", "_extra_state"), KEY.replace("pool", "seed")


@pytest.fixture
def saved(bert, randomise, tmp_path) -> Path:
    config = structune.hydra(
        "toeplitz", pool_size=30, target_modules=["query"], modules_to_save=["classifier"], task_type="SEQ_CLS"
    )
    randomise(get_peft_model(bert(), config)).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def state_of(model) -> dict[str, Any]:
    """All that a failed load must leave alone."""
    parameters = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    configs = getattr(model, "peft_config", None)
    return {
        "modules": [(name, type(module), module.training) for name, module in model.named_modules()],
        "parameters": parameters,
        "adapters": sorted(configs) if isinstance(configs, dict) else [],
        "active": [str(getattr(module, "active_adapters", None)) for module in model.modules()],
    }


def assert_same(model, before: dict[str, Any]) -> None:
    after = state_of(model)
    assert after["modules"] == before["modules"]
    assert after["adapters"] == before["adapters"]
    assert after["active"] == before["active"]
    assert after["parameters"].keys() == before["parameters"].keys()
    for name, (tensor, requires_grad) in before["parameters"].items():
        assert torch.equal(after["parameters"][name][0], tensor), name
        assert after["parameters"][name][1] == requires_grad, name


def rewrite_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


def rewrite_weights(folder: Path, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def header(folder: Path, shape: list[int]) -> None:
    """A file whose header claims a tensor far larger than the file."""
    text = json.dumps({KEY: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0]]}}).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 64)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def to_pickle(folder: Path, *, beside: bool) -> None:
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({KEY: Evil()}))
    if not beside:
        (folder / WEIGHTS).unlink()


BROKEN_FILES = {
    "truncated": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-9]), "not a whole safetensors file"),
    "empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "not a whole safetensors file"),
    "huge header": (lambda f: header(f, [10**12]), "not a whole safetensors file"),
    "header length": (lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 64), "not a whole safetensors file"),
    "pickle": (lambda f: to_pickle(f, beside=False), "is a pickle, which can run code when loaded"),
    "no tensors": (lambda f: save_file({}, f / WEIGHTS), "holds no structune adapter"),
    "other method": (
        lambda f: save_file({"base_model.model.query.lora_A.weight": torch.zeros(2, 2)}, f / WEIGHTS),
        "holds no structune adapter",
    ),
    "missing": (lambda f: rewrite_weights(f, lambda t: t.pop(KEY)), "the checkpoint lacks 1 of the 4 tensors"),
    "extra": (
        lambda f: rewrite_weights(f, lambda t: t.update({KEY.replace("query", "../../key"): torch.zeros(30)})),
        "the checkpoint holds 1 tensors that adapter",
    ),
    "shape": (lambda f: rewrite_weights(f, lambda t: t.update({KEY: torch.zeros(29)})), r"has shape \(29,\)"),
    "nan": (lambda f: rewrite_weights(f, lambda t: t[KEY].__setitem__(3, float("nan"))), "holds NaN or infinite"),
    "infinite": (lambda f: rewrite_weights(f, lambda t: t[KEY].__setitem__(3, float("inf"))), "holds NaN or infinite"),
    "whole numbers": (lambda f: rewrite_weights(f, lambda t: t.update({KEY: t[KEY].long()})), "has dtype torch.int64"),
    "float8": (
        lambda f: rewrite_weights(f, lambda t: t.update({KEY: t[KEY].to(torch.float8_e4m3fn)})),
        "has dtype torch.float8_e4m3fn",
    ),
    "complex": (
        lambda f: rewrite_weights(f, lambda t: t.update({KEY: t[KEY].to(torch.complex64)})),
        "has dtype torch.complex64",
    ),
    "seed": (
        lambda f: rewrite_weights(f, lambda t: (t.pop(IDENTITY), t.update({SEED: torch.tensor([7, 1])}))),
        "was trained with seed=7",
    ),
    "seed shape": (
        lambda f: rewrite_weights(f, lambda t: (t.pop(IDENTITY), t.update({SEED: torch.tensor([0])}))),
        r"torch\.int64 of shape \(1,\) where int64 \(seed, stream\) is expected",
    ),
    "seed and identity": (
        lambda f: rewrite_weights(f, lambda t: t.update({SEED: torch.tensor([0, 1])})),
        "the checkpoint holds 1 tensors that adapter",
    ),
    "identity": (
        lambda f: rewrite_weights(f, lambda t: t[IDENTITY].__setitem__(5, t[IDENTITY][5] + 1)),
        "digits of the adapter's identity were altered",
    ),
    "identity shape": (
        lambda f: rewrite_weights(f, lambda t: t.update({IDENTITY: t[IDENTITY][1:].clone()})),
        r"torch\.float32 of shape \(\d+,\) where the 27, 53 or 57 digits",
    ),
}

BROKEN_CONFIGS = {
    "huge pool": ({"pool_size": 10**15}, "pool_size=1000000000000000 is more than the 240 numbers"),
    "huge rank": (
        {"structure": "low_rank", "rank": 10**12, "pool_size": None},
        "numbers for an update of 1024 entries: lower rank",
    ),
    "huge splits": ({"num_splits": 10**9}, "num_splits=1000000000 cuts"),
    "huge blocks": ({"num_splits": None, "block_size": 10**9}, "block_size=1000000000 is larger"),
    "negative": ({"pool_size": -3}, "pool_size=-3 must be an integer of at least 1"),
    "fraction": ({"pool_size": 2.5}, "pool_size=2.5 must be"),
    "text": ({"num_splits": "4"}, "num_splits='4' must be"),
    "truth": ({"pool_size": True}, "pool_size=True must be"),
    "family": ({"structure": "../evil"}, "'../evil'"),
    "family type": ({"structure": 3}, "3"),
    "ratio": ({"fixed_ratio": float("nan")}, "fixed_ratio=nan must be"),
    "scale": ({"scale": float("inf")}, "scale=inf must be"),
    "seed": ({"seed": 2**80}, "seed=1208925819614629174706176 must be"),
    "version": ({"sampler_version": 99}, "sampler_version=99 is not known"),
    "pattern": ({"pool_size_pattern": {"(": 3}}, r"pool_size_pattern\['\('\]"),
    "pattern type": ({"pool_size_pattern": [1]}, r"pool_size_pattern=\[1\] must map"),
    "targets": ({"target_modules": 5}, "target_modules=5 must be"),
    "targets regex": ({"target_modules": "*("}, r"target_modules='\*\('"),
    "dropout": ({"dropout": 1.0}, "dropout=1.0 must be"),
    "dropout text": ({"dropout": "0.1"}, "dropout='0.1' must be"),
    "bias": ({"bias": "some"}, "bias='some' must be"),
    "algorithm": ({"algorithm": "fastest"}, "fastest"),
    "start": ({"init_weights": "pissa"}, "init_weights='pissa' must be"),
    "layers": ({"layers_to_transform": "all"}, "layers_to_transform='all' must be"),
    "parameters": ({"target_parameters": "experts"}, "target_parameters='experts' must be"),
    "to save": ({"modules_to_save": "classifier"}, "modules_to_save='classifier' must be"),
}


def loaders():
    def fresh(model, folder):
        return PeftModel.from_pretrained(model, folder)

    def second(model, folder):
        return model.load_adapter(folder, "second")

    return {"fresh": fresh, "second": second}


def prepared(loader: str, bert, randomise):
    if loader == "second":
        return randomise(get_peft_model(bert(), structune.c3a(block_size=4, target_modules=["key"]))).train()
    return bert().train()


@pytest.mark.parametrize("loader", ["fresh", "second"])
@pytest.mark.parametrize(("breaking", "said"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_broken_files(breaking, said, loader, saved, bert, randomise) -> None:
    breaking(saved)
    model = prepared(loader, bert, randomise)
    before = state_of(model)
    with pytest.raises(ValueError, match=said):
        loaders()[loader](model, saved)
    assert_same(model, before)


@pytest.mark.parametrize("loader", ["fresh", "second"])
@pytest.mark.parametrize(("changes", "said"), BROKEN_CONFIGS.values(), ids=BROKEN_CONFIGS)
def test_broken_configurations(changes, said, loader, saved, bert, randomise) -> None:
    rewrite_config(saved, **changes)
    model = prepared(loader, bert, randomise)
    before = state_of(model)
    with pytest.raises((ValueError, TypeError), match=said):
        loaders()[loader](model, saved)
    assert_same(model, before)


@pytest.mark.parametrize("name", ["truncated", "pickle", "shape"])
def test_broken_files_through_transformers(name, saved, bert) -> None:
    """Its own loader reads the file: these it refuses itself; `StructuneConfig.from_pretrained` looks a file over."""
    breaking, said = BROKEN_FILES[name]
    breaking(saved)
    with pytest.raises((SafetensorError, OSError, RuntimeError)):
        bert().load_adapter(str(saved))
    if name != "shape":
        with pytest.raises(ValueError, match=said):
            StructuneConfig.from_pretrained(str(saved))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"x"', "null", '{"peft_type": "STRUCTUNE"', "\0"])
def test_json_that_is_none(text, saved, bert) -> None:
    (saved / CONFIG).write_text(text)
    model = bert()
    before = state_of(model)
    with pytest.raises(Exception) as raised:  # noqa: PT011 - json's, PEFT's or ours: each says what it is
        PeftModel.from_pretrained(model, saved)
    assert str(raised.value)
    assert_same(model, before)


def test_a_pickle_beside_is_not_touched(saved, bert, ids) -> None:
    expected = PeftModel.from_pretrained(bert(), saved)(ids).logits
    to_pickle(saved, beside=True)
    assert torch.equal(PeftModel.from_pretrained(bert(), saved)(ids).logits, expected)
    (saved / WEIGHTS).unlink()
    with pytest.raises(ValueError, match="is a pickle"):
        PeftModel.from_pretrained(bert(), saved)


def test_unknown_fields_are_said_and_left_out(saved, bert, ids) -> None:
    expected = PeftModel.from_pretrained(bert(), saved)(ids).logits
    rewrite_config(saved, __class__="os.system", future_option=3)
    with pytest.warns(UserWarning, match="future_option"):
        model = PeftModel.from_pretrained(bert(), saved)
    assert torch.equal(model(ids).logits, expected)
    assert not hasattr(model.peft_config["default"], "future_option")


def test_another_methods_configuration_is_said(saved, bert) -> None:
    rewrite_config(saved, peft_type="LORA", r=4)
    with pytest.raises(TypeError, match="LORA"):
        StructuneConfig.from_pretrained(str(saved))


@pytest.mark.parametrize("loader", ["fresh", "second"])
def test_a_good_file_still_loads_after_a_bad_one(loader, saved, bert, randomise, ids, tmp_path) -> None:
    import shutil

    bad = tmp_path / "bad"
    shutil.copytree(saved, bad)
    BROKEN_FILES["nan"][0](bad)
    model = prepared(loader, bert, randomise).eval()
    with pytest.raises(ValueError, match="NaN"):
        loaders()[loader](model, bad)
    loaded = loaders()[loader](model, saved)
    model = loaded if loader == "fresh" else model
    model.set_adapter("second" if loader == "second" else "default")
    expected = PeftModel.from_pretrained(bert(), saved)(ids).logits
    torch.testing.assert_close(model.eval()(ids).logits, expected, rtol=1e-5, atol=1e-6)


def test_huge_sizes_allocate_nothing(tmp_path) -> None:
    """In a process that may hold 512 MiB more than it has after importing."""
    cases = [
        {"num_splits": 4, "pool_size": 10**10},
        {"num_splits": 1, "structure": "low_rank", "rank": 10**9},
        {"num_splits": 4, "structure": "toeplitz_like", "rank": 10**9, "pool_size": 5},
    ]
    code = f"""
import resource, structune
structune.StructuredDelta  # what it imports is not counted
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
for case in {cases!r}:
    try:
        structune.StructuredDelta(64, 64, **case)
    except ValueError as error:
        print("refused", error)
"""
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory of a process is read from /proc")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.count("refused") == len(cases)


def test_numbers_that_no_block_reads_are_refused() -> None:
    """TR2024-157 counts 384 numbers for a Toeplitz block of 192×192, which has 383: 16 of its 6,144 would be dead."""
    options = {"structure": "toeplitz", "num_splits": 4}
    assert structune.StructuredDelta(768, 768, pool_size=6128, **options).num_trainable == 6128
    with pytest.raises(ValueError, match="pool_size=6144 is more than the 6128 numbers.*choose at most 6128"):
        structune.StructuredDelta(768, 768, pool_size=6144, **options)
    model = transformers.BertModel(transformers.BertConfig(num_hidden_layers=1, vocab_size=9))
    with pytest.raises(ValueError, match="attention.self.query: pool_size=6144 is more than the 6128 numbers"):
        get_peft_model(model, structune.hydra(pool_size=6144, target_modules=["query"], **options))


def test_dead_numbers_that_were_saved_still_load(bert, ids, randomise, tmp_path) -> None:
    """Files of earlier versions hold them; they say so once, and give the ΔW that they gave."""
    options = {"structure": "toeplitz", "num_splits": 2, "target_modules": ["query"], "seed": 3}
    saved = randomise(get_peft_model(bert(), structune.hydra(pool_size=124, **options)))
    saved.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"pool_size": 130}))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    larger = {key: torch.cat((t, t.new_full((6,), 5.0))) if key.endswith("pool") else t for key, t in tensors.items()}
    save_file(larger, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    for loader in (lambda: PeftModel.from_pretrained(bert(), tmp_path), lambda: from_base_class(bert(), tmp_path)):
        with pytest.warns(UserWarning, match="pool_size=130 is more than the 124 numbers.*6 of them are dead"):
            loaded = loader()
        delta = next(m for m in loaded.modules() if isinstance(m, structune.StructuredDelta))
        assert delta.num_trainable == 130
        numbers = [*pool.index_map(130, 4, 31, delta._effective_seed()).flatten().tolist()]
        assert torch.equal(delta.dealt().flatten(), delta.pool[numbers])
        assert loaded(ids).logits.isfinite().all()


def from_base_class(model, folder):
    """As transformers' `load_adapter` does: the configuration is read by PEFT's own class."""
    return PeftModel.from_pretrained(model, folder, config=PeftConfig.from_pretrained(folder))


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside", "..", "a.b", "a\nb", ""])
def test_names_that_look_like_paths_write_nothing_outside(name, bert, tmp_path) -> None:
    model = get_peft_model(bert(), structune.c3a(block_size=4, target_modules=["query"]))
    with pytest.raises(ValueError, match=r"adapter_name=.* must be a plain name"):
        model.add_adapter(name, structune.c3a(block_size=4, target_modules=["query"]))
    assert list(model.peft_config) == ["default"]
    model.save_pretrained(tmp_path / "inner" / "folder")
    assert all("inner" in file.parts for file in tmp_path.rglob("*"))
