"""Two processes that share the work train what one process trains: DDP, FSDP and FSDP2, whatever is wrapped."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

import structune

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")

WAYS = (
    "ddp",
    "fsdp",
    "fsdp, each adapted layer",
    "fsdp, each base layer",
    "fsdp2",
    "fsdp2, each adapted layer",
    "fsdp2, each base layer",
)
MODELS = (
    "linear",
    "linear, folded",
    "conv2d",
    "conv2d, called twice",
    "attention",
    "parameter",
    "embedding",
)
READ_OUTSIDE = {
    "each adapted layer": {"attention"},
    "each base layer": {"attention", "conv2d", "conv2d, called twice", "parameter"},
}
"""What has its weight read while it is sharded, if these are wrapped by themselves."""


def is_refused(way: str, model: str) -> bool:
    return model in READ_OUTSIDE.get(way.partition(", ")[2], set())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What two processes found, and the errors they met."""
    folder = tmp_path_factory.mktemp("data_parallel")
    script = Path(__file__).with_name("data_parallel.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return load_file(folder / "results.safetensors"), json.loads((folder / "errors.json").read_text())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_what_one_trains(way, model, trained) -> None:
    tensors, errors = trained
    key = f"{way}/{model}"
    if is_refused(way, model):
        assert "shard the block around the adapted layer" in errors[key]
        return
    assert key not in errors
    expected = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{key}/expected/")}
    pools = [name for name in expected if name.endswith(".pool")]
    assert pools
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[name.replace("/expected/", "/found/")], tensor, rtol=1e-4, atol=1e-5)
    for name in pools:
        assert (expected[name] - tensors[name.replace("/expected/", "/before/")]).abs().max() > 1e-2


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_an_adapter_of_a_sharded_model_is_saved_whole(way, model, trained) -> None:
    tensors, _ = trained
    key = f"{way}/{model}"
    if is_refused(way, model):
        assert f"{key}/reloaded/outputs" not in tensors
        return
    torch.testing.assert_close(
        tensors[f"{key}/reloaded/outputs"], tensors[f"{key}/found/outputs"], rtol=1e-4, atol=1e-5
    )


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
    wrapped = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    with pytest.raises(RuntimeError, match="before the model is wrapped"):
        set_peft_model_state_dict(wrapped, saved)


@pytest.mark.usefixtures("alone")
def test_a_model_under_fsdp2_takes_the_state_that_it_gave(randomise) -> None:
    config = structune.c3a(block_size=4, target_modules=["0"])
    base = nn.Sequential(nn.Linear(8, 8))
    trained = randomise(get_peft_model(copy.deepcopy(base), config))
    fresh = get_peft_model(base, config)
    x = torch.randn(3, 8)
    expected = trained(x)
    assert (fresh(x) - expected).abs().max() > 0.1
    set_peft_model_state_dict(fully_shard(fresh), get_peft_model_state_dict(fully_shard(trained)))
    torch.testing.assert_close(fresh(x), expected)


@pytest.mark.usefixtures("alone")
def test_adapters_can_be_switched_off_under_fsdp(randomise) -> None:
    model = randomise(
        get_peft_model(nn.Sequential(nn.Conv2d(4, 8, 3)), structune.c3a(block_size=4, target_modules=["0"]))
    )
    x = torch.randn(2, 4, 5, 5)
    with model.disable_adapter():
        expected = model(x)
    assert (model(x) - expected).abs().max() > 0.1
    wrapped = FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
    with wrapped.module.disable_adapter():
        torch.testing.assert_close(wrapped(x), expected)
