"""Weighted sums of adapters as one adapter, where a sum of structured matrices is one again."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import torch
from peft.tuners.tuners_utils import BaseTuner

from structune.delta import StructuredDelta
from structune.options import PATTERNED, UpdateOptions, check_strength
from structune.peft.base_layers import ParamWrapper, StructuneMultiheadAttention
from structune.peft.config import StructuneConfig
from structune.peft.layer import StructuneLayer
from structune.peft.layers import all_layers
from structune.structures.base import weighted_sum

Terms: TypeAlias = Sequence[tuple[float, StructuredDelta]]
"""Σ weight · ΔW, in one layer."""


@dataclass(frozen=True)
class Sum:
    """A weighted sum in one layer: the options that it needs, and what gives a new ΔW its numbers."""

    options: Mapping[str, Any]
    fill: Callable[[StructuredDelta], None]


def add_weighted_adapter(
    tuner: BaseTuner, adapters: Sequence[str], weights: Sequence[float], adapter_name: str
) -> None:
    """Add the adapter with ΔW = Σ weight · ΔW of others in every layer, exact up to rounding.

    - Families that are linear in their generators, as circulant, Toeplitz and Hankel blocks are, add up in them. If all
      terms draw from pools with the same index map, so does the sum; else it has own generators, which is more numbers.
    - Other families say themselves what a sum is (`Structure.sum_of`): one of low-rank, Toeplitz-like or Hankel-like
      blocks has the generator pairs of all terms, and ranks add up; so do the terms of Kronecker and Monarch ones.
    - Sums for which there is no such block, or of different families, are not one structured matrix: activate the
      adapters together.

    The terms' strengths (`set_scale`) are part of the sum. The new adapter is not activated, and its numbers are frozen
    until it is.

    Args:
        tuner: the model's `StructuneModel` (`PeftModel.base_model`).
        adapters: names of the terms; not all of them need be on every layer.
        weights: a factor for each.
        adapter_name: name of the new adapter.

    Raises:
        ValueError: a name is unknown or taken, the numbers of names and weights differ, or the sum is not one
            structured matrix; nothing is changed.
    """
    _check_arguments(tuner, adapters, weights, adapter_name)
    terms: dict[str, Terms] = {}
    for name, layer in all_layers(tuner.model).items():
        own: Terms = [(w, layer.delta(a)) for a, w in zip(adapters, weights, strict=True) if a in layer.structune_delta]
        if own:
            terms[name] = own
    maps = {None if delta.pool_map is None else delta.pool_map.name for own in terms.values() for _, delta in own}
    scopes = {str(cast(StructuneConfig, tuner.peft_config[name]).pool_scope) for name in adapters}
    shared = len(maps) == len(scopes) == 1 and all(_share_a_pool(own) for own in terms.values())
    shared = shared and _weighed_alike(terms.values())
    sums = {}
    for name, own in terms.items():
        try:
            sums[name] = _pooled_sum(own) if shared else sum_of(own)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    config = _config_of(tuner, adapters, sums, shared)
    tuner.peft_config[adapter_name] = config
    try:
        tuner.inject_adapter(tuner.model, adapter_name)
    except Exception:
        del tuner.peft_config[adapter_name]
        raise
    for name, total in sums.items():
        delta = tuner.model.get_submodule(f"{name}.structune_delta.{adapter_name}")
        assert isinstance(delta, StructuredDelta)
        total.fill(delta)


def sum_of(terms: Terms) -> Sum:
    """Σ weight · ΔW with own generators.

    Raises:
        ValueError: it is not one structured matrix; the message says why.
    """
    first = terms[0][1]
    names = sorted({delta.structure.name for _, delta in terms})
    if len(names) > 1:
        raise ValueError(f"a sum of {' and '.join(names)} blocks is not one structured matrix; {_INSTEAD}")
    if any(delta.grid != first.grid or delta.stack != first.stack for _, delta in terms):
        raise ValueError(f"the adapters are cut into blocks of different sizes; {_INSTEAD}")
    blocks = [(weight * delta.scale, delta.as_one_block()) for weight, delta in terms]
    found = [(weight, *block) for weight, block in blocks if block is not None]
    total = type(first.structure).sum_of(found) if len(found) == len(blocks) else None
    if total is None or total[0].name != names[0]:
        raise ValueError(f"a sum of these {names[0]} blocks is not one {names[0]} block; {_INSTEAD}")
    structure, generators = total
    return Sum(structure.options, lambda delta: delta.set_generators(**generators))


_INSTEAD = "activate the adapters together, base_model.set_adapter([…]), and weigh them with set_scale, or merge them"


def _share_a_pool(terms: Terms) -> bool:
    """Whether all terms are linear in the same pool: same size, index map and frozen part, no random start."""
    first = terms[0][1]
    return all(
        delta.structure == first.structure
        and delta.grid == first.grid
        and delta.stack == first.stack
        and delta.structure.is_linear
        and delta.start is None
        and delta.num_fixed == first.num_fixed
        and delta.pool_map is not None
        and delta.pool_map == first.pool_map
        and all(torch.equal(own, its) for own, its in zip(delta.tables, first.tables, strict=True))
        for _, delta in terms
    )


def _weighed_alike(terms: Iterable[Terms]) -> bool:
    """Whether matrices that share one pool in the terms can share one in the sum: all with the same factors."""
    factors: dict[int, list[float]] = {}
    for own in terms:
        first = own[0][1].identity.share
        if any(delta.identity.share != first for _, delta in own):
            return False
        found = [weight * delta.scale for weight, delta in own]
        if first is not None and factors.setdefault(first.group, found) != found:
            return False
    return True


def _pooled_sum(terms: Terms) -> Sum:
    """Σ weight · ΔW from one pool, by adding up the pools."""
    first = terms[0][1]

    def fill(delta: StructuredDelta) -> None:
        delta.identify(first.identity)
        delta.set_numbers(weighted_sum([(weight * term.scale, term.numbers()) for weight, term in terms]))

    return Sum({"pool_size": first.pool_size}, fill)


def _config_of(tuner: BaseTuner, adapters: Sequence[str], sums: Mapping[str, Sum], shared: bool) -> StructuneConfig:
    """The configuration of the sum: where all terms lie on the same layers, targets are the first one's."""
    configs = cast(Mapping[str, StructuneConfig], tuner.peft_config)
    first = configs[adapters[0]]
    own_numbers = {"pool_size": None, "fixed_ratio": first.fixed_ratio if shared else 0.0, "scale": 1.0}
    wanted: dict[str, UpdateOptions] = {}
    everywhere = True
    for name, total in sums.items():
        layer = tuner.model.get_submodule(name)
        assert isinstance(layer, StructuneLayer)
        has = [adapter for adapter in adapters if adapter in layer.structune_delta]
        everywhere &= len(has) == len(adapters)
        key = _target_of(name, layer)
        if key is not None:
            wanted[key] = configs[has[0]].at(key).spelled_out()
            for option, value in (own_numbers | dict(total.options)).items():
                wanted[key] = wanted[key].with_option(option, value)
    changes: dict[str, Any] = {"init_weights": True, "modules_to_save": None}
    changes["pool_scope"] = first.pool_scope if shared else "matrix"
    head = next(iter(wanted.values()))
    longest_first = sorted(wanted, key=len, reverse=True)  # a pattern is matched against the end of a name
    for option in PATTERNED:
        changes[option] = getattr(head, option)
        values = {re.escape(key): getattr(wanted[key], option) for key in longest_first}
        differs = any(value != changes[option] for value in values.values())
        given = {key: value for key, value in values.items() if value is not None}
        changes[f"{option}_pattern"] = given if differs else {}
    if not everywhere:
        exact = "|".join(re.escape(key) for key in wanted)
        changes |= {
            "target_modules": exact,
            "exclude_modules": None,
            "layers_to_transform": None,
            "layers_pattern": None,
        }
    return replace(first, **changes)


