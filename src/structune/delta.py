"""ΔW as a module: structure × generators × grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from structune import pool_maps, products
from structune.identity import Identity, Share, mark, options_mark
from structune.numerics.hashing import derive_seed
from structune.options import InitWeights, UpdateOptions, as_python, check_seed, describes_options
from structune.pool_maps.pool_map import PoolMap
from structune.products.algorithm import Algorithm
from structune.products.kept import Kept
from structune.products.precision import working_dtype
from structune.resolved import ResolvedOptions
from structune.shared_pool import SharedPool
from structune.start import Start
from structune.structures import Structure
from structune.surroundings import looked_on, multiplied_in, plain, without_autocast

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""What trained numbers may be held and stored in."""

EXTRA_STATE = "_extra_state"
"""The name that PyTorch gives in state dicts to what `get_extra_state` returns."""


@describes_options
class StructuredDelta(nn.Module):
    """ΔW = scale · crop(grid of S(θ_pq) − S(θ⁰_pq)), a structured out×in matrix made of few trainable numbers.

    S maps raw numbers to blocks (`Structure.from_raw`, then `entries`). The raw numbers are θ = θ⁰ + step · δ, with the
    family's `raw_step`: `pool` holds δ, the only trainable thing, zeros at first; the start θ⁰ is regenerated from the
    seed and never stored. Blocks read their numbers in order when there is no `pool_size` (own generators, as in C3A),
    or through a `pool_map` from P = `pool_size` numbers shared by all blocks (HyDRA). The first
    ⌈fixed_ratio · P⌉ numbers have no δ and stay at θ⁰.

    At the start ΔW = 0 with a gradient that is not zero, for every family. Where S(θ⁰) = 0 already, the second term is
    left out: families linear in all generators start from θ⁰ = 0; own generators of families that are a product from
    one factor at zero and the others at random (low rank: G = 0, random H), uniform on (−1, 1). Otherwise θ⁰ is uniform
    on (−1, 1) and its matrix is subtracted, so that frozen numbers of linear families cancel and those of all others
    take part. With `init_weights="lora"`, for low rank alone, (−1/√N, 1/√N) takes the place of (−1, 1), N a block's
    columns.
    `init_weights=False` is the papers' own form instead: θ⁰ is random and nothing is subtracted.

    Args:
        out_features: rows of ΔW.
        in_features: columns of ΔW.
        stack: None, or how many matrices out×in there are, such as the experts of a layer: ΔW is (stack, out, in), and
            a pool is shared by all of them. A stack is for `dense` alone; it has no product with one x.
        stream: which of the seed's independent sequences; adapters give each layer its own.
        saved: whether it is made for numbers saved earlier, when a pool could be larger than what its blocks read.
        shared_pool: a pool of that size that other ΔW read, too; None for one of its own.
        device: of the parameters.
        dtype: of the parameters; blocks are built in at least fp32.
        **options: what the update is made of, by name; the family's own among them:

    Raises:
        ValueError: an argument is out of range or does not go with another; the message names it and the fix.
        TypeError: a keyword is no option of any family.

    Source: TR2024-157, section 3.2; arXiv 2407.19342, section 3.4.
    """

    options: UpdateOptions
    """The options as they were given; loading numbers may change the start, which `identity` knows."""

    shared_pool: SharedPool | None = None
    """The pool that `pool` is, where others read it, too."""

    pool_map: PoolMap | None
    """How numbers of a pool reach the blocks; None where blocks have numbers of their own."""

    tables: tuple[Tensor, ...]
    """Its tables. They and `start` follow from `identity`, so they are no buffers, which averages and casts reach."""

    start: Tensor | None
    """θ⁰ as integers, in units of the start's step."""

    def __init__(
        self,
        out_features: int,
        in_features: int,
        *,
        stack: int | None = None,
        stream: int = 0,
        saved: bool = False,
        shared_pool: SharedPool | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        out_features, in_features, stack, stream = as_python((out_features, in_features, stack, stream))
        check_seed("stream", stream)
        self.options = UpdateOptions(**options)
        scope = None if shared_pool is None else shared_pool.scope
        if scope is None and (said := self.options.pool_scope) != "matrix":
            raise ValueError(f"pool_scope={said!r} is for matrices that share a pool: give it to them as shared_pool")
        resolved = ResolvedOptions.of(self.options, out_features, in_features, stack, scope=scope, saved=saved)
        self.grid, self.stack, self.structure = resolved.grid, resolved.stack, resolved.structure
        self.algorithm = self.options.algorithm
        self.pooled, self.pool_size, self.num_fixed = resolved.pooled, resolved.pool_size, resolved.num_fixed
        self.num_blocks = self.grid.num_blocks * (stack or 1)
        self.full_scale = resolved.scale
        self.strength = 1.0
        block, seed, init_weights = self.structure, self.options.seed, self.options.init_weights
        blocks = mark(block.name, block.rows, block.cols, self.pooled)
        own_options = options_mark(block.options, block.own_options())
        self.identity = Identity(seed, stream, init_weights, blocks, own_options=own_options)
        self.pool_map = resolved.pool_map
        if self.pool_map is not None and self.pool_map.name != pool_maps.OF_OLD:
            self.identity = replace(self.identity, pool_map=self.pool_map.name, pool_size=self.pool_size)
        if shared_pool is not None:
            share = shared_pool.take(resolved.demand, self.pool_size, self.num_fixed, seed)
            self.identity = replace(self.identity, share=share, pool_size=self.pool_size)
        self._start = resolved.start

        self.pool = nn.Parameter(torch.zeros(self.pool_size - self.num_fixed, device=device, dtype=dtype))
        if shared_pool is not None:
            shared_pool.join(self)
            self.shared_pool = shared_pool
        self.tables, self.start = (), None
        self._draw = 0
        self._kept: Kept | None = None
        self._derive()

    @property
    def num_trainable(self) -> int:
        """How many numbers are trained."""
        return self.pool.numel()

    @property
    def scale(self) -> float:
        """The factor of ΔW: the configured one times `strength`, which may be set at any time and is not saved."""
        return self.full_scale * self.strength

    @property
    def centred(self) -> bool:
        """Whether the start's own matrix is subtracted."""
        return self._start.subtracted

    def numbers(self) -> Tensor:
        """The raw numbers θ = θ⁰ + step · δ, (pool_size,), in at least fp32; the first `num_fixed` are frozen."""
        numbers = self._numbers()
        return numbers.clone() if numbers is self.pool else numbers

    @torch.no_grad()
    def set_numbers(self, numbers: Tensor) -> None:
        """Set δ so that the raw numbers are θ = `numbers`, (pool_size,), up to rounding.

        Raises:
            ValueError: θ has another size, or frozen numbers that differ from this ΔW's.
        """
        if numbers.shape != (self.pool_size,):
            raise ValueError(f"numbers has shape {tuple(numbers.shape)}, ({self.pool_size},) expected")
        moved = numbers.to(self.pool.device, working_dtype(self.pool))
        if self.start is not None:
            moved = moved - self._start_numbers()
        if moved[: self.num_fixed].any():
            raise ValueError(f"the first {self.num_fixed} numbers are frozen and cannot be set")
        self.pool.copy_(moved[self.num_fixed :] / self.structure.raw_step)

    @torch.no_grad()
    def set_generators(self, **generators: Tensor) -> None:
        """Set δ so that the blocks have these generators, up to rounding.

        Args:
            **generators: (P, Q, *shape), or (stack, P, Q, *shape).

        Raises:
            ValueError: blocks share their numbers, or none are known that the family maps to these generators.
        """
        if self.pooled:
            raise ValueError("blocks that share their numbers have no generators of their own to set")
        self.structure.check(generators)
        raw = self.structure.to_raw(**generators)
        if raw is None:
            raise ValueError(f"{self.structure.name} blocks do not say which numbers have these generators (to_raw)")
        parts = [raw[name].reshape(self.num_blocks, math.prod(shape)) for name, shape in self.structure.shapes.items()]
        self.set_numbers(torch.cat(parts, dim=1).flatten())

    def draw_anew(self, number: int) -> None:
        """Move δ so that the trained raw numbers are another draw of the random start; the frozen ones stay.

        Args:
            number: which draw, from 1; 0 is the start itself.
        """
        self._draw = number
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Go back to where training starts; hosts call it for modules that they make on the meta device."""
        if self.pool.is_meta:
            return
        self.pool.zero_()
        if self._draw and not self._start.is_default:
            seed = derive_seed(self._effective_seed(), self._draw)
            drawn = self._in_units(self._start.integers(self.structure, self.pool_size, seed).to(self.pool.device))
            self.set_numbers(torch.cat((self._start_numbers()[: self.num_fixed], drawn[self.num_fixed :])))

    @torch.no_grad()
    def identify(self, identity: Identity) -> None:
        """Take another identity: tables and start are made anew, in place; δ stays."""
        if identity != self.identity:
            self.identity, self._start = identity, self._start_of(identity.init_weights)
            self._derive()

    def share_as(self, share: Share) -> None:
        """Read another part of the shared pool."""
        self.identify(replace(self.identity, share=share))

    @property
    def seed(self) -> Tensor:
        """(seed, stream), int64 (2,) on the CPU."""
        return torch.tensor((self.identity.seed, self.identity.stream), dtype=torch.int64, device="cpu")

    @property
    def index(self) -> Tensor | None:
        """The index map (num_blocks, numel), where the blocks read single numbers as they are."""
        single = self.pool_map is not None and self.pool_map.name == "index"
        return self.tables[0] if single else None

    @property
    def has_identity(self) -> bool:
        """Whether ΔW depends on anything beside its trained numbers."""
        return self.pooled or self._start.random

    def dealt(self) -> Tensor:
        """The raw numbers as blocks read them: (P, Q, numel) or (stack, P, Q, numel), in at least fp32."""
        return self._deal(self.numbers())

    def as_one_block(self) -> tuple[Structure, dict[str, Tensor]] | None:
        """The family whose blocks ΔW / scale is made of, with their generators, the start taken off.

        None where a start is subtracted that leaves no blocks of one family.
        """
        update = self._update().as_one_block()
        if update.start is not None:
            return None
        return update.structure, {name: generator.clone() for name, generator in update.generators.items()}

    def generators(self) -> dict[str, Tensor]:
        """The generators (P, Q, *shape), or (stack, P, Q, *shape), of all blocks at θ, in at least fp32."""
        return self._generators_at(self.numbers())

    def dense(self) -> Tensor:
        """ΔW (out, in), or (stack, out, in), in at least fp32, under autocast too, differentiable."""
        whole = self._update().matrix()  # at the scale 1 it may be the numbers' own memory
        return whole.clone(memory_format=torch.contiguous_format) if self.scale == 1 else whole

    def lookup(self, index: Tensor) -> Tensor:
        """Rows of ΔW, as a table of embeddings is read: int64 (…,) to (…, in), in at least fp32.

        Args:
            index: which rows, 0 … out − 1.
        """
        self._check_product(index)
        update = self._update().as_one_block()
        block, flat = update.structure, index.flatten()
        where = flat.div(block.rows, rounding_mode="floor"), flat.remainder(block.rows)
        with without_autocast(index.device):
            rows_TQN = block.lookup(*where, **update.generators)
            if update.start is not None:
                rows_TQN = rows_TQN - block.lookup(*where, **update.start)
        rows = rows_TQN.flatten(-2)[:, : self.grid.in_features] * self.scale
        return rows.view(*index.shape, self.grid.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """ΔW x: (…, in) to (…, out), in x's dtype or autocast's."""
        self._check_product(x)
        algorithm = products.ALGORITHMS[self.resolved_algorithm(x)]
        if algorithm.keeps and self._may_keep(x):
            return self._infer(algorithm, x)
        return algorithm.update(self._update(), x)

    def folds(self, x: Tensor, weight: Tensor) -> bool:
        """Whether x (W + ΔW)ᵀ is to be preferred to x Wᵀ + ΔW x, for inputs and a weight like these."""
        return products.ALGORITHMS[self.resolved_algorithm(x, weight)].takes_weight

    def fold(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x (W + ΔW)ᵀ + b: (…, in) to (…, out).

        Args:
            x: fp32 or fp64.
            weight: W (out, in) in x's dtype.
            bias: b (out,) in x's dtype, or None.
        """
        self._check_product(x)
        return products.fold_update(self._update(), x, weight, bias)

    def resolved_algorithm(self, x: Tensor, weight: Tensor | None = None) -> str:
        """The algorithm used for inputs like x (…, in), with a `weight` that ΔW may be added to or without."""
        return products.resolve(
            self.algorithm,
            self.structure,
            (self.grid.block_rows, self.grid.block_cols),
            x.numel() // self.grid.in_features,
            multiplied_in(x),
            x.device.type,
            weight=weight is not None and weight.dtype == x.dtype,
            grad=torch.is_grad_enabled(),
        )

    def extra_repr(self) -> str:
        """Sizes, family, numbers and algorithm in one line."""
        grid, block = self.grid, self.structure
        numbers = f"{self.num_trainable} trainable"
        if self.num_fixed:
            numbers += f" + {self.num_fixed} frozen"
        own = "".join(f", {name}={value}" for name, value in block.options.items())
        stack = "" if self.stack is None else f"{self.stack}×"
        common = " (gcd of the sizes)" if self.options.block_size == "gcd" else ""
        algorithm = self.algorithm
        if self.stack is not None:
            algorithm = "dense"
        elif algorithm == "auto":
            few, many = (
                products.choose(
                    block, (grid.block_rows, grid.block_cols), tokens, torch.float32, self.pool.device.type, weight=True
                )
                for tokens in (1, 2**20)
            )
            algorithm += f" ({few})" if few == many else f" ({few}; {many} for many tokens)"
        return (
            f"{stack}{grid.out_features}×{grid.in_features} = {grid.block_rows}×{grid.block_cols} blocks of "
            f"{block.rows}×{block.cols}{common} {block.name}{own}, {numbers}{self._whose_pool()}, "
            f"scale={self.scale:g}, algorithm={algorithm}"
        )

    def _whose_pool(self) -> str:
        if self.pool_map is None:
            return ""
        shared = "" if self.shared_pool is None else f" shared by {len(self.shared_pool)} matrices"
        read = "" if self.pool_map.name == pool_maps.DEFAULT else f", pool_map={self.pool_map.name}"
        return f" in a pool{shared}{read}"

    def _may_keep(self, x: Tensor) -> bool:
        """In inference on a CPU, where comparing numbers costs next to nothing."""
        cheap = not torch.is_grad_enabled() and x.device.type == "cpu"
        return cheap and not looked_on() and plain(x, self.pool)

    def _infer(self, algorithm: Algorithm, x: Tensor) -> Tensor:
        """ΔW x without gradients, through what is kept for as long as the numbers are the same."""
        dtype = working_dtype(x, self.pool)
        kept = self._kept
        if kept is None or not kept.holds(self.pool, self.scale, algorithm, dtype):
            update = self._update()
            prepared = algorithm.prepared(update, dtype)
            if prepared is None:
                return algorithm.update(update, x)
            kept = self._kept = Kept(self.pool.detach().clone(), self.scale, algorithm, prepared)
        x_TQN = self.grid.split(x).reshape(-1, self.grid.block_cols, self.grid.cols)
        y_TPM = kept.prepared.multiply(x_TQN)
        return self.grid.join(y_TPM).view(*x.shape[:-1], self.grid.out_features)

    def _update(self) -> products.Update:
        """ΔW as it is now."""
        start = self._start_generators() if self.centred else None
        return products.Update(self.structure, self._generators_at(self._numbers()), start, self.grid, self.scale)

    def _numbers(self) -> Tensor:
        """θ, which may be δ's own memory: a small layer's pass takes as long as it has operations."""
        if self.shared_pool is not None:
            self.shared_pool.check_one(self)
        numbers = self.pool.to(working_dtype(self.pool))
        if self.structure.raw_step != 1:
            numbers = numbers * self.structure.raw_step
        if self.num_fixed:
            numbers = nn.functional.pad(numbers, (self.num_fixed, 0))
        return numbers if self.start is None else numbers + self._start_numbers()

    def _start_numbers(self) -> Tensor:
        """θ⁰, (P,)."""
        self._follow()
        assert self.start is not None
        return self._in_units(self.start)

    def _in_units(self, integers: Tensor) -> Tensor:
        return integers.to(working_dtype(self.pool)) * self._start.step

    def _check_product(self, x: Tensor) -> None:
        if self.stack is not None:
            raise TypeError(f"a stack of {self.stack} matrices has no product with one x: use dense()")
        if self.shared_pool is not None and self.pool.device != x.device and not (self.pool.is_meta or x.is_meta):
            raise RuntimeError(
                f"the pool that this matrix shares (pool_scope={self.shared_pool.scope!r}) is on {self.pool.device}, "
                f"and its input on {x.device}: a pool is on one device: give the layers of each a group of their own"
            )
        if self.pool.is_meta and not x.is_meta:
            raise RuntimeError(
                f"the update's numbers are on the meta device, which holds none, and its input on {x.device}: load the "
                "adapter first, or keep this layer on a device where others are offloaded"
            )

    def _start_generators(self) -> dict[str, Tensor]:
        return self._generators_at(self._start_numbers())

    def _generators_at(self, numbers: Tensor) -> dict[str, Tensor]:
        """Deal numbers (P,) to the blocks and map them to generators."""
        shapes = self.structure.shapes
        parts = torch.split(self._deal(numbers), [math.prod(shape) for shape in shapes.values()], dim=-1)
        raw = {name: part.unflatten(-1, shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return self.structure.from_raw(**raw)

    def _deal(self, numbers: Tensor) -> Tensor:
        self._follow()
        dealt = numbers if self.pool_map is None else self.pool_map.read(numbers, self.tables)
        stacked = () if self.stack is None else (self.stack,)
        return dealt.view(*stacked, self.grid.block_rows, self.grid.block_cols, self.structure.numel)

    def _start_of(self, init_weights: InitWeights) -> Start:
        sizes = self.grid.out_features, self.grid.in_features
        return Start.of(init_weights, self.structure, pooled=self.pooled, sizes=sizes)

    def _effective_seed(self) -> int:
        """What index map and θ⁰ are drawn with: all that share a pool have the same."""
        identity = self.identity
        return derive_seed(identity.seed, identity.share.group if identity.share else identity.stream)

    def _offset(self) -> int:
        """How many numbers of the shuffles others read before this ΔW."""
        return self.identity.share.offset if self.identity.share else 0

    def _derive(self) -> None:
        """Make tables and start from the identity, where the trained numbers are; on meta only their shapes."""
        self._kept = None
        device, block = self.pool.device, self.structure
        meta = device.type == "meta"
        seed = 0 if meta else self._effective_seed()
        tables = () if self.pool_map is None else self.pool_map.tables(seed, self._offset(), device)
        start = None
        if self._start.random:
            start = (
                torch.empty(self.pool_size, dtype=torch.int32, device=device)
                if meta
                else (self._start.integers(block, self.pool_size, seed).to(device))
            )
        places = self.tables or (None,) * len(tables)
        self.tables = tuple(_put(table, place) for table, place in zip(tables, places, strict=True))
        self.start = None if start is None else _put(start, self.start)

    def _follow(self) -> None:
        """Bring tables and start to the trained numbers, which some hosts move by themselves."""
        device = self.pool.device
        for values in (*self.tables, self.start):
            if values is not None and values.device != device:
                if values.is_meta or device.type == "meta":
                    self._derive()
                    return
                self.tables = tuple(table.to(device) for table in self.tables)
                self.start = None if self.start is None else self.start.to(device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StructuredDelta:
        """Whatever a model is converted to, numbers stay in what they can be trained and saved in."""

        def kept(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype in FLOATS or not tensor.is_floating_point() else tensor.to(moved.device)

        before = self._parameters["pool"]
        super()._apply(kept, recurse)  # type: ignore[no-untyped-call]
        if self.shared_pool is not None and self._parameters["pool"] is not before:
            self.shared_pool.hold(self._parameters["pool"])  # as after `to_empty`
        self._follow()
        return self

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """A parameter that is set is set for all that share it; `load_state_dict(assign=True)` sets one for each."""
        super().register_parameter(name, param)
        if self.shared_pool is not None:
            self.shared_pool.hold(self._parameters["pool"])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy joins the copy of the shared pool."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.shared_pool is not None:
            self.shared_pool.rejoin(self)

    def get_extra_state(self) -> Tensor:
        """The identity, as it is written into files."""
        return self.identity.digits()

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the stream and the start of stored numbers: see `Identity.taking_over`.

        Raises:
            ValueError: the digits were altered, or the numbers are of another seed or of other blocks.
        """
        if not state.is_meta:
            self.identify(self.identity.taking_over(Identity.from_digits(state)))

    def stored_identity(self, state_dict: Mapping[str, Any], prefix: str) -> Identity:
        """The identity that this ΔW has once the numbers in a state dict are in it.

        Files of 0.1 have `seed` instead, where anything depends on it; files converted from other methods have neither.

        Raises:
            ValueError: the numbers mean nothing here; the message says why.
        """
        if (state := state_dict.get(prefix + EXTRA_STATE)) is not None:
            return self.identity if state.is_meta else self.identity.taking_over(Identity.from_digits(state))
        if self.has_identity:
            return self.identity.of_seed(state_dict.get(f"{prefix}seed"))
        return self.identity

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load δ and take over what it depends on, or, where that cannot be, neither."""
        before, identity, errors = self.identity, None, len(error_msgs)
        numbers, shared = state_dict.get(f"{prefix}pool"), self.shared_pool
        if numbers is not None or (shared is not None and prefix + EXTRA_STATE in state_dict):
            try:
                identity = self.stored_identity(state_dict, prefix)
            except ValueError as error:
                stored, own = self.pool.shape if numbers is None else numbers.shape, self.pool.shape
                sizes = f"size mismatch for {prefix}pool: {tuple(stored)} in the checkpoint, {tuple(own)} here"
                error_msgs.append(f"{prefix}seed: {error}" if stored == own else sizes)
                return
        if shared is not None:
            shared.compare(f"{prefix}pool", numbers, identity.share if identity else None, error_msgs)
            if len(error_msgs) > errors:
                return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if shared is not None:
            shared.complete(missing_keys)
        if len(error_msgs) > errors:
            self.identify(before)
        elif identity is not None:
            self.identify(identity)
            missing_keys[:] = [key for key in missing_keys if key != prefix + EXTRA_STATE]
            if self.has_identity:
                unexpected_keys[:] = [key for key in unexpected_keys if key != f"{prefix}seed"]
        self._follow()


def _put(values: Tensor, place: Tensor | None) -> Tensor:
    """The values, in the tensor that stands there already if it is like them: compiled graphs hold on to it."""
    if place is None or place.is_meta or place.shape != values.shape or place.device != values.device:
        return values
    return place.copy_(values)
