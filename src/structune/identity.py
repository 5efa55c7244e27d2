"""What says, beside the trained numbers, which ΔW they make: integers in memory, digits with a check in a file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from structune import pool
from structune.options import InitWeights
from structune.pool_maps import NAMES as POOL_MAPS
from structune.pool_maps import OF_OLD

FORMAT = 3
"""Version of the digits; a lower one is written still where nothing is said that came with a higher one."""

STARTS: tuple[InitWeights, ...] = (True, False, "xavier_uniform", "kaiming_uniform", "lora")
"""The starts by their number in a file: only ever append to it."""

SCOPES = ("matrix", "module", "model", "groups")
"""What matrices share a pool, by its number in a file: only ever append to it."""

_FIELDS = struct.Struct("<BBBqqI")  # format, sampler version, start, seed, stream, blocks
_MORE = struct.Struct("<BBQqQ")  # since format 2: pool map, scope, pool size, group, offset
_OWN = struct.Struct("<I")  # since format 3: own options
_CHECK = struct.Struct("<I")


@dataclass(frozen=True)
class Share:
    """The part of an update in a pool that several matrices share.

    Args:
        scope: what shares it, one of `SCOPES` other than "matrix".
        group: the pool's own sequence of the seed, from which index maps and frozen numbers follow.
        offset: how many numbers of the group's shuffles other matrices read before this one.
    """

    scope: str
    group: int
    offset: int


@dataclass(frozen=True)
class Identity:
    """What an update's index map, frozen numbers and start follow from, and a mark of the blocks that it is made of.

    It is no tensor of a module, so no average over models, cast or `to_empty` can reach it. In a file it is a row of
    digits: casting them to any float of 8 significant bits or more, or averaging digits that are all alike, leaves them
    readable; whatever else happens to them is noticed.

    Args:
        seed: of the configuration.
        stream: the layer's own sequence of the seed.
        init_weights: how training started.
        blocks: `mark` of the family and the size of its blocks.
        sampler_version: version of the arithmetic that turns seeds into numbers.
        pool_map: how a number of the pool reaches a generator.
        share: its part in a pool that other matrices read, too; None for numbers of its own.
        pool_size: P, beside a `share` or another `pool_map` than "index"; 0 elsewhere.
        own_options: `options_mark` of the family's own options; None where it has none, and where a file of before
            format 3 does not say.
    """

    seed: int
    stream: int
    init_weights: InitWeights
    blocks: int
    sampler_version: int = pool.SAMPLER_VERSION
    pool_map: str = OF_OLD
    share: Share | None = None
    pool_size: int = 0
    own_options: int | None = None

    def digits(self) -> Tensor:
        """All fields and a check value as digits to the base 256, float32 (27,), (53,) or (57,) in formats 1 to 3."""
        start, share = STARTS.index(self.init_weights), self.share or _ALONE
        more = POOL_MAPS.index(self.pool_map), SCOPES.index(share.scope), self.pool_size, share.group, share.offset
        version = 3 if self.own_options is not None else 2 if any(more) else 1
        fields = _FIELDS.pack(version, self.sampler_version, start, self.seed, self.stream, self.blocks)
        if version > 1:
            fields += _MORE.pack(*more)
        if version > 2:
            fields += _OWN.pack(self.own_options)
        return torch.tensor(list(fields + _CHECK.pack(zlib.crc32(fields))), dtype=torch.float32, device="cpu")

    @classmethod
    def from_digits(cls, digits: Tensor) -> Identity:
        """Read `digits` back, whatever type of number they were cast to.

        Raises:
            ValueError: they were altered, or another version wrote them.
        """
        parts = ((_FIELDS, _CHECK), (_FIELDS, _MORE, _CHECK), (_FIELDS, _MORE, _OWN, _CHECK))
        sizes = {sum(part.size for part in kinds): version for version, kinds in enumerate(parts, 1)}
        if not isinstance(digits, Tensor) or digits.ndim != 1 or len(digits) not in sizes or digits.is_complex():
            found = (
                f"{digits.dtype} of shape {tuple(digits.shape)}" if isinstance(digits, Tensor) else repr(digits)[:40]
            )
            *others, last = sizes
            expected = f"{', '.join(map(str, others))} or {last}"
            raise ValueError(f"{found} where the {expected} digits of an adapter's identity are expected")
        whole = digits.detach().double().round()
        values = [int(value) for value in whole.tolist()] if whole.isfinite().all() else [-1]
        if min(values) < 0 or max(values) > 255:
            raise ValueError(_ALTERED)
        fields, check = bytes(values[: -_CHECK.size]), bytes(values[-_CHECK.size :])
        if _CHECK.pack(zlib.crc32(fields)) != check:
            raise ValueError(_ALTERED)
        meant = sizes[len(digits)]
        version, sampler_version, start, seed, stream, blocks = _FIELDS.unpack_from(fields)
        more = _MORE.unpack_from(fields, _FIELDS.size) if meant > 1 else _NO_MORE
        (own_options,) = _OWN.unpack_from(fields, _FIELDS.size + _MORE.size) if meant > 2 else (None,)
        pool_map, scope, pool_size, group, offset = more
        known = start < len(STARTS) and pool_map < len(POOL_MAPS) and scope < len(SCOPES)
        if version != meant or sampler_version != pool.SAMPLER_VERSION or not known:
            raise ValueError(
                f"its identity has version {version}.{sampler_version}, this structune knows {FORMAT}."
                f"{pool.SAMPLER_VERSION}: install the version that saved the adapter"
            )
        share = Share(SCOPES[scope], group, offset) if scope else None
        return cls(
            seed, stream, STARTS[start], blocks, sampler_version, POOL_MAPS[pool_map], share, pool_size, own_options
        )

    def taking_over(self, stored: Identity) -> Identity:
        """The identity of this update once numbers with a `stored` one are in it: their stream, start and share.

        Raises:
            ValueError: the numbers were trained with another seed, in other blocks or in another kind of pool: the
                configuration is not theirs.
        """
        if stored.blocks != self.blocks:
            raise ValueError(
                "the checkpoint was trained with another structure or in blocks of another size: structure, "
                "block_size, num_splits or pool_size of the configuration are not those that it was trained with"
            )
        if None not in (self.own_options, stored.own_options) and stored.own_options != self.own_options:
            raise ValueError(
                "the checkpoint was trained with other options of the family's own, such as a rank: structure_options "
                "of the configuration are not those that it was trained with"
            )
        if stored.seed != self.seed:
            raise ValueError(
                f"the checkpoint was trained with seed={stored.seed}, this adapter is configured with "
                f"seed={self.seed}: index map and frozen numbers would differ; configure seed={stored.seed}"
            )
        mine, theirs = self.share or _ALONE, stored.share or _ALONE
        for option, own, other in (
            ("pool_scope", mine.scope, theirs.scope),
            ("pool_map", self.pool_map, stored.pool_map),
            ("pool_size", self.pool_size, stored.pool_size),
        ):
            if own != other:
                raise ValueError(
                    f"the checkpoint was trained with {option}={other!r}, this adapter is configured with "
                    f"{option}={own!r}: the numbers would mean something else; configure {option}={other!r}"
                )
        return replace(self, stream=stored.stream, init_weights=stored.init_weights, share=stored.share)

    def of_seed(self, stored: Tensor | None) -> Identity:
        """Likewise for numbers saved before 0.2, which come with int64 (seed, stream) and this update's own start.

        Raises:
            ValueError: there is no such pair, or it has another seed.
        """
        if stored is None or stored.dtype != torch.int64 or stored.shape != (2,):
            if stored is None:
                raise ValueError(
                    "nothing where int64 (seed, stream) or, since 0.2, the adapter's identity is expected: the numbers "
                    "mean nothing without it. state_dict() and get_peft_model_state_dict have it, in entries that end "
                    "in _extra_state; parameters and buffers alone have not"
                )
            raise ValueError(
                f"{stored.dtype} of shape {tuple(stored.shape)} where int64 (seed, stream) is expected: the numbers "
                "mean nothing without it; if the file was cast to another type of number, cast the one that was saved "
                "again, and its numbers alone"
            )
        seed, stream = (int(value) for value in stored)
        return self.taking_over(replace(self, seed=seed, stream=stream, pool_map=OF_OLD, share=None, pool_size=0))


_ALONE = Share("matrix", 0, 0)
_NO_MORE = (0, 0, 0, 0, 0)

_ALTERED = (
    "the digits of the adapter's identity were altered: adapters of different seeds or streams were averaged, or they "
    "were cast to fewer than 8 significant bits, or many were added up in half precision; take the file as it was saved"
)


def mark(family: str, rows: int, cols: int, pooled: bool) -> int:
    """32 bits that tell blocks of one family and size, from a pool or with numbers of their own, from all others."""
    return zlib.crc32(f"{family} {rows}x{cols} {'pool' if pooled else 'own'}".encode())


def options_mark(options: Mapping[str, int], defaults: Mapping[str, int]) -> int | None:
    """32 bits that tell a family's own options from others of the family; None where it has none.

    Options that are the default do not count: a family may get another one, and what was saved before stays right.
    """
    if not defaults:
        return None
    changed = (f"{name}={value}" for name, value in sorted(options.items()) if value != defaults[name])
    return zlib.crc32(" ".join(changed).encode())