def _target_of(name: str, layer: StructuneLayer) -> str | None:
    """The name under which a layer is targeted; None for one that is adapted together with the one around it."""
    if isinstance(layer, ParamWrapper) and not isinstance(layer, StructuneMultiheadAttention):
        return f"{name.replace('.base_layer', '')}.{layer.parameter_name}"
    return None if ".base_layer." in name else name


def _check_arguments(tuner: BaseTuner, adapters: Sequence[str], weights: Sequence[float], adapter_name: str) -> None:
    if not adapters or len(adapters) != len(weights):
        raise ValueError(
            f"adapters has {len(adapters)} names, weights {len(weights)} numbers: give one weight for each"
        )
    for weight in weights:
        if not math.isfinite(weight):
            raise ValueError(f"weights has {weight}: weights must be finite numbers")
        check_strength("a weight", weight)
    if unknown := [name for name in adapters if name not in tuner.peft_config]:
        raise ValueError(f"adapters has {unknown}, but the model has {sorted(tuner.peft_config)}")
    if adapter_name in tuner.peft_config:
        raise ValueError(f"adapter_name={adapter_name!r} is taken: choose another, or delete that adapter first")
    if rows := [name for name in adapters if getattr(tuner.peft_config[name], "trainable_token_indices", None)]:
        raise ValueError(
            f"adapters has {rows[0]!r}, which trains rows of the embedding (trainable_token_indices): those are "
            "set, not added, so there is no sum of them; merge the adapters one after the other instead"
        )
