"""Which matrices of a model share a pool, and that it is in a file once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, NoReturn

from torch import Tensor, nn

from structune.delta import EXTRA_STATE
from structune.identity import Identity
from structune.options import PoolScope
from structune.peft.layers import adapted_layers
from structune.pool import stream_of
from structune.resolved import NUMBERS_PER_ENTRY
from structune.shared_pool import SharedPool, same


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


def once(state_dict: MutableMapping[str, Tensor], modules: Iterable[tuple[str, nn.Module]], adapter_name: str) -> None:
    """Leave each shared pool of an adapter in a state dict in the place of its first matrix alone.

    Raises:
        ValueError: the state dict, which was handed in, has other numbers in another place.
    """
    first: dict[int, str] = {}
    for prefix, pool, _ in _sharing(modules, adapter_name):
        key = f"{prefix}pool"
        if key not in state_dict:
            continue
        kept = first.setdefault(id(pool), key)
        if kept != key:
            _check_same(kept, state_dict[kept], key, state_dict[key])
            del state_dict[key]


def everywhere(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors, with each shared pool in the place of every matrix that reads it.

    Raises:
        ValueError: it is in several places already, with different numbers.
    """
    expanded = dict(state_dict)
    holding: dict[int, str] = {}
    groups = _stored_groups(state_dict)
    for prefix, group in groups.items():
        key = f"{prefix}pool"
        if key in state_dict and (first := holding.setdefault(group, key)) != key:
            _check_same(first, state_dict[first], key, state_dict[key])
    for prefix, group in groups.items():
        if group in holding:
            expanded[f"{prefix}pool"] = state_dict[holding[group]]
    return expanded


def check_groups(model: nn.Module, adapter_name: str, state_dict: Mapping[str, Tensor] | None = None) -> None:
    """Look whether the matrices that share a pool in the model are those that did where it was trained.

    Args:
        model: with the adapter in it.
        adapter_name: the adapter.
        state_dict: what is to be loaded, keyed as the model is; None: it has been.

    Raises:
        ValueError: they are not.
    """
    sharing = list(_sharing(model.named_modules(), adapter_name))
    if state_dict is not None:
        stored = _stored_groups(state_dict)
        sharing = [(prefix, pool, stored[prefix]) for prefix, pool, _ in sharing if prefix in stored]
    pools: dict[int, tuple[int, str]] = {}
    groups: dict[int, tuple[int, str]] = {}
    for prefix, pool, group in sharing:
        own, other = pools.setdefault(id(pool), (group, prefix))
        if own != group:
            _refuse("share one pool here, and did not where the adapter was trained", other, prefix)
        place, other = groups.setdefault(group, (id(pool), prefix))
        if place != id(pool):
            _refuse("shared one pool where the adapter was trained, and do not here", other, prefix)


def _sharing(modules: Iterable[tuple[str, nn.Module]], adapter_name: str) -> Iterator[tuple[str, SharedPool, int]]:
    """What the names of its tensors begin with, the shared pool and its sequence, of each matrix that reads one."""
    for name, layer in adapted_layers(modules, adapter_name):
        delta = layer.delta(adapter_name)
        if delta.shared_pool is not None and delta.identity.share is not None:
            yield f"{name}.structune_delta.{adapter_name}.", delta.shared_pool, delta.identity.share.group


def _stored_groups(state_dict: Mapping[str, Tensor]) -> dict[str, int]:
    """What the names of its tensors begin with, and the pool's sequence, of each matrix that shared a pool."""
    groups = {}
    for key, digits in state_dict.items():
        if key.endswith(EXTRA_STATE) and ".structune_" in key and not digits.is_meta:
            try:
                share = Identity.from_digits(digits).share
            except ValueError:
                continue  # which is said, with its reason, when the identity is taken over
            if share is not None:
                groups[key.removesuffix(EXTRA_STATE)] = share.group
    return groups


def _check_same(key: str, numbers: Tensor, other_key: str, others: Tensor) -> None:
    if not same(numbers, others):
        raise ValueError(
            f"{key} and {other_key} hold different numbers, but are one pool (pool_scope): they were trained apart, or "
            "averaged one by one; take the state dict as the model gives it"
        )


def _refuse(what: str, *prefixes: str) -> NoReturn:
    names = " and ".join(prefix.partition(".structune_delta")[0] for prefix in prefixes[:2])
    raise ValueError(f"{names} {what}: configure the pool_scope that it was trained with")
