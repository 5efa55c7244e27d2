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
    return run(tmp_path_factory.mktemp("data_parallel"))


@pytest.fixture(scope="module")
def trained_pools(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Likewise, of models whose matrices share a pool."""
    return run(tmp_path_factory.mktemp("pools"), "pools")


def run(folder: Path, *more: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(rank), str(folder), *more],
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


def pools_trained_alike(key, tensors, errors) -> list[str]:
    """Names of the pools that two processes found: what one process finds, and not what they began with."""
    assert key not in errors
    expected = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{key}/expected/")}
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors[name.replace("/expected/", "/found/")], tensor, rtol=1e-4, atol=1e-5)
    pools = [name for name in expected if name.endswith(".pool")]
    for name in pools:
        assert (expected[name] - tensors[name.replace("/expected/", "/before/")]).abs().max() > 1e-2
    return [name.replace("/expected/", "/found/") for name in pools]


@pytest.mark.parametrize(("way", "model"), TRAINED)
def test_two_processes_train_what_one_trains(way, model, trained) -> None:
    assert pools_trained_alike(f"{way}/{model}", *trained)


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
    torch.testing.assert_close(fresh(x).to(x.device), expected)


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


SPLIT = ("fsdp, each adapted layer", "fsdp2, each adapted layer")
"""Where matrices that share a pool are sharded apart from each other."""
POOL_RUNS = [run for run in product(NAMES["WAYS_WITH_POOLS"], NAMES["POOLS"]) if run[0] not in SPLIT]


@pytest.mark.parametrize(("way", "model"), POOL_RUNS)
def test_two_processes_train_one_pool_as_one_does(way, model, trained_pools) -> None:
    """Its gradient is the mean over the processes of the sum over the matrices, and it stays one pool."""
    tensors, errors = trained_pools
    key = f"{way}/{model}"
    first, second = pools_trained_alike(key, tensors, errors)
    assert torch.equal(tensors[second], tensors[first])
    reloaded, found = (tensors[f"{key}/{kind}/outputs"] for kind in ("reloaded", "found"))
    torch.testing.assert_close(reloaded, found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("way", "model"), list(product(SPLIT, NAMES["POOLS"])))
def test_one_pool_is_not_sharded_in_parts(way, model, trained_pools) -> None:
    tensors, errors = trained_pools
    said = "Give structune.keep_pools_whole" if way.startswith("fsdp,") else "shared with a parameter already managed"
    assert said in errors[f"{way}/{model}"]
    assert f"{way}/{model}/reloaded/outputs" not in tensors


@pytest.mark.usefixtures("alone")
def test_pools_are_averaged_whatever_parameter_they_are_by_then() -> None:
    """Micro-batches add up in the gradient, which is averaged each time; in one process that changes nothing."""
    model, x = adapted("linear", NAMES["POOLS"])
    plain = copy.deepcopy(model)
    kept = structune.keep_pools_whole(model)
    assert kept == {parameter for parameter in model.parameters() if parameter.requires_grad}
    model.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=True)
    seen = []
    pool = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    assert pool not in kept
    all_reduce = dist.all_reduce
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "all_reduce", lambda *args, **kwargs: seen.append(all_reduce(*args, **kwargs)))
        for part in x.chunk(2):
            model(part).square().sum().backward()
    assert len(seen) == 2
    plain(x).square().sum().backward()
    expected = next(parameter.grad for parameter in plain.parameters() if parameter.requires_grad)
    torch.testing.assert_close(pool.grad, expected)


def test_matrices_with_pools_of_their_own_are_left_to_fsdp() -> None:
    assert structune.keep_pools_whole(adapted("linear")[0]) == set()
