"""Two processes that share the work train what one process trains: DDP, FSDP and FSDP2, whatever is wrapped."""

from __future__ import annotations

import copy
import json
import os
import runpy
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

import structune

if not dist.is_available():
    pytest.skip("torch was built without torch.distributed", allow_module_level=True)

PROGRAM = Path(__file__).with_name("data_parallel.py")
NAMES = runpy.run_path(str(PROGRAM))
adapted, fsdp, fsdp2 = NAMES["adapted"], NAMES["fsdp"], NAMES["fsdp2"]
RUNS = list(product(NAMES["WAYS"], NAMES["MODELS"]))
READ_OUTSIDE = {
    "fsdp, each adapted layer": {"attention"},
    "fsdp2, each adapted layer": {"attention"},
    "fsdp, each base layer": {"attention", "conv2d", "conv2d, called twice", "parameter"},
    "fsdp2, each base layer": {"attention", "parameter"},
}
"""What has its weight read while it is sharded, if these are wrapped by themselves."""
REFUSED = [(way, model) for way, model in RUNS if model in READ_OUTSIDE.get(way, set())]
TRAINED = [run for run in RUNS if run not in REFUSED]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What two processes found, and the errors they met."""
    folder = tmp_path_factory.mktemp("data_parallel")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(rank), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for rank in range(NAMES["PROCESSES"])
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return load_file(folder / "results.safetensors"), json.loads((folder / "errors.json").read_text())


@pytest.mark.parametrize(("way", "model"), TRAINED)
def test_two_processes_train_what_one_trains(way, model, trained) -> None:
    tensors, errors = trained
    key = f"{way}/{model}"
    assert key not in errors
    expected = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{key}/expected/")}
    pools = [name for name in expected if name.endswith(".pool")]
    assert pools
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[name.replace("/expected/", "/found/")], tensor, rtol=1e-4, atol=1e-5)
    for name in pools:
        assert (expected[name] - tensors[name.replace("/expected/", "/before/")]).abs().max() > 1e-2


@pytest.mark.parametrize(("way", "model"), TRAINED)
def test_an_adapter_of_a_sharded_model_is_saved_whole(way, model, trained) -> None:
    tensors, _ = trained
    reloaded, found = (tensors[f"{way}/{model}/{kind}/outputs"] for kind in ("reloaded", "found"))
    torch.testing.assert_close(reloaded, found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("way", "model"), REFUSED)
def test_where_a_shard_will_not_do_one_clear_error_says_so(way, model, trained) -> None:
    tensors, errors = trained
    assert "shard the block around the adapted layer" in errors[f"{way}/{model}"]
    assert f"{way}/{model}/reloaded/outputs" not in tensors


@pytest.fixture
def alone():
    """A group of this process only."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_nothing_is_loaded_into_a_model_that_fsdp_has_wrapped() -> None:
    model = get_peft_model(nn.Sequential(nn.Linear(8, 8)), structune.c3a(block_size=4, target_modules=["0"]))
    saved = {name: tensor.clone() for name, tensor in get_peft_model_state_dict(model).items()}
    with pytest.raises(RuntimeError, match="before the model is wrapped"):
        set_peft_model_state_dict(fsdp()(model), saved)


@pytest.mark.usefixtures("alone")
def test_a_model_under_fsdp2_takes_the_state_that_it_gave(randomise) -> None:
    config = structune.c3a(block_size=4, target_modules=["0"])
    base = nn.Sequential(nn.Linear(8, 8))
    trained = randomise(get_peft_model(copy.deepcopy(base), config))
    fresh = get_peft_model(base, config)
    x = torch.randn(3, 8)
    expected = trained(x)
    assert (fresh(x) - expected).abs().max() > 0.1
    set_peft_model_state_dict(fsdp2()(fresh), get_peft_model_state_dict(fsdp2()(trained)))
    torch.testing.assert_close(fresh(x), expected)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", NAMES["MODELS"])
def test_adapters_can_be_switched_off_under_fsdp(name) -> None:
    model, x = adapted(name)
    with model.disable_adapter():
        expected = model(x)
    assert (model(x) - expected).abs().max() > 0.1
    wrapped = fsdp()(model)
    with wrapped.module.disable_adapter():
        torch.testing.assert_close(wrapped(x), expected)
