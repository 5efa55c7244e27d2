"""The adapted layer: y = base(x) + Σ ΔW x over the active adapters, every one reading the same x."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from peft.utils.quantization_utils import QuantizationBackend
from torch import Tensor, nn
from torch.func import functional_call

from structune.delta import FLOATS, StructuredDelta
from structune.options import check_strength
from structune.peft.computed_weight import check_stored
from structune.peft.own_forward import check_read, reads_as, redefines, replaced
from structune.peft.quantised import QuantisedWeight
from structune.peft.strengths import Strengths
from structune.peft.undo import Undo, as_it_is, plus
from structune.peft.watched import watched
from structune.surroundings import autocasts, traced

BASE = "__base__"
"""In a mixed batch: the sample goes through the base layer alone."""


class StructuneLayer(nn.Module, BaseTunerLayer):
    """A base layer with any number of structured adapters.

    Written once here: adapters and their strengths, forward, mixed batches, merging. A type of base layer is a subclass
    that says its sizes, how its weight is laid out and what ΔW does to an input; `structune.peft.base_layers` has them.

    Args:
        base_layer: the frozen layer, or another adapter's layer around it.
    """

    adapter_layer_names: tuple[str, ...] = ("structune_delta",)
    other_param_names: tuple[str, ...] = ("structune_dropout",)

    base_types: ClassVar[tuple[type[nn.Module], ...]]
    """The base layers that the subclass adapts."""

    drops_inputs: ClassVar[bool] = True
    """Whether dropout on the adapter's input means something for this type of layer."""

    cast_input_dtype_enabled = True
    """PEFT's `disable_input_dtype_casting`, of diffusers' layerwise casting, sets it; inputs are never cast here."""

    does: ClassVar[str]
    """What a layer of exactly these types does, in words."""

    known_forwards: ClassVar[tuple[Callable[..., Any], ...]] = ()
    """How subclasses of `base_types` may write their forward for `update` to be what ΔW adds to it."""

    weight_is_read = False
    """Whether a module around this one reads the numbers of `weight`: it must see W + ΔW there."""

    is_called = True
    """Whether a module around this one calls the layer."""

    by_sample = False
    """Whether a mixed batch is under way."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.quantization_backend: QuantizationBackend | None = None
        self.structune_delta = nn.ModuleDict()
        self.structune_dropout = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.merged_deltas: dict[str, StructuredDelta] = {}  # as they were when they were merged
        self.undo: Undo | None = None
        self.quantised_weight: QuantisedWeight | None = None
        self.packs = False  # see quantised.keep_unpacked
        self._whole: bool | None = None
        self.train(base_layer.training)

    @property
    def weight_name(self) -> str:
        """The parameter of the base layer that ΔW is added to."""
        return "weight"

    @abstractmethod
    def features(self) -> tuple[int, int]:
        """(out_features, in_features) of the base layer."""

    def stack(self) -> int | None:
        """How many matrices of that size the weight holds; None: it is one matrix."""
        return None

    @abstractmethod
    def to_weight_layout(self, delta: Tensor) -> Tensor:
        """ΔW (out, in) laid out as the base layer's weight is."""

    @abstractmethod
    def update(self, adapter_name: str, x: Tensor) -> Tensor:
        """What one adapter adds to base(x)."""

    def example(self) -> Tensor:
        """An input on which a base layer of a class of its own is tried: different samples."""
        raise NotImplementedError

    def runs_whole(self) -> bool:
        """Whether the base layer must be run with W + ΔW in its weight's place.

        So it is where its class has code of its own other than `known_forwards`, or a forward was put on the layer
        before its first adapter: unmerged is merged then, whatever the code does. W + ΔW is rounded to W's dtype, as
        merging does, and there is no output of ΔW that dropout or mixed batches could act on.

        Raises:
            TypeError: what the base layer gives does not depend on its weight.
        """
        if self._whole is None:
            base = self.get_base_layer()
            whole = self._runs_own_code(base) and not self._multiplies_quantised()
            if whole and self.get_base_weight().is_meta:
                return True
            if whole:
                check_read(base, self.example)
            self._whole = whole
        return self._whole

    def _runs_own_code(self, base: nn.Module) -> bool:
        """Whether what the base layer runs is neither its type's code nor known."""
        parents = [parent for parent in self.base_types if isinstance(base, parent)]
        own = any(redefines(base, parent) and not self._knows(base, parent) for parent in parents)
        return own or (bool(parents) and replaced(base))

    def _knows(self, base: nn.Module, parent: type[nn.Module]) -> bool:
        """Whether all that the class of the base layer redefines is one of `known_forwards`."""
        return any(reads_as(base, parent, known) for known in self.known_forwards)

    def _multiplies_quantised(self) -> bool:
        """Whether the weight is quantised, also in ways unknown to PEFT: then the layer is linear, of any class."""
        return self.quantization_backend is not None or self.get_base_weight().dtype not in FLOATS

    def delta(self, adapter_name: str) -> StructuredDelta:
        """The ΔW of one adapter.

        Raises:
            ValueError: the layer has no adapter of that name.
        """
        if adapter_name not in self.structune_delta:
            raise ValueError(f"adapter {adapter_name!r} is not on this layer; it has {sorted(self.structune_delta)}")
        delta = self.structune_delta[adapter_name]
        assert isinstance(delta, StructuredDelta)
        return delta

    def add_adapter(self, adapter_name: str, dropout: float, options: dict[str, Any], inference_mode: bool) -> None:
        """Give the layer an adapter, or replace the one of that name.

        Beside others of its seed it has their stream, the active one's first, so that numbers copied from one to the
        other, parameter by parameter, make the same ΔW. A random start is another draw for each.

        Args:
            adapter_name: its name.
            dropout: probability of zeroing entries of its input in training.
            options: arguments of `StructuredDelta` other than the sizes.
            inference_mode: whether its numbers are frozen.

        Raises:
            ValueError: the options do not fit this layer; nothing is changed.
        """
        if self.quantization_backend is None:
            check_stored(self.get_base_layer(), self.weight_name)
        if dropout and not self.is_called and self.drops_inputs:
            raise ValueError(f"dropout={dropout} has no input to act on here, W + ΔW is used as a whole: set dropout=0")
        if self.runs_whole() and dropout and self.drops_inputs:
            self._no_output_of_its_own()
        active_first = sorted(self.structune_delta, key=lambda name: name not in self.active_adapters)
        others = [self.delta(name).identity for name in active_first if name != adapter_name]
        of_its_seed = [identity for identity in others if identity.seed == options.get("seed", 0)]
        own = options | {"stream": of_its_seed[0].stream} if of_its_seed else options
        delta = StructuredDelta(*self.features(), stack=self.stack(), **own)
        if delta.shared_pool is not None and of_its_seed:
            delta.shared_pool.follow(delta, of_its_seed[0])
        if another_draw := others.count(delta.identity):
            delta.draw_anew(another_draw)
        self.structune_delta[adapter_name] = delta
        self.structune_dropout[adapter_name] = nn.Dropout(dropout) if dropout and self.drops_inputs else nn.Identity()
        self.train(self.training)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def set_scale(self, adapter: str, scale: float) -> None:
        """Multiply the adapter's ΔW by `scale`, whatever was set before; 1 is as configured. It is not saved.

        Of a merged adapter the weight keeps what was merged until it is unmerged; a warning says so.

        Raises:
            ValueError: the scale, or its product with the configured one, is NaN, infinite or too large for fp32.
        """
        if adapter in self.structune_delta:
            check_strength("scale", float(scale))
            check_strength("scale times the configured one", float(scale) * self.delta(adapter).full_scale)
            if adapter in self.merged_adapters and scale != self.merged_deltas[adapter].strength:
                warnings.warn(
                    f"adapter {adapter!r} is merged with scale {self.merged_deltas[adapter].strength:g}: the new one, "
                    f"{scale:g}, holds from when it is unmerged",
                    stacklevel=2,
                )
            self.delta(adapter).strength = float(scale)

    def scale_layer(self, scale: float) -> None:
        """Multiply the strength of the active adapters by `scale`."""
        for name in self._active():
            self.set_scale(name, self.delta(name).strength * scale)

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the strength of the active adapters by `scale`; None sets it back to 1."""
        for name in self._active():
            self.set_scale(name, 1.0 if scale is None else self.delta(name).strength / scale)

    @property
    def scaling(self) -> Strengths:
        """The strength of each adapter; PEFT's `rescale_adapter_scale` sets it for a while."""
        return Strengths(self.structune_delta)

    @scaling.setter
    def scaling(self, value: Mapping[str, float]) -> None:
        for name, strength in value.items():
            self.delta(name).strength = float(strength)

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """ΔW of one adapter in the layout of the base weight, in at least fp32."""
        return self.to_weight_layout(self.delta(adapter_name).dense())

    def get_base_weight(self) -> Tensor:
        """The weight that ΔW is added to, de-quantised where it is quantised."""
        if self.quantization_backend is not None:
            return super().get_base_weight()
        weight: nn.Parameter = getattr(self.get_base_layer(), self.weight_name)
        return weight.detach()

    def set_base_weight(self, weight_data: Tensor) -> None:
        """Replace the weight's values; a quantised one is quantised anew."""
        if self.quantization_backend is not None:
            super().set_base_weight(weight_data)
        else:
            getattr(self.get_base_layer(), self.weight_name).data = weight_data

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the adapters' ΔW to the base weight.

        What rounding the sum loses of W is kept, so that unmerging is exact, whatever the dtype and however often. A
        quantised weight is de-quantised, added to and quantised anew; the old one is kept, and `merge_error` says what
        was lost.

        Args:
            safe_merge: check the sum for NaN and infinities before the weight is touched.
            adapter_names: which adapters; None merges the active ones.

        Raises:
            ValueError: safe_merge found a value that is not finite.
            TypeError: the base weight is quantised in a way that cannot be made again.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.structune_delta]
        if not names:
            return
        if self.quantization_backend is None:
            check_stored(self.get_base_layer(), self.weight_name, views=True)
            self._merge_plain(names, safe_merge)
        else:
            self._merge_quantised(names, safe_merge)
        self.merged_adapters += names

    def unmerge(self) -> None:
        """Take all merged adapters out of the base weight again, as they were merged: it is what it was, bit by bit."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        if self.quantised_weight is not None:
            self.quantised_weight.restore(self)
            self.quantised_weight = None
        else:
            self.set_base_weight(self._unmerged_weight())
            self.undo = None
        self.merged_adapters.clear()
        self.merged_deltas = {}

    @property
    def merge_error(self) -> float | None:
        """‖Q(W + ΔW) − (W + ΔW)‖ / ‖ΔW‖ of merged adapters in a quantised weight; None where nothing was quantised."""
        return None if self.quantised_weight is None else self.quantised_weight.merge_error

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Whether PEFT's `convert_to_lora` may approximate the adapter: where ΔW is a matrix added to the weight."""
        return self.stack() is None and self.get_base_weight().ndim == 2

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """base(x) + Σ ΔW dropout(x) in the dtype of base(x).

        Args:
            *args: what the base layer takes; the input is the first.
            **kwargs: likewise; `adapter_names`, one name for each sample of the batch, picks an adapter for each.
        """
        adapter_names = kwargs.pop("adapter_names", None)
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            return self.base_layer(*args, **kwargs)
        if adapter_names is not None:
            return self._mixed(adapter_names, *args, **kwargs)
        names = self._active()
        if self.merged or not names:
            return self.base_layer(*args, **kwargs)
        if self.runs_whole():
            return self._with_weight(self._effective_weight(), *args, **kwargs)
        return self._adapted(names, *args, **kwargs)

    @property
    def in_features(self) -> int:
        """The base layer's own in_features; of layers that have none, the columns of ΔW."""
        return int(getattr(self.get_base_layer(), "in_features", self.features()[1]))

    @in_features.setter
    def in_features(self, value: int) -> None:
        self.get_base_layer().in_features = value  # type: ignore[assignment]

    @property
    def out_features(self) -> int:
        """The base layer's own out_features; of layers that have none, the rows of ΔW."""
        return int(getattr(self.get_base_layer(), "out_features", self.features()[0]))

    @out_features.setter
    def out_features(self, value: int) -> None:  # transformers sets it, changed or not, whenever it ties weights
        self.get_base_layer().out_features = value  # type: ignore[assignment]

    @property
    def r(self) -> nn.ModuleDict:
        """The adapters, where diffusers counts them to name a LoRA that is loaded without a name."""
        return self.structune_delta

    @property
    def lora_A(self) -> nn.ModuleDict:
        """The adapters, where diffusers' `set_lora_device` looks for what it moves."""
        return self.structune_delta

    @property
    def lora_B(self) -> nn.ModuleDict:
        """Likewise."""
        return self.structune_delta

    @property
    def weight(self) -> Tensor:
        """The base layer's weight; W + ΔW where a module around this one reads its numbers.

        Raises:
            ValueError: adapters are picked by sample, or inputs would have to be dropped.
        """
        if self.weight_is_read and self.weight_name == "weight":
            if self.by_sample:
                raise ValueError("adapter_names cannot pick adapters here: a module reads W + ΔW; use set_adapter")
            if any(isinstance(self.structune_dropout[name], nn.Dropout) for name in self._active()) and self.training:
                raise ValueError("dropout has no input to act on here: a module reads W + ΔW; set dropout=0")
            return self._effective_weight()
        weight: Tensor = super().weight
        return weight

    def _adapted(self, names: Sequence[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """base(x) plus the updates of these adapters."""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        for name in names:
            result = result + self.update(name, x).to(result.dtype)
        return result

    def _mixed(self, adapter_names: Sequence[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """base(x) plus, for each sample of the first dimension, the update of the adapter that is named for it."""
        if self.merged:
            raise ValueError(
                f"adapter_names cannot pick adapters while {self.merged_adapters} are merged: "
                "call unmerge_adapter() first"
            )
        if len(adapter_names) != len(x):
            raise ValueError(
                f"adapter_names has {len(adapter_names)} names for a batch of {len(x)}: give one for each sample, "
                f"{BASE!r} for none"
            )
        result: Tensor = self.base_layer(x, *args, **kwargs)
        for name in sorted(set(adapter_names)):
            if name in self.structune_delta:
                if self.runs_whole():
                    self._no_output_of_its_own()
                samples = torch.tensor([k for k, own in enumerate(adapter_names) if own == name], device=x.device)
                update = self.update(name, x[samples])
                result = result.index_add(0, samples, update.to(result.dtype))
        return result

    def _no_output_of_its_own(self) -> NoReturn:
        raise TypeError(
            f"{type(self.get_base_layer()).__name__} may do more than {self.does}, so ΔW has no output of its own: "
            "neither dropout nor adapter_names can be had for this layer; set dropout=0, or use set_adapter for the "
            "whole batch"
        )

    def _active(self) -> list[str]:
        """The active adapters that this layer has."""
        return [name for name in self.active_adapters if name in self.structune_delta]

    def _effective_weight(self) -> Tensor:
        """W + Σ ΔW over the active adapters, in W's dtype; W alone, unmerged, where they are disabled."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        base = self.get_base_layer()
        quantised = self.weight_name == "weight" and self.quantization_backend is not None
        weight: Tensor = super().weight if quantised else getattr(base, self.weight_name)  # no compiler goes to super()
        if self.disable_adapters or self.merged or not (names := self._active()):
            return weight
        if self.quantization_backend is not None:
            return self._sum_with_base(names)
        check_stored(base, self.weight_name, views=True)
        return self._sum_with_base(names, weight=weight)

    def _with_weight(self, weight: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The base layer's own forward, reading `weight` where it has its own; hooks and other adapters included."""
        attributes = vars(self.get_base_layer())
        # FSDP puts its views of the weights there, where they hide parameters; no tracer lets functional_call through.
        if self.weight_name in attributes or traced():
            view = attributes.get(self.weight_name)
            attributes[self.weight_name] = weight
            try:
                return self.base_layer(*args, **kwargs)
            finally:
                del attributes[self.weight_name]
                if view is not None:
                    attributes[self.weight_name] = view
        path, inner = self.weight_name, self.base_layer
        while isinstance(inner, BaseTunerLayer):
            path, inner = f"base_layer.{path}", inner.get_submodule("base_layer")
        return functional_call(self.base_layer, {path: weight}, args, kwargs)

    def _folds(self, name: str, x: Tensor, weight: Tensor) -> bool:
        """Whether W + ΔW may stand for both: nothing is dropped or watched, adding rounds no more than the product."""
        dropout = self.structune_dropout[name]
        dropped = self.training and isinstance(dropout, nn.Dropout)
        exact = x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64)
        apart = dropped or watched(self.delta(name), dropout)
        return exact and not apart and not autocasts(x.device)

    @torch.no_grad()
    def _merge_plain(self, names: Sequence[str], safe_merge: bool) -> None:
        weight = self.get_base_weight()
        if weight.dtype not in FLOATS:
            raise TypeError(
                f"adapter {names[0]!r} cannot be merged into a weight of dtype {weight.dtype}: "
                "merge into the model before quantising it, or casting its storage"
            )
        self._check_whole(weight, self.delta(names[0]))
        deltas = self.merged_deltas | {name: as_it_is(self.delta(name)) for name in names}
        original, total = self._unmerged_weight(), self._total(deltas)
        merged = plus(original, total)
        self._check_finite(names, merged, safe_merge)
        self.undo = Undo(original, merged, total)
        self.set_base_weight(merged)
        self.merged_deltas = deltas

    @torch.no_grad()
    def _merge_quantised(self, names: Sequence[str], safe_merge: bool) -> None:
        """Q(W + ΣΔW) over these and all merged adapters, always from the first W."""
        quantised = self.quantised_weight or QuantisedWeight(self)
        deltas = self.merged_deltas | {name: as_it_is(self.delta(name)) for name in names}
        merged = quantised.weight(self) + self._total(deltas)
        self._check_finite(names, merged, safe_merge)
        quantised.replace(self, merged)
        self.quantised_weight = quantised
        self.merged_deltas = deltas

    @torch.no_grad()
    def _unmerged_weight(self) -> Tensor:
        """W, whatever is merged into it."""
        weight = self.get_base_weight()
        return weight if self.undo is None else self.undo.original(weight, self._total(self.merged_deltas))

    def _total(self, deltas: Mapping[str, StructuredDelta]) -> Tensor:
        """Σ ΔW in the layout of the weight."""
        total = sum(self.to_weight_layout(delta.dense()) for delta in deltas.values())
        assert isinstance(total, Tensor)
        return total

    def _check_finite(self, names: Sequence[str], weight: Tensor, safe_merge: bool) -> None:
        if safe_merge and not weight.is_meta and not torch.isfinite(weight).all():
            raise ValueError(
                f"adapter {', '.join(map(repr, names))} would put NaN or infinite values into the weight, so this "
                "layer was left as it is: the adapter's numbers are broken, load or train it again"
            )

    def _sum_with_base(self, names: Sequence[str], weight: Tensor | None = None) -> Tensor:
        """W + Σ ΔW, summed in ΔW's dtype and rounded once to W's."""
        weight = self.get_base_weight() if weight is None else weight
        self._check_whole(weight, self.delta(names[0]))
        total = sum(self.get_delta_weight(name) for name in names)
        assert isinstance(total, Tensor)
        return plus(weight, total)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the base layer has, such as its stride or its number of embeddings."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if hasattr(type(self), name):
                return object.__getattribute__(self, name)  # a property of our own: it says what it lacks
            base = self.__dict__.get("_modules", {}).get("base_layer")
            if base is None or not self._forwards(name, base):
                raise
        return getattr(base, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set where it is read: what the base layer has, and this one has not, is the base layer's."""
        ours = getattr(type(self), name, None)
        weight = isinstance(value, nn.Parameter) and isinstance(ours, property)  # that we show and the base layer holds
        own = name.startswith("_") or name in self.__dict__ or isinstance(value, nn.Module) or ours is not None
        known = "base_layer" in self.__dict__.get("_modules", {}) and hasattr(self.get_base_layer(), name)
        if known and (weight or not own):
            setattr(self.get_base_layer(), name, value)
        else:
            super().__setattr__(name, value)

    def _forwards(self, name: str, base: nn.Module) -> bool:
        """Whether a name that this layer lacks may be the base layer's: what others mark a module with is not."""
        return not name.startswith("_") or (not name.startswith("__") and hasattr(type(base), name))

    def _check_whole(self, weight: Tensor, delta: StructuredDelta) -> None:
        """Raise RuntimeError if a part of the weight or none is here.

        That is a shard, flat (FSDP) or a DTensor (FSDP2); or the weight has numbers and ΔW has none, or the other way
        round, or both are offloaded until a forward of their own is called.
        """
        entries = delta.grid.out_features * delta.grid.in_features * (delta.stack or 1)
        if hasattr(weight, "full_tensor") or weight.ndim < 2 or weight.numel() != entries:
            raise RuntimeError(
                f"W + ΔW is needed, but this process holds a shard of {self.weight_name!r} only (a "
                f"{type(weight).__name__} of shape {tuple(weight.shape)}): shard the block around the adapted layer "
                "instead of the layer by itself, and gather the weights before merging"
            )
        if weight.is_meta != delta.pool.is_meta or (weight.is_meta and "forward" in vars(self.get_base_layer())):
            raise RuntimeError(
                f"W + ΔW is needed, but {self.weight_name if weight.is_meta else 'the adapter'} is on the meta device, "
                "which holds no numbers: load it first, or keep this layer on a device where others are offloaded"
            )
