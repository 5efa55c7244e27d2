"""LoRA: the low-rank part of any ΔW, and the structured part of a low-rank one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.utils.other import get_pattern_key
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from structune.delta import EXTRA_STATE, StructuredDelta
from structune.options import as_python
from structune.peft.base_layers import StructuneLinear
from structune.peft.config import StructuneConfig
from structune.peft.convert.c3a import POOL, TARGETS
from structune.peft.convert.converted import Converted, read, read_own
from structune.peft.layers import adapted_layers
from structune.peft.pool_scope import own_or_shared
from structune.peft.storage.keys import PREFIX
from structune.pool import stream_of
from structune.shared_pool import SharedPool

LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
PLAIN = (
    "use_dora",
    "lora_bias",
    "target_parameters",
    "layer_replication",
    "megatron_config",
)
"""Options of LoRA that are more than W + B A: they must be off."""
ALSO_SHARED = ("exclude_modules", "trainable_token_indices")
"""What LoRA's configuration shares with ours besides what C3A's does."""


@torch.no_grad()
def to_lora(
    model: PeftModel,
    rank: int | None = None,
    max_error: float = 0.05,
    adapter_name: str = "default",
    force: bool = False,
) -> Converted:
    """The adapter as LoRA, for servers and tools that know nothing else: ΔW ≈ B A.

    Low-rank structures are written exactly. Of all others the best approximation of a rank is taken, the truncated
    singular value decomposition, and its error reported: circulant and pooled updates mostly have full rank, and a LoRA
    of small rank loses much of them.

    Args:
        model: a live model with the adapter.
        rank: of every layer; None takes for each layer the smallest that keeps max_error.
        max_error: ‖B A − ΔW‖ / ‖ΔW‖ allowed in a layer.
        adapter_name: which adapter.
        force: convert even where the error is larger.

    Raises:
        ValueError: an argument is out of range, a layer has another error than allowed, or is no linear layer.
    """
    config, tensors = read_own(model, adapter_name, "to_lora")
    if config.bias != "none":
        raise ValueError(
            f"bias={config.bias!r}: LoRA files of trained biases are not written; merge the adapter instead"
        )
    rank = as_python(rank)
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        raise ValueError(f"rank={rank!r} must be an integer of at least 1, or None for what max_error needs")
    if not 0 <= max_error < 1:
        raise ValueError(f"max_error={max_error!r} must be a number in [0, 1)")
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    errors: dict[str, float] = {}
    transposed = False
    for name, layer in adapted_layers(model.get_base_model().named_modules(), adapter_name):
        if not isinstance(layer, StructuneLinear):
            raise ValueError(f"{name}: only linear layers are converted to LoRA, this is {type(layer).__name__}")
        B, A, errors[name] = _factors(layer.delta(adapter_name), rank, max_error)
        factors[name] = (A, B)
        transposed |= isinstance(layer.get_base_layer(), Conv1D)
    worst = max(errors, key=lambda name: errors[name])
    if errors[worst] > max_error and not force:
        needed = "a larger rank, or rank=None for what is needed"
        raise ValueError(
            f"rank={rank} leaves an error of {errors[worst]:.0%} of ΔW in {worst}, more than max_error={max_error:g}: "
            f"give {needed}, merge the adapter instead, or give force=True"
        )
    ranks = {name: A.shape[0] for name, (A, _) in factors.items()}
    usual = Counter(ranks.values()).most_common(1)[0][0]
    other = {re.escape(name): r for name, r in ranks.items() if r != usual}
    theirs = LoraConfig(
        r=usual,
        lora_alpha=usual,
        rank_pattern=other,
        alpha_pattern=dict(other),
        fan_in_fan_out=transposed,
        **{name: getattr(config, name) for name in (*TARGETS, *ALSO_SHARED)},
    )
    written = {
        f"{PREFIX}{name}{key}": f
        for name, pair in factors.items()
        for key, f in zip((LORA_A, LORA_B), pair, strict=True)
    }
    others = {key: tensor for key, tensor in tensors.items() if ".structune_" not in key}
    return Converted(theirs, written | others, errors)


@torch.no_grad()
def from_lora(source: PeftModel | str | Path, adapter_name: str = "default", **options: Any) -> Converted:
    """The nearest structured ΔW to each ΔW = B A of a LoRA adapter, in the Frobenius norm, with its error.

    Circulant, Toeplitz and Hankel blocks, own or from a pool: the mean of all entries that share a number. Low rank
    (num_splits=1): the truncated singular value decomposition, exact from LoRA's own rank on.

    Args:
        source: a live model with a LoRA adapter, or the folder of a saved one.
        adapter_name: which adapter of the live model.
        **options: of `StructuneConfig`: structure, block_size or num_splits, pool_size, seed …

    Raises:
        ValueError: it is no plain LoRA adapter, or the family has no projection.
    """
    config, tensors = read(source, adapter_name)
    if not isinstance(config, LoraConfig):
        raise ValueError(f"source holds an adapter of type {config.peft_type}: from_lora reads LoRA")
    if more := [name for name in PLAIN if getattr(config, name, None)]:
        raise ValueError(f"{more[0]}={getattr(config, more[0])!r}: only plain LoRA, W + B A, is converted")
    targets = {name: getattr(config, name) for name in (*TARGETS, *ALSO_SHARED)}
    ours = StructuneConfig(bias="structune_only" if config.bias == "lora_only" else config.bias, **targets | options)
    written = {key: tensor for key, tensor in tensors.items() if ".lora_" not in key}
    errors: dict[str, float] = {}
    pools: dict[tuple[str, str], SharedPool] = {}
    together: dict[object, list[tuple[str, StructuredDelta, Tensor]]] = {}
    for key in [key for key in tensors if key.endswith(LORA_A)]:
        name = key[len(PREFIX) : -len(LORA_A)]
        A, B = tensors[key].double(), tensors[key.replace(LORA_A, LORA_B)].double()
        if A.ndim != 2:
            raise ValueError(f"{name}: only linear layers are converted, its lora_A has {A.ndim} dimensions")
        target = B @ A * lora_scale(config, name)
        own = {"stream": stream_of(name)} | own_or_shared(ours.pool_scope, name, pools)
        delta = StructuredDelta(*target.shape, dtype=torch.float64, **ours.layer_options(name) | own)
        together.setdefault(delta.shared_pool or name, []).append((name, delta, target))
    for matrices in together.values():
        names = [name for name, _, _ in matrices]
        deltas = [delta for _, delta, _ in matrices]
        try:
            _project(deltas, [target for _, _, target in matrices])
        except ValueError as error:
            raise ValueError(f"{names[0]}: {error}") from error
        dtype = tensors[f"{PREFIX}{names[0]}{LORA_A}"].dtype
        written[f"{PREFIX}{names[0]}{POOL}"] = deltas[0].pool.detach().to(dtype)
        for name, delta, target in matrices:
            errors[name] = _error(delta.dense(), target)
            written[f"{PREFIX}{name}{POOL}".replace("pool", EXTRA_STATE)] = delta.get_extra_state()
    return Converted(ours, written, errors)


def _factors(delta: StructuredDelta, rank: int | None, max_error: float) -> tuple[Tensor, Tensor, float]:
    """B (out, r), A (r, in) and the error, in ΔW's dtype."""
    grid = delta.grid
    block = delta.as_one_block() if grid.num_blocks == 1 else None
    thin = block and block[0].thin_factors(**block[1])
    if thin is not None and rank in (None, thin[0].shape[-1]):
        left, right = (factor[0, 0] for factor in thin)
        return left.clone(), right * delta.scale, 0.0
    W = delta.dense()
    U, S, Vh = torch.linalg.svd(W.double(), full_matrices=False)
    if rank is not None and rank > len(S):
        raise ValueError(f"rank={rank} is larger than a weight of {W.shape[0]}×{W.shape[1]} has: at most {len(S)}")
    left = torch.cat((S.square().flip(0).cumsum(0).flip(0), S.new_zeros(1)))  # what ranks 0, 1, … leave, squared
    if rank is None:
        rank = max(1, int((left <= max_error**2 * left[0]).nonzero()[0]))
    A, B = Vh[:rank].to(W.dtype), (U[:, :rank] * S[:rank]).to(W.dtype)
    return B, A.contiguous(), _error(B.double() @ A.double(), W.double())


