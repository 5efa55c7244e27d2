"""One pool that several ΔW read: the same parameter in each of them, whatever hosts put in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor, nn

from structune.identity import Identity, Share


class Member(Protocol):
    """What is needed here of a ΔW."""

    identity: Identity
    pool_size: int
    num_fixed: int
    pool: nn.Parameter
    _parameters: dict[str, nn.Parameter | None]

    def share_as(self, share: Share) -> None:
        """Read another part of the shared pool."""


class SharedPool:
    """What the ΔW that read one pool have in common.

    Each of them, a member, holds the same `nn.Parameter`, so optimizers, DDP and `named_parameters` see it once, and
    reads its shuffles on from where the one before it ends. Where a host gives one of them another parameter
    (`to_empty`, `load_state_dict(assign=True)`), all others get it. A copy of all members has a shared pool of its own.

    Args:
        scope: what shares the pool, one of `identity.SCOPES` other than "matrix".
        group: the pool's own sequence of the seed, from which index maps and frozen numbers follow.
        most: numbers that it may have; None leaves that to whoever makes it.
    """

    def __init__(self, scope: str = "model", group: int = 0, most: int | None = None) -> None:
        self.scope = scope
        self.group = group
        self.most = most
        self.demand = 0
        self._members: WeakSet[Member] = WeakSet()
        self._load: _Load | None = None
        self._after_gradient: Callable[[Tensor], None] | None = None
        self._watched: nn.Parameter | None = None

    def __len__(self) -> int:
        return len(self._members)

    @property
    def a_member(self) -> Member | None:
        """Any of those that read the pool; None while there is none."""
        return next(iter(self._members), None)

    def take(self, demand: int, pool_size: int, num_fixed: int, seed: int) -> Share:
        """The part of the next member, which reads `demand` numbers.

        Raises:
            ValueError: its options make another pool of it than those of the others.
        """
        other = self.a_member
        if other is None:
            self.demand = 0
            if self.most is not None and pool_size > self.most:
                raise ValueError(
                    f"pool_size={pool_size} is more than the {self.most} that a model of this size can use"
                )
        else:
            for option, own, theirs in (
                ("pool_size", pool_size, other.pool_size),
                ("seed", seed, other.identity.seed),
                ("the number of frozen ones (fixed_ratio)", num_fixed, other.num_fixed),
            ):
                if own != theirs:
                    raise ValueError(
                        f"{option} is {own} here and {theirs} in other matrices that share the pool "
                        f"(pool_scope={self.scope!r}): give them the same, or pools of their own"
                    )
        share = Share(self.scope, self.group, self.demand)
        self.demand += demand
        return share

    def join(self, member: Member) -> None:
        """Give a new member the pool, or take its own for the pool if it is the first."""
        other = self.a_member
        if other is not None:
            member._parameters["pool"] = other._parameters["pool"]  # `register_parameter` may be made to copy it
        self._members.add(member)

    def rejoin(self, member: Member) -> None:
        """Count a member that was copied or unpickled together with the pool."""
        self._members.add(member)

    def leave(self, member: Member) -> None:
        """Forget a member, which has numbers of its own from now on."""
        self._members.discard(member)

    def hold(self, pool: nn.Parameter | None) -> None:
        """Give all members this parameter."""
        for member in self._members:
            member._parameters["pool"] = pool
        if self._after_gradient is not None and pool is not None and pool is not self._watched:
            pool.register_post_accumulate_grad_hook(self._after_gradient)
            self._watched = pool

    def after_gradient(self, function: Callable[[Tensor], None]) -> None:
        """Call a function whenever the pool has got a gradient, whatever parameter it is by then."""
        self._after_gradient, self._watched = function, None
        if (member := self.a_member) is not None:
            self.hold(member._parameters["pool"])

    def check_one(self, member: Member) -> None:
        """Raise RuntimeError if FSDP has given this member and another one different pools."""
        if torch.compiler.is_compiling() or not (dist.is_available() and dist.is_initialized()):
            return
        other = next((other for other in self._members if other is not member), None)
        if other is not None and other.pool is not member.pool:
            raise RuntimeError(
                f"FSDP shards a pool that several matrices share (pool_scope={self.scope!r}) with one of their blocks: "
                "it must stay whole. Give structune.keep_pools_whole(model) as ignored_params to fully_shard, or as "
                "ignored_states to FullyShardedDataParallel, or shard the model as a whole"
            )

    def follow(self, member: Member, other: Identity) -> None:
        """Give a new member the part that another adapter's ΔW has in its own pool, if that is one like this."""
        share = other.share
        alike = other.pool_size == member.pool_size and other.pool_map == member.identity.pool_map
        if share is None or share.scope != self.scope or not alike:
            return
        if len(self) == 1:
            self.group = share.group
        if share.group == self.group:
            member.share_as(share)

    def compare(self, key: str, stored: Tensor | None, share: Share | None, error_msgs: list[str]) -> None:
        """Hold what a member finds in a state dict against what the others found in the same one, before it is loaded.

        Args:
            key: the member's name for the pool.
            stored: what is there under that name, if anything.
            share: the part in a pool that is stored for the member.
            error_msgs: as `load_state_dict` collects them; the same list throughout one call.
        """
        if self._load is None or self._load.error_msgs is not error_msgs:
            self._load = _Load(error_msgs)
        load = self._load
        if share is not None:
            if load.share is not None and load.share.group != share.group:
                error_msgs.append(f"{key}: the checkpoint has other matrices share a pool than pool_scope says here")
            load.share = share
        if stored is None:
            load.without.append(key)
        elif load.stored is None:
            load.key, load.stored = key, stored
        elif not same(load.stored, stored):
            error_msgs.append(
                f"{key} and {load.key} differ in the checkpoint, but are one pool here (pool_scope={self.scope!r})"
            )

    def complete(self, missing_keys: list[str]) -> None:
        """Take out of the missing keys, after `compare`, those of members whose pool came under another's name."""
        load = self._load
        if load is not None and load.stored is not None:
            missing_keys[:] = [missing for missing in missing_keys if missing not in load.without]
            load.without.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedPool:
        """A pool for the copies of the members, which join it when they are made."""
        copied = SharedPool(self.scope, self.group, self.most)
        copied.demand = self.demand
        memo[id(self)] = copied
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        """Without its members, which join again when they are unpickled."""
        return SharedPool, (self.scope, self.group, self.most), {"demand": self.demand}


@dataclass
class _Load:
    """What members have found in the state dict that is being loaded."""

    error_msgs: list[str]
    key: str = ""
    stored: Tensor | None = None
    share: Share | None = None
    without: list[str] = field(default_factory=list)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, as far as that can be seen."""
    if one.is_meta or other.is_meta or one is other:
        return True
    return one.shape == other.shape and (one.data_ptr() == other.data_ptr() or torch.equal(one, other.to(one.device)))
