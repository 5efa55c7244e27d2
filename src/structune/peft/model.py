"""The PEFT method: putting adapters into a model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from peft.tuners.tuners_utils import BaseTuner
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from transformers import PreTrainedModel

from structune.delta import FLOATS
from structune.peft.base_layers import ParamWrapper, wrap
from structune.peft.computed_weight import check_stored
from structune.peft.config import StructuneConfig
from structune.peft.idle import watch
from structune.peft.layer import StructuneLayer
from structune.peft.layers import all_layers
from structune.peft.pool_scope import check_pools, forget_pools, idle_groups, shared_pool
from structune.peft.quantised import allow_packing, check_mergeable, report_merge_errors
from structune.peft.readers import use_of_weight
from structune.peft.several.mixed_batch import mixed_batch
from structune.peft.several.weighted import add_weighted_adapter
from structune.peft.storage.checkpoint import (
    alike_no_more,
    check_state_dict,
    place_old_seeds,
    with_identities,
)
from structune.peft.storage.nested import renamed, saved_names
from structune.peft.storage.pretrained import TAG
from structune.peft.storage.rollback import as_before_if_failing
from structune.peft.storage.sharded import StateDictNames, check_unwrapped
from structune.peft.storage.shared_pools import check_groups, everywhere, once
from structune.peft.targets import check_adapter_name, check_tokens
from structune.peft.untie import tying_as_it_is, untie
from structune.pool import stream_of

WARNED_OF_BY_PEFT = ("rank_pattern", "alpha_pattern")
"""Whose idle keys PEFT names itself, in every configuration that has an attribute of that name."""


class StructuneModel(BaseTuner):
    """A model with structured adapters; made by `peft.get_peft_model(model, StructuneConfig(…))`."""

    prefix: str = "structune_"
    tuner_layer_cls = StructuneLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING  # type: ignore[assignment]

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        try:
            with as_before_if_failing(model):
                super().__init__(model, *args, **kwargs)
        except Exception:
            if not hasattr(model, "peft_config") and "_hf_peft_config_loaded" in vars(model):
                model._hf_peft_config_loaded = False  # type: ignore[assignment]  # hosts set it before they try
            raise
        if isinstance(model, PreTrainedModel):
            model.add_model_tags(TAG)  # for the cards that PEFT and transformers write

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Adapt every targeted layer, or, if one of them cannot be, none.

        Raises:
            ValueError, TypeError: a layer does not fit; the message names it, and the model is as it was.
        """
        check_adapter_name(adapter_name)
        config: Any = self.peft_config[adapter_name]
        self._adapted_names: list[str] = []
        with as_before_if_failing(self):
            forget_pools(self, adapter_name)
            try:
                super().inject_adapter(model, adapter_name, *args, **kwargs)
                check_pools(self, adapter_name)
            except TypeError as error:
                if "cannot be applied to modules of type" not in str(error):
                    raise
                raise TypeError(
                    f"{error}, for it is adapted: leave the module out of target_modules, or out of "
                    "modules_to_save and trainable_token_indices"
                ) from error
        self._warn_of_idle_patterns(config)

    def _warn_of_idle_patterns(self, config: StructuneConfig) -> None:
        if idle := idle_groups(config.pool_scope, self._adapted_names):
            warnings.warn(
                f"pool_scope: {', '.join(map(repr, idle))} shares a pool among no adapted module. Its expression is "
                "for the end of a module's full name, and the first that matches counts; model.targeted_module_names "
                "has the names",
                stacklevel=2,
            )
        for option, keys in config.idle_patterns(self._adapted_names).items():
            if f"{option}_pattern" not in WARNED_OF_BY_PEFT:
                warnings.warn(
                    f"{option}_pattern: {', '.join(map(repr, keys))} decides about no adapted module. A key is a name "
                    "or an expression for the end of a module's full name, and the first that matches counts; "
                    "model.targeted_module_names has the names",
                    stacklevel=2,
                )

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: StructuneConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
        **_: Any,
    ) -> None:
        if isinstance(parent, StructuneLayer) and parameter_name is None:
            return  # the output projection of an attention that has this adapter already
        vars(self).setdefault("_adapted_names", []).append(current_key)  # of PEFT's mixed models, too
        options = peft_config.layer_options(current_key) | {"stream": stream_of(current_key)}
        pool = shared_pool(self, adapter_name, peft_config.pool_scope, current_key)
        options |= {"pool_scope": "matrix"} if pool is None else {"shared_pool": pool}
        try:
            layer = layer_for(target, self.model, adapter_name, current_key, parameter_name)
            layer.add_adapter(adapter_name, peft_config.dropout, options, peft_config.inference_mode)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{current_key}: {error} (or leave this module out with exclude_modules, or override the option for it "
                "with its _pattern)"
            ) from error
        if layer is not target:
            if adapter_name not in self.active_adapters:
                layer.requires_grad_(False)
            self._replace_module(parent, target_name, layer, target)
        watch(layer, adapter_name, current_key)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """Put a layer into its place; a bare module that comes back needs nothing more."""
        if isinstance(new_module, StructuneLayer):
            super()._replace_module(parent, child_name, new_module, child)
        else:
            setattr(parent, child_name, new_module)
            for layer in child.modules():
                if isinstance(layer, StructuneLayer):
                    layer.undo = None  # nothing will be unmerged

    def _prepare_adapter_config(self, peft_config: StructuneConfig, model_config: dict[str, Any]) -> StructuneConfig:  # type: ignore[override]
        """Without target_modules the usual ones of the architecture, but none where target_parameters are given."""
        if peft_config.target_modules is None and peft_config.target_parameters:
            return peft_config
        prepared = super()._prepare_adapter_config(peft_config, model_config)
        assert isinstance(prepared, StructuneConfig)
        return prepared

    def _check_new_adapter_config(self, config: StructuneConfig) -> None:  # type: ignore[override]
        """All adapters that target parameters must target the same ones: their order is what tells them apart."""
        super()._check_new_adapter_config(config)
        check_tokens(config.trainable_token_indices)  # again: TRL adds to them
        for name, other in self.peft_config.items():
            theirs = set(getattr(other, "target_parameters", None) or ())
            if other is not config and theirs and config.target_parameters and theirs != set(config.target_parameters):
                raise ValueError(
                    f"target_parameters={sorted(config.target_parameters)} differ from those of adapter {name!r}, "
                    f"{sorted(theirs)}: adapters of one model must target the same parameters"
                )

    def _inject_parameters(
        self, peft_config: Any, model: nn.Module, adapter_name: str, low_cpu_mem_usage: bool
    ) -> list[str]:
        """PEFT's search for target_parameters, which passes over those that are none, such as computed weights."""
        for target in peft_config.target_parameters or ():
            owner, _, parameter = target.rpartition(".")
            for name, module in model.named_modules():
                if f".{name}".endswith(f".{owner}") and isinstance(getattr(module, parameter, None), Tensor):
                    base = module.get_base_layer() if isinstance(module, StructuneLayer) else module
                    try:
                        check_stored(base, parameter)
                    except TypeError as error:
                        raise TypeError(f"{name}.{parameter}: {error}") from error
        return super()._inject_parameters(peft_config, model, adapter_name, low_cpu_mem_usage)

    def _check_tied_modules(self, model: nn.Module, peft_config: Any) -> None:
        """Only the layer that is named is adapted, and merging gives it a weight of its own: see `untie`."""

    def _check_merge_allowed(self) -> None:
        """Refuse weights that cannot be merged into, before any is; give tied weights a copy of their own."""
        check_mergeable(self.model)
        untie(self.model)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Merge adapters in place; quantised weights report what that has cost: see `StructuneLayer.merge`."""
        super().merge_adapter(adapter_names, safe_merge)
        report_merge_errors(_merge_errors(all_layers(self.model)))

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> Any:
        layers = all_layers(self.model)
        with tying_as_it_is(self.model):
            model = super()._unload_and_optionally_merge(*args, **kwargs)
        for layer in layers.values():
            if layer.packs:
                allow_packing(layer.get_base_layer())
        report_merge_errors(_merge_errors(layers))
        return model

    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> AbstractContextManager[None]:
        """Where a call names an adapter for each sample, layers are told which; PEFT calls this around each forward."""
        return mixed_batch(self, kwargs.get("adapter_names"), kwargs.get("num_beams"))

    def add_weighted_adapter(self, adapters: list[str], weights: list[float], adapter_name: str) -> None:
        """Add an adapter whose ΔW is Σ weight · ΔW of others, exactly: see `structune.peft.several.weighted`."""
        add_weighted_adapter(self, adapters, weights, adapter_name)

    @classmethod
    def _get_adapter_state_dict(cls, model: nn.Module, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """PEFT's choice of what belongs to an adapter, whatever FSDP or another method has wrapped.

        Raises:
            ValueError: a state dict that was handed in has been cast to what no adapter is stored in, such as float8.
        """
        names: Any = StateDictNames(model)
        chosen: dict[str, Tensor] = super()._get_adapter_state_dict(names, **kwargs)
        with_identities(chosen, names.named_modules(), kwargs["adapter_name"])
        once(chosen, names.named_modules(), kwargs["adapter_name"])
        for name, tensor in chosen.items():
            if tensor.is_floating_point() and tensor.dtype not in FLOATS:
                raise ValueError(
                    f"{name} is {tensor.dtype} in the state dict, which no adapter is stored in: hand in one that was "
                    "not cast, or none"
                )
        return renamed(chosen, saved_names(model))

    @classmethod
    def _remap_adapter_state_dict_for_load(  # type: ignore[override]
        cls, model: nn.Module, config: StructuneConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """PEFT's mapping of a checkpoint's keys onto the model's, held against the adapter before it is loaded."""
        check_unwrapped(model)
        state_dict = renamed(state_dict, {file: own for own, file in saved_names(model).items()})
        mapped: dict[str, Tensor] = super()._remap_adapter_state_dict_for_load(
            model=model, config=config, adapter_name=adapter_name, state_dict=state_dict
        )
        mapped = everywhere(place_old_seeds(mapped, adapter_name))
        check_groups(model, adapter_name, mapped)
        starts = check_state_dict(model, adapter_name, mapped)
        if len(starts) == 1:
            config.init_weights = starts.pop()
        if parted := alike_no_more(model, adapter_name, mapped):
            warnings.warn(
                f"adapter {adapter_name!r} takes over streams of the seed that {', '.join(map(repr, parted))} beside "
                "it does not have: numbers copied between them would mean something else; add adapters that are to be "
                "copies after this one is loaded",
                stacklevel=2,
            )
        return mapped


def layer_for(
    target: nn.Module, model: nn.Module, adapter_name: str, module_name: str, parameter_name: str | None
) -> StructuneLayer:
    """The layer at the target, or a new one around it."""
    if isinstance(target, StructuneLayer) and parameter_name in (None, target.weight_name):
        return target
    if parameter_name is None:
        layer = wrap(target, model)
        if layer.is_called:
            layer.weight_is_read, layer.is_called = use_of_weight(model, module_name, target)
    else:
        layer = ParamWrapper(target, parameter_name)
    layer._active_adapter = adapter_name
    return layer


def _merge_errors(layers: Mapping[str, StructuneLayer]) -> dict[str, float]:
    errors = {name: layer.merge_error for name, layer in layers.items()}
    return {name: error for name, error in errors.items() if error is not None}
