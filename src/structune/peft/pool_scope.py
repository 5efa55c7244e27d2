"""Which matrices of a model share a pool."""

from __future__ import annotations

import re
from collections.abc import Collection, MutableMapping
from typing import Any

from torch import nn

from structune.options import PoolScope
from structune.pool import stream_of
from structune.resolved import NUMBERS_PER_ENTRY
from structune.shared_pool import SharedPool


def group_of(scope: PoolScope, module_name: str) -> tuple[str, str] | None:
    """The kind and the name of what shares a pool with a matrix; None: nothing does.

    >>> group_of("module", "encoder.layer.3.attention.query")
    ('module', 'query')
    >>> group_of({"attention": "query|value", "rest": "dense"}, "encoder.layer.3.attention.query")
    ('groups', 'attention')
    """
    if scope == "model":
        return "model", ""
    if scope == "module":
        return "module", module_name.rpartition(".")[2]
    if isinstance(scope, str):
        return None
    matching = (name for name, key in scope.items() if re.fullmatch(rf"(.*\.)?({key})", module_name))
    name = next(matching, None)
    return None if name is None else ("groups", name)


def idle_groups(scope: PoolScope, module_names: Collection[str]) -> list[str]:
    """Groups of a scope that none of these modules is in."""
    if isinstance(scope, str):
        return []
    found = {group_of(scope, name) for name in module_names}
    return [name for name in scope if ("groups", name) not in found]


def shared_pool(tuner: nn.Module, adapter_name: str, scope: PoolScope, module_name: str) -> SharedPool | None:
    """The pool that a matrix reads together with others of its adapter; None: it has its own, or none.

    Args:
        tuner: keeps the pools of the adapters that it puts in.
        adapter_name: the adapter.
        scope: `pool_scope` of its configuration.
        module_name: the full name of what is adapted.
    """
    group = group_of(scope, module_name)
    if group is None:
        return None
    pools = _pools(tuner)
    key = adapter_name, *group
    if key not in pools:
        pools[key] = new_pool(group, NUMBERS_PER_ENTRY * sum(parameter.numel() for parameter in tuner.parameters()))
    return pools[key]


def own_or_shared(scope: PoolScope, module_name: str, pools: MutableMapping[Any, SharedPool]) -> dict[str, Any]:
    """Arguments of `StructuredDelta` for a matrix of no live model: the pool that it shares, made if it is not there.

    Args:
        scope: `pool_scope` of the configuration.
        module_name: the full name of what is adapted.
        pools: those that matrices of the same adapter share.
    """
    group = group_of(scope, module_name)
    if group is None:
        return {"pool_scope": "matrix"}
    return {"shared_pool": pools.setdefault(group, new_pool(group))}


def new_pool(group: tuple[str, str], most: int | None = None) -> SharedPool:
    """The pool of a group: see `group_of`."""
    kind, name = group
    return SharedPool(kind, stream_of(f"pool of {kind} {name}"), most)


def forget_pools(tuner: nn.Module, adapter_name: str) -> None:
    """Begin anew with an adapter of that name."""
    pools = _pools(tuner)
    for key in [key for key in pools if key[0] == adapter_name]:
        del pools[key]


def check_pools(tuner: nn.Module, adapter_name: str) -> None:
    """Raise ValueError if a pool of the adapter has numbers that none of its matrices reads."""
    for (name, kind, group), pool in _pools(tuner).items():
        member = pool.a_member
        if name == adapter_name and member is not None and member.pool_size > pool.demand:
            whose = f"{group!r} of pool_scope={kind!r}" if group else f"pool_scope={kind!r}"
            raise ValueError(
                f"pool_size={member.pool_size} is more than the {pool.demand} numbers that all {len(pool)} matrices of "
                f"{whose} read, so the rest would be dead: choose at most {pool.demand}, or cut more blocks"
            )


def _pools(tuner: nn.Module) -> dict[tuple[str, str, str], SharedPool]:
    pools: dict[tuple[str, str, str], SharedPool] = vars(tuner).setdefault("_shared_pools", {})
    return pools
