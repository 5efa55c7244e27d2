"""Pools that several matrices share, in models that are sharded block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from structune.peft.layers import all_layers
from structune.shared_pool import SharedPool

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup  # not in every build of torch


def keep_pools_whole(model: nn.Module, group: ProcessGroup | None = None) -> set[nn.Parameter]:
    """The shared pools of a model (`pool_scope`), for FSDP to leave alone where it shards block by block.

    A pool belongs to no single block, and FSDP has no parameters that blocks share. These stay whole in every process,
    which costs next to nothing, and their gradients are averaged over the processes as soon as they are made.

    Args:
        model: with its adapters in it, before it is sharded, in every process.
        group: the processes that share a batch; None: all.

    Returns:
        The pools: `ignored_params` of `fully_shard`, `ignored_states` of `FullyShardedDataParallel`. Matrices with
        pools of their own are sharded like all else.
    """
    pools: dict[int, SharedPool] = {}
    for layer in all_layers(model).values():
        for name in layer.structune_delta:
            if (shared := layer.delta(name).shared_pool) is not None:
                pools[id(shared)] = shared

    def average(pool: Tensor) -> None:
        # of an average and what each process has added to it since, the average is that of all that was added
        if pool.grad is not None and dist.is_initialized():
            gradient = pool.grad / dist.get_world_size(group)
            dist.all_reduce(gradient, group=group)
            pool.grad.copy_(gradient)

    kept = set()
    for shared in pools.values():
        shared.after_gradient(average)
        member = shared.a_member
        assert member is not None
        pool = member._parameters["pool"]
        assert pool is not None
        if dist.is_initialized() and not pool.is_meta:
            with torch.no_grad():
                dist.broadcast(pool, dist.get_global_rank(group, 0) if group is not None else 0, group=group)
        kept.add(pool)
    return kept
