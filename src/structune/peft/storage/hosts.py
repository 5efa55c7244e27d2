"""What methods of PEFT and transformers leave undone where adapters of ours are in the model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import peft.helpers
from peft import PeftConfig, PeftMixedModel, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import load_peft_weights
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.peft import PeftAdapterMixin

from structune.peft.config import StructuneConfig
from structune.peft.layer import StructuneLayer
from structune.peft.layers import adapted_layers
from structune.peft.several.hotswap import hotswap_adapter
from structune.peft.storage.rollback import as_before_if_failing
from structune.peft.storage.shared_pools import check_groups, everywhere

LOADERS: tuple[tuple[type, str], ...] = (
    (PeftModel, "from_pretrained"),
    (PeftModel, "load_adapter"),
    (PeftMixedModel, "from_pretrained"),
    (PeftAdapterMixin, "load_adapter"),
)
"""The methods that put an adapter into a model and load its numbers."""


def complete_hosts() -> None:
    """Make the loaders, and resizing the vocabulary, all or nothing; what is loaded to be trained is in training mode.

    The loaders put layers in first and read the numbers afterwards, and ask no method when that fails. Models that
    have no adapter of ours are none of our business; a second call changes nothing.
    """
    _replace(PeftAdapterMixin, "load_adapter", _with_shared_pools)  # before the others, which go by what it was given
    for owner, name in LOADERS:
        _replace(owner, name, _completed)
    _replace(PreTrainedModel, "resize_token_embeddings", _explained)
    _replace(PeftAdapterMixin, "load_adapter", _swapped)
    names: Any = peft.helpers  # whose `rescale_adapter_scale` asks for this type
    names.LoraLayer = (LoraLayer, StructuneLayer)


def _replace(owner: type, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    method = vars(owner)[name]
    function = getattr(method, "__func__", method)
    done = getattr(function, "completed_by_structune", ())
    if wrapper not in done:
        completed = wrapper(function)
        completed.completed_by_structune = (*done, wrapper)  # type: ignore[attr-defined]
        setattr(owner, name, classmethod(completed) if isinstance(method, classmethod) else completed)


def _explained(resize: Callable[..., Any]) -> Callable[..., Any]:
    """Resizing an embedding or an output layer that is adapted fails half-way, with a word about types."""

    @functools.wraps(resize)
    def explained(model: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        ends = {"embedding": model.get_input_embeddings(), "output layer": model.get_output_embeddings()}
        kinds = (StructuneLayer, AuxiliaryTrainingWrapper)
        adapted = {what: module for what, module in ends.items() if isinstance(module, kinds)}
        if not adapted or not _has_ours(model):
            return resize(model, *args, **kwargs)
        config = model.config.get_text_config()
        size, shapes = config.vocab_size, [module.weight.shape for module in adapted.values()]
        try:
            with as_before_if_failing(model):
                resized = resize(model, *args, **kwargs)
                if [module.weight.shape for module in adapted.values()] != shapes:
                    raise ValueError("a weight has grown away from its adapter")
                return resized
        except Exception as error:
            config.vocab_size = size
            raise ValueError(
                f"the vocabulary cannot be resized while an adapter is on the {' and the '.join(adapted)}, whose "
                "numbers belong to its rows: resize it before the adapter goes in, or merge the adapter first "
                "(merge_and_unload)"
            ) from error

    return explained


def _swapped(load: Callable[..., Any]) -> Callable[..., Any]:
    """transformers swaps LoRA only."""
    signature = inspect.signature(load)

    @functools.wraps(load)
    def swapped(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            return load(self, *args, **kwargs)  # says itself what is wrong with its arguments
        name, hotswap = given.get("adapter_name") or "default", given.get("hotswap", "auto")
        wanted = getattr(self, "_hotswap_enabled", False) if hotswap == "auto" else hotswap
        ours = isinstance(getattr(self, "peft_config", {}).get(name), StructuneConfig)
        if wanted and ours and given.get("peft_model_id") is not None:
            return hotswap_adapter(self, given["peft_model_id"], name)
        return load(self, *args, **kwargs)

    return swapped


def _with_shared_pools(load: Callable[..., Any]) -> Callable[..., Any]:
    """transformers goes by the names in the file, where a shared pool has one of the many that it has in the model."""
    signature = inspect.signature(load)

    @functools.wraps(load)
    def expanded(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(self, *args, **kwargs)
        except TypeError:
            return load(self, *args, **kwargs)  # says itself what is wrong with its arguments
        tensors = given.arguments.get("adapter_state_dict")
        if tensors is None and (folder := given.arguments.get("peft_model_id")) is not None:
            tensors = _tensors_of_shared_pools(folder, given.arguments.get("adapter_kwargs") or {})
        if tensors is not None:
            given.arguments["adapter_state_dict"] = everywhere(tensors)
        return load(*given.args, **given.kwargs)

    return expanded


def _tensors_of_shared_pools(folder: str, kwargs: dict[str, Any]) -> dict[str, Tensor] | None:
    """The tensors of a saved adapter whose matrices share pools; None for all others, which transformers reads."""
    names = ("subfolder", "revision", "cache_dir", "token", "local_files_only")
    kwargs = {name: kwargs[name] for name in names if name in kwargs}
    try:
        config = PeftConfig.from_pretrained(folder, **kwargs)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # says so itself when it reads the file
    if not isinstance(config, StructuneConfig) or config.pool_scope == "matrix":
        return None
    return load_peft_weights(folder, device="cpu", **kwargs)


def _completed(load: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(load)

    @functools.wraps(load)
    def completed(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return load(*args, **kwargs)  # says itself what is wrong with its arguments
        model = given["model"] if "model" in signature.parameters else given["self"]
        name = given.get("adapter_name") or "default"
        if not isinstance(model, nn.Module):
            return load(*args, **kwargs)
        with as_before_if_failing(model, name, concerns=_has_ours):
            try:
                result = load(*args, **kwargs)
            except KeyError as error:  # of the tensors in the file
                if not _has_ours(model):
                    raise
                raise ValueError(
                    f"the checkpoint lacks {error}: it is cut short, or was made with other modules_to_save. (Into a "
                    "model whose adapters have trainable_token_indices PEFT loads only adapters that have some, too.)"
                ) from error
            if isinstance(getattr(model, "peft_config", {}).get(name), StructuneConfig):
                if given.get("adapter_state_dict") is None:
                    _check_nothing_missing(model, result, name)
                check_groups(model, name)
                if given.get("is_trainable"):
                    set_training(model, name)
        return result

    return completed


def set_training(model: nn.Module, adapter_name: str) -> None:
    """Put an adapter's own parts into training mode, whatever mode the model around them is in, as LoRA's are."""
    for _, layer in adapted_layers(model.named_modules(), adapter_name):
        layer.training = True
        layer.structune_delta[adapter_name].train()
        layer.structune_dropout[adapter_name].train()


def _has_ours(model: nn.Module) -> bool:
    return any(isinstance(module, StructuneLayer) for module in model.modules())


def _check_nothing_missing(model: nn.Module, result: Any, adapter_name: str) -> None:
    """Raise ValueError where transformers has only logged that the file lacks tensors of the adapter, or has others.

    Of a state dict that a caller hands in, it stays at that report.
    """
    in_full = {
        f"{name}.{key}"
        for name, wrapper in model.named_modules()
        if isinstance(wrapper, AuxiliaryTrainingWrapper)
        for key in wrapper.adapter_state_dict_load_map(adapter_name).values()
    }
    for what, keys in (
        ("lacks {} of the tensors", getattr(result, "missing_keys", ())),
        ("holds {} tensors that there is no place for among those", getattr(result, "unexpected_keys", ())),
    ):
        if ours := sorted(key for key in keys if f".structune_delta.{adapter_name}." in key or key in in_full):
            raise ValueError(
                f"the checkpoint {what.format(len(ours))} of adapter {adapter_name!r}, such as {ours[0]}: it is cut "
                "short, or was made with other target_modules or another model"
            )
