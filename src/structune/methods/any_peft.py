"""Any type of adapter that PEFT has, by its name and its own options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ConfigDict, JsonValue, model_validator

from structune.annotation import unlike_annotation
from structune.methods.method import PeftMethod
from structune.palette import PURPLE
from structune.section import closest, wrong_text

if TYPE_CHECKING:
    import peft
    from torch import nn
    from typing_extensions import Self  # in typing from Python 3.11 on

_FOR_A_FOLDER = re.compile(r"[A-Za-z0-9_.+-]{1,20}")
"""What may be part of a folder's name."""

_NOT_ITS_OWN = {
    "peft_type",
    "task_type",
    "modules_to_save",
    "inference_mode",
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "peft_version",
}
"""Fields of a configuration that are the run's to fill in."""

_FROM_DATA = {"corda", "eva", "lora_ga"}
"""Starts of LoRA's for which PEFT wants calls before training (`initialize_lora_eva_weights` and their like)."""


class AnyPeft(PeftMethod):
    """An adapter of PEFT's `type`, with fields of its configuration as further keys: `{name: peft, type: MISS, r: 16}`.

    PEFT says which types there are, and what each takes: that is looked at before a model is loaded. Types that change
    no layers, such as prompts, are refused, and what wants more than a run does: ranks that are allocated, tasks that
    come with a batch, a start that is worked out of data.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    name: Literal["peft"] = "peft"
    type: str

    colour: ClassVar[str] = PURPLE
    marker: ClassVar[str] = "X"

    @property
    def label(self) -> str:
        """The type with what distinguishes it: `miss-r=16`."""
        said = {key: str(value) for key, value in self.options().items() if not isinstance(value, list | dict)}
        own = [f"{key}={value}" for key, value in said.items() if _FOR_A_FOLDER.fullmatch(value)]
        return "-".join([self.type.lower().replace("_", "-"), *own])

    def options(self) -> dict[str, Any]:
        """The fields of PEFT's configuration that are given."""
        return dict(self.__pydantic_extra__)

    def config(self, **common: Any) -> peft.PeftConfig:
        import peft
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

        types = {str(key.value): config for key, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
        name = self.type.upper()
        if name not in types:
            near = closest(name, list(types))
            raise ValueError(f"type = {self.type!r}: unknown to PEFT{near}; known: {', '.join(types)}")
        make = types[name]
        defaults = {field.name: field.default for field in fields(make)}
        known = defaults.keys() - _NOT_ITS_OWN
        tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(peft.PeftType(name))
        if tuner is None or not {"target_modules", "modules_to_save"} <= defaults.keys():
            raise ValueError(
                f"type = {self.type!r}: adapts no layers, or has no head trained beside them, as methods here do; "
                f"choose another type"
            )
        self._check_type(tuner)
        for key, value in self.options().items():
            if key not in known:
                near = closest(key, sorted(known))
                raise ValueError(f"{key}: {self.type} takes no such option{near}; it takes {', '.join(sorted(known))}")
            if why := unlike_annotation(make, key, value):
                raise ValueError(f"{key} = {value!r}: {why}")
        # Who allocates only if use_asa says so (AdaMSS) trains without it.
        if hasattr(tuner, "update_and_allocate") and (defaults | self.options()).get("use_asa", True):
            raise ValueError(
                f"type = {self.type!r}: allocates ranks while it trains, which no run asks it to; of AdaLoRA there is "
                f"{{name: adalora}}"
            )
        if (start := str(self.options().get("init_lora_weights"))) in _FROM_DATA:
            raise ValueError(
                f"init_lora_weights = {start!r}: PEFT works that start out of data, by a call of its own that no run "
                f"makes; choose another, for example pissa or olora"
            )
        if "feedforward_modules" in known - self.options().keys():
            raise ValueError(
                f"type = {self.type!r}: PEFT would take feedforward_modules from its own list, though others are "
                f"adapted; give it, [] where none of the adapted ones is of the feed-forward part"
            )
        config: peft.PeftConfig = make(**self.options(), **common)
        return config

    def doubts(self, model: nn.Module, rate: float) -> Iterator[str]:
        """Whether LoRA's rate is taken for another type."""
        if self.type.upper() not in ("LORA", "STRUCTUNE") and rate == self.rates().adapter:
            yield (
                f"train.learning_rate = {rate:g}: is what LoRA begins with, and was not tried for {self.type}; other "
                f"types want up to hundreds of times as much (PEFT's C3A 0.3): try several, or let a study search it"
            )

    def _check_type(self, tuner: Any) -> None:
        """Refuse what wants more with each batch than a run gives, and layers that it is not made for.

        What a type is made for is what PEFT adapts by default, architecture by architecture: where LoRA has none of
        these layers in any architecture, the layers that runs adapt by default are not for it.

        Raises:
            ValueError: it takes tasks with each batch, or is for other layers and none are named.
        """
        from peft import LoraModel

        if "task_ids" in signature(tuner.forward).parameters:
            raise ValueError(f"type = {self.type!r}: takes task_ids with each batch, which no run has; choose another")
        of_lora = LoraModel.target_module_mapping
        own = getattr(tuner, "target_module_mapping", of_lora)
        if not self.target_modules and not any({*own[model]} & {*of_lora.get(model, ())} for model in own):
            example = f", for example {', '.join(next(iter(own.values())))}" if own else ""
            raise ValueError(
                f"type = {self.type!r}: is made for other modules than the attention's query and value, which are "
                f"adapted where nothing is said; name them in target_modules{example}"
            )

    @classmethod
    def presets(cls) -> Mapping[str, Self]:
        """None: there is no default type."""
        return {}

    @model_validator(mode="after")
    def _not_the_runs(self) -> Self:
        for key in self.options():
            if key in _NOT_ITS_OWN:
                raise wrong_text(f"{key} is filled in by the run; remove it")
        return self