def _project(deltas: Sequence[StructuredDelta], targets: Sequence[Tensor]) -> None:
    """Set ΔW, or several that share a pool together, to the nearest to its target (out, in)."""
    if all(delta.structure.is_linear and delta.start is None for delta in deltas):
        _least_squares(deltas, targets)
        return
    delta, target = deltas[0], targets[0]
    structure, grid = delta.structure, delta.grid
    # Blocks that do not overlap and are not cropped are the nearest one by one.
    whole = (grid.block_rows * grid.rows, grid.block_cols * grid.cols) == target.shape
    if whole and not delta.pooled:
        blocks = (target / delta.scale).unflatten(1, (-1, grid.cols)).unflatten(0, (-1, grid.rows)).transpose(1, 2)
        if (generators := structure.nearest(blocks)) is not None:
            delta.set_generators(**generators)
            return
    raise ValueError(
        f"nothing is projected onto {structure.name} blocks with these options: use a family that is linear in its "
        "numbers, such as toeplitz, with the default start, or one that knows its nearest block, such as low_rank, "
        "with num_splits=1 and no pool"
    )


def _least_squares(deltas: Sequence[StructuredDelta], targets: Sequence[Tensor]) -> None:
    """Set ΔW = S δ, all of them one above the other, to its nearest to the targets.

    By conjugate gradients on SᵀS δ = Sᵀ target, divided by the sums of rows.
    Where every entry of ΔW is a multiple of one number, SᵀS is diagonal, the sums are what stands there, and the first
    step arrives.

    Raises:
        ValueError: a thousand steps do not arrive.
    """
    pool = deltas[0].pool

    def dense() -> Tensor:
        return torch.cat([delta.dense().flatten() for delta in deltas])

    def update(numbers: Tensor) -> Tensor:
        pool.copy_(numbers)
        return dense()

    def transposed(entries: Tensor) -> Tensor:
        with torch.enable_grad():
            return torch.autograd.grad(dense(), pool, entries)[0]

    sums = transposed(update(torch.ones_like(pool))).abs()
    weights = sums.clamp_min(1e-3 * float(sums.max()))
    found, residual = torch.zeros_like(pool), torch.cat([target.flatten() for target in targets])
    gradient = transposed(residual)
    direction, slope = gradient / weights, (gradient.square() / weights).sum()
    enough = 1e-20 * slope
    for _ in range(1000):
        if slope <= enough:
            pool.copy_(found)
            return
        moved = update(direction)
        step = slope / moved.square().sum()
        found, residual = found + step * direction, residual - step * moved
        gradient, before = transposed(residual), slope
        slope = (gradient.square() / weights).sum()
        direction = gradient / weights + slope / before * direction
    raise ValueError(
        f"the nearest {deltas[0].structure.name} blocks were not found: their numbers depend on one another"
    )


def lora_scale(config: LoraConfig, name: str) -> float:
    """What a layer's B A is multiplied by, by the layer's name: α/r, or α/√r with `use_rslora`."""
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    rank = ranks.get(get_pattern_key(list(ranks), name), config.r)
    alpha = alphas.get(get_pattern_key(list(alphas), name), config.lora_alpha)
    return float(alpha / (rank**0.5 if config.use_rslora else rank))


def _error(found: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected).clamp_min(1e-30))
