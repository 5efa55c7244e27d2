"""PEFT's LoKr adapters and structune's: the same Kronecker products, written differently."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoKrConfig, PeftModel
from peft.tuners.lokr.layer import factorization
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from structune.delta import EXTRA_STATE, StructuredDelta
from structune.peft.base_layers import StructuneConv, StructuneLinear
from structune.peft.config import StructuneConfig
from structune.peft.convert.c3a import POOL, TARGETS
from structune.peft.convert.converted import Converted, of_each_layer, read, read_own
from structune.peft.layer import StructuneLayer
from structune.peft.storage.keys import PREFIX
from structune.pool import stream_of
from structune.structures.families.kronecker import Kronecker

SHARED = (*TARGETS, "exclude_modules")
"""What the two configurations share."""


@torch.no_grad()
def from_peft_lokr(source: PeftModel | str | Path, adapter_name: str = "default") -> Converted:
    """PEFT's LoKr adapter as structune's, with the same forward: ΔW = alpha / r · w1 ⊗ w2 is one Kronecker block.

    Parts that PEFT keeps as products of thinner ones (w1_a w1_b, w2_a w2_b, and t2 of convolutions) are multiplied out:
    ΔW is the same, and more of it is free to train. Exact up to rounding; the errors say how far.

    Args:
        source: a live model with a LoKr adapter, or the folder of a saved one.
        adapter_name: which adapter of the live model.

    Raises:
        ValueError: it is not a LoKr adapter, or a layer's ΔW is no Kronecker product; the message names the layer.
    """
    config, tensors = read(source, adapter_name)
    if not isinstance(config, LoKrConfig):
        raise ValueError(f"source holds an adapter of type {config.peft_type}: from_peft_lokr reads LoKr")
    if config.rank_dropout or config.module_dropout:
        warnings.warn(
            f"rank_dropout={config.rank_dropout}, module_dropout={config.module_dropout}: dropout of rows or layers of "
            "ΔW is for LoKr alone; the converted adapter does the same in evaluation and trains without it",
            stacklevel=2,
        )
    factors = dict(_factors(tensors))
    ours = StructuneConfig(
        structure="kronecker",
        num_splits=1,
        **_by_name("scale", {name: _scaling(config, name) for name in factors}),
        **_left_sizes(factors),
        **{name: getattr(config, name) for name in SHARED},
    )
    written = {key: tensor for key, tensor in tensors.items() if ".lokr_" not in key}
    errors: dict[str, float] = {}
    for name, (A, B) in factors.items():
        target = torch.kron(A.double(), B.double()) * _scaling(config, name)
        delta = StructuredDelta(*target.shape, dtype=torch.float32, stream=stream_of(name), **ours.layer_options(name))
        delta.set_generators(A=A[None, None, None], B=B[None, None, None])
        errors[name] = float((delta.dense() - target).norm() / target.norm().clamp_min(1e-30))
        written[f"{PREFIX}{name}{POOL}"] = delta.pool.detach()
        written[f"{PREFIX}{name}{POOL}".replace("pool", EXTRA_STATE)] = delta.get_extra_state()
    return Converted(ours, written, errors)


@torch.no_grad()
def to_peft_lokr(model: PeftModel, adapter_name: str = "default") -> Converted:
    """Structune's adapter as PEFT's LoKr, where that can say it: one Kronecker product a layer, not cropped.

    Both factors are written in full (r is large enough for that), and the scale goes into w1.

    Args:
        model: a live model with the adapter, whose layers say their sizes.
        adapter_name: which adapter.

    Raises:
        ValueError: a layer's ΔW is none of PEFT's LoKr; the message names the layer and says why.
    """
    config, tensors = read_own(model, adapter_name, "to_peft_lokr")
    for option, nothing in (("bias", "none"), ("trainable_token_indices", None)):
        if (value := getattr(config, option)) != nothing:
            raise ValueError(f"{option}={value!r}: PEFT's LoKr trains nothing beside ΔW; merge the adapter instead")
    factors = of_each_layer(model, adapter_name, _kronecker_factors)
    channels = of_each_layer(model, adapter_name, _channels)
    rank = max(math.ceil(max(B.shape[:2]) / 2) for _, B in factors.values())  # from here on LoKr keeps w2 whole
    theirs = LoKrConfig(
        r=rank,
        alpha=rank,
        decompose_factor=_decompose_factor({name: A.shape for name, (A, _) in factors.items()}, channels),
        **{name: getattr(config, name) for name in SHARED},
    )
    written = {key: tensor for key, tensor in tensors.items() if ".structune_" not in key}
    for name, (A, B) in factors.items():
        written |= {f"{PREFIX}{name}.lokr_w1": A, f"{PREFIX}{name}.lokr_w2": B}
    return Converted(theirs, written, dict.fromkeys(factors, 0.0))


def _factors(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """w1 (a, c) and w2 (b, d), of a convolution (b, d · ∏ kernel), of each layer, in at least fp32."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, found, part = key.removeprefix(PREFIX).rpartition(".lokr_")
        if found:
            parts.setdefault(name, {})[part] = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    for name, own in parts.items():
        w1 = own["w1"] if "w1" in own else own["w1_a"] @ own["w1_b"]
        if "w2" in own:
            w2 = own["w2"]
        elif "t2" in own:
            w2 = torch.einsum("ijkl,ip,jr->prkl", own["t2"], own["w2_a"], own["w2_b"])
        else:
            w2 = own["w2_a"] @ own["w2_b"]
        if w2.dim() == 3:
            raise ValueError(
                f"{name}: PEFT multiplies w1 of {tuple(w1.shape)} with the last two axes of w2, {tuple(w2.shape)}, of "
                "a convolution in one dimension, so its ΔW is no Kronecker product; merge the adapter instead"
            )
        yield name, (w1, w2.flatten(1))


