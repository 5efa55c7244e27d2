"""A pool that several matrices share is in a file once, and is read by those that it was trained with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import NoReturn

from torch import Tensor, nn

from structune.delta import EXTRA_STATE
from structune.identity import Identity
from structune.peft.layers import adapted_layers
from structune.shared_pool import SharedPool, same


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
