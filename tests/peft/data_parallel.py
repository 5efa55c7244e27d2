"""One of two processes that train adapted models together; run as `python data_parallel.py RANK FOLDER [pools]`.

Per way to share the work and per model, two steps of SGD. The first process also trains the model alone, on the whole
batch, and writes to FOLDER:

- results.safetensors: `<way>/<model>/<before, found, expected>/<parameter>`, and `<found, expected, reloaded>/outputs`
  after training;
- errors.json: the message where the model did not run;
- `<way>/<model>/`: the adapter, saved from the gathered weights.
"""

from __future__ import annotations

import copy
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.parallel import DistributedDataParallel

import structune
from structune.peft import StructuneLayer

PROCESSES = 2
SAMPLES = 2
"""Per process."""


class Attention(nn.Module):
    """Self-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, 8) to the same."""
        return self.attention(x, x, x)[0]


class Matrix(nn.Module):
    """A weight that no layer of torch holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 8))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 8) to (batch, 6)."""
        return x @ self.weight.T


class Twice(nn.Module):
    """One convolution that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 4, height, width) to the same."""
        return self.conv(torch.tanh(self.conv(x)))


class Words(nn.Module):
    """An embedding under a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens), any numbers, to (batch, tokens, 8)."""
        return self.linear(torch.tanh(self.words((7 * x).long().abs() % 20)))


def linears() -> nn.Module:
    """Two linear layers."""
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 8))


MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], tuple[int, ...]]] = {
    "linear": (linears, {"target_modules": ["0", "2"]}, (8,)),
    "linear, folded": (linears, {"target_modules": ["0", "2"], "algorithm": "fold"}, (8,)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3)), {"target_modules": ["0"]}, (4, 5, 5)),
    "conv2d, called twice": (Twice, {"target_modules": ["conv"]}, (4, 5, 5)),
    "attention": (Attention, {"target_modules": ["attention"]}, (5, 8)),
    "parameter": (lambda: nn.Sequential(Matrix()), {"target_parameters": ["0.weight"]}, (8,)),
    "embedding": (Words, {"target_modules": ["words", "linear"]}, (8,)),
}
"""Model, targets, shape of one sample."""

BASE_LAYERS = (nn.Linear, nn.Conv2d, nn.MultiheadAttention, nn.Embedding, Matrix)


POOLS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], tuple[int, ...]]] = {
    "linear": (linears, {"target_modules": ["0", "2"], "pool_size": 7, "pool_scope": "model"}, (8,)),
    "embedding": (Words, {"target_modules": ["words", "linear"], "pool_size": 7, "pool_scope": "model"}, (8,)),
}
"""Likewise, all matrices of the model sharing one pool."""


def fsdp(*classes: type[nn.Module], pools_whole: bool = False) -> Callable[[nn.Module], nn.Module]:
    """The model sharded by FSDP, modules of these classes by themselves."""

    def shard(model: nn.Module) -> nn.Module:
        policy = ModuleWrapPolicy(classes)
        cpu = torch.device("cpu")
        own = {"ignored_states": list(structune.keep_pools_whole(model))} if pools_whole else {}
        return FullyShardedDataParallel(model, auto_wrap_policy=policy, use_orig_params=True, device_id=cpu, **own)

    return shard


def fsdp2(*classes: type[nn.Module], pools_whole: bool = False) -> Callable[[nn.Module], nn.Module]:
    """The model sharded by FSDP2, modules of these classes by themselves."""

    def shard(model: nn.Module) -> nn.Module:
        own = {"ignored_params": structune.keep_pools_whole(model)} if pools_whole else {}
        for module in [*model.modules()][:0:-1]:
            if isinstance(module, classes):
                fully_shard(module, **own)
        return fully_shard(model, **own)

    return shard


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "ddp": DistributedDataParallel,
    "fsdp": fsdp(),
    "fsdp, each adapted layer": fsdp(StructuneLayer),
    "fsdp, each base layer": fsdp(*BASE_LAYERS),
    "fsdp2": fsdp2(),
    "fsdp2, each adapted layer": fsdp2(StructuneLayer),
    "fsdp2, each base layer": fsdp2(*BASE_LAYERS),
}


WAYS_WITH_POOLS = WAYS | {
    "fsdp, pools whole": fsdp(StructuneLayer, pools_whole=True),
    "fsdp2, pools whole": fsdp2(StructuneLayer, pools_whole=True),
}


def adapted(name: str, models: dict[str, Any] = MODELS) -> tuple[PeftModel, Tensor]:
    """The model of that name and a batch for all processes, the same at each call."""
    make, options, shape = models[name]
    torch.manual_seed(0)
    model = get_peft_model(make(), structune.c3a(block_size=4, init_weights=False, **options))
    return model, torch.randn(PROCESSES * SAMPLES, *shape)


def train(model: nn.Module, x: Tensor) -> None:
    """Two steps on the mean of the squared outputs."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def pools(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is trained, of a whole model's state."""
    return {name: tensor.clone() for name, tensor in state_dict.items() if name.endswith(".pool")}


def main(rank: int, folder: Path, pools_alone: bool) -> None:
    """Train every model in every way."""
    models, ways = (POOLS, WAYS_WITH_POOLS) if pools_alone else (MODELS, WAYS)
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    if loopback is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    tensors: dict[str, Tensor] = {}
    errors: dict[str, str] = {}
    for way, share in ways.items():
        for name in models:
            alone, x = adapted(name, models)
            model = copy.deepcopy(alone)
            mine = x[SAMPLES * rank : SAMPLES * (rank + 1)]
            try:
                together = share(model)
                train(together, mine)
                outputs = together(mine)
            except (RuntimeError, ValueError) as error:
                errors[f"{way}/{name}"] = str(error)
                continue
            # under DDP the names would have its prefix; the model below it has the same numbers
            gathered = get_model_state_dict(
                model if way == "ddp" else together, options=StateDictOptions(full_state_dict=True)
            )
            if rank == 0:
                results = {"before": pools(alone.state_dict()), "found": {**pools(gathered), "outputs": outputs}}
                train(alone, x)
                results["expected"] = {**pools(alone.state_dict()), "outputs": alone(mine)}
                model.save_pretrained(folder / way / name, state_dict=gathered)
                reloaded = PeftModel.from_pretrained(adapted(name, models)[0].unload(), folder / way / name)
                results["reloaded"] = {"outputs": reloaded(mine)}
                for kind, found in results.items():
                    tensors |= {f"{way}/{name}/{kind}/{key}": value.contiguous() for key, value in found.items()}
    if rank == 0:
        save_file(tensors, folder / "results.safetensors")
        (folder / "errors.json").write_text(json.dumps(errors))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), pools_alone=sys.argv[3:] == ["pools"])