def _scaling(config: LoKrConfig, name: str) -> float:
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    rank = ranks.get(get_pattern_key(list(ranks), name), config.r)
    alpha = alphas.get(get_pattern_key(list(alphas), name), config.alpha)
    return float(alpha / rank)


def _left_sizes(factors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """The options that give each layer's A the size of its w1; none where the family's own choice is that."""
    if all(Kronecker(A.shape[0] * B.shape[0], A.shape[1] * B.shape[1]).left == A.shape for A, B in factors.values()):
        return {}
    rows = {name: A.shape[0] for name, (A, _) in factors.items()}
    cols = {name: A.shape[1] for name, (A, _) in factors.items()}
    return _by_name("left_rows", rows) | _by_name("left_cols", cols)


def _by_name(option: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """One value for all, or the commonest and a pattern for every name, longer ones before their endings."""
    usual = Counter(values.values()).most_common(1)[0][0]
    if all(value == usual for value in values.values()):
        return {option: usual}
    longest_first = sorted(values, key=len, reverse=True)
    return {option: usual, f"{option}_pattern": {re.escape(name): values[name] for name in longest_first}}


def _channels(layer: StructuneLayer, adapter_name: str) -> tuple[int, int]:
    """Outputs and inputs as PEFT counts them: of a group, where a convolution has groups."""
    out, within, *_ = layer.get_base_weight().shape
    return out, within


def _kronecker_factors(layer: StructuneLayer, adapter_name: str) -> tuple[Tensor, Tensor]:
    """w1 (a, c), times the scale, and w2 (b, d, *kernel)."""
    base, delta = layer.get_base_layer(), layer.delta(adapter_name)
    is_linear = type(layer) is StructuneLinear and isinstance(base, nn.Linear)
    if not is_linear and not (type(layer) is StructuneConv and isinstance(base, nn.Conv2d)):
        raise ValueError("PEFT's LoKr says this of nn.Linear and nn.Conv2d alone")
    block = delta.as_one_block() if isinstance(delta.structure, Kronecker) and delta.grid.num_blocks == 1 else None
    if block is None:
        raise ValueError(
            f"its {delta.grid.num_blocks} blocks are {delta.structure.name}, PEFT's LoKr has one kronecker block"
        )
    structure, generators = block
    assert isinstance(structure, Kronecker)
    if structure.terms != 1:
        raise ValueError(f"its ΔW is a sum of {structure.terms} Kronecker products, PEFT's LoKr is one")
    (a, c), (b, d) = structure.left, structure.right
    out, within, *kernel = layer.get_base_weight().shape
    if a * b != out or within % c or c * d != within * math.prod(kernel):
        raise ValueError(
            f"{a}×{c} ⊗ {b}×{d} is cropped to {out}×{within * math.prod(kernel)}, PEFT's LoKr has no more entries than "
            "the weight: give left_rows and left_cols that divide it"
        )
    A, B = generators["A"][0, 0, 0], generators["B"][0, 0, 0]
    return A * delta.scale, B.reshape(b, within // c, *kernel).clone()


def _decompose_factor(lefts: Mapping[str, tuple[int, ...]], channels: Mapping[str, tuple[int, int]]) -> int:
    """The one number from which PEFT works out the sizes of w1 of all layers."""
    sizes = {(size, left) for name in lefts for size, left in zip(channels[name], lefts[name], strict=True)}
    for factor in (-1, *range(1, max(left for _, left in sizes) + 1)):
        if all(factorization(size, factor)[0] == left for size, left in sizes):
            return factor
    shown = ", ".join(f"{left} of {size}" for size, left in sorted(sizes))
    raise ValueError(
        f"no decompose_factor, of which PEFT's LoKr has one for all layers, gives w1 these rows and columns: {shown}"
    )
