"""Any type of adapter that PEFT has, by its name and its own options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ConfigDict, JsonValue, model_validator

from structune.methods.method import PeftMethod
from structune.palette import PURPLE
from structune.section import closest, wrong_text

if TYPE_CHECKING:
    import peft
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


class AnyPeft(PeftMethod):
    """An adapter of PEFT's `type`, with fields of its configuration as further keys: `{name: peft, type: MISS, r: 16}`.

    PEFT says which types there are, and what each takes: that is looked at before a model is loaded. Types that change
    no layers, such as prompts, are refused.
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
        known = {field.name for field in fields(make)} - _NOT_ITS_OWN
        if "target_modules" not in known:
            raise ValueError(f"type = {self.type!r}: adapts no layers, and methods here do; choose another type")
        for key in self.options():
            if key not in known:
                near = closest(key, sorted(known))
                raise ValueError(f"{key}: {self.type} takes no such option{near}; it takes {', '.join(sorted(known))}")
        config: peft.PeftConfig = make(**self.options(), **common)
        # Who allocates only if use_asa says so (AdaMSS) trains without it.
        allocates = hasattr(PEFT_TYPE_TO_TUNER_MAPPING[peft.PeftType(name)], "update_and_allocate")
        if allocates and getattr(config, "use_asa", True):
            raise ValueError(
                f"type = {self.type!r}: allocates ranks while it trains, which no run asks it to; of AdaLoRA there is "
                f"{{name: adalora}}"
            )
        return config

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
