"""What the methods of structured updates share: the options of ΔW, and the family that says rate and marker."""

from __future__ import annotations

import difflib
import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_type_hints

from pydantic import AfterValidator, GetJsonSchemaHandler, create_model, model_validator

from structune import structures
from structune.errors import UserError
from structune.methods.method import LearningRates, PeftMethod, Probability
from structune.options import OPTIONS, OptionsByModule, default_of, gathered
from structune.section import wrong_text

if TYPE_CHECKING:
    from torch import nn


FOUND_AT = 384
"""The width of the layers in which the general rates were compared (docs/results/figure-3.md)."""

WIDE = 4
"""From how many times that width on a general rate is doubted: a step moves twice as much there, at least."""


class UpdateMethod(PeftMethod):
    """A method of structured updates, with the options of `structune.options`, which `of_the_update` gives it.

    Options of the family's own, such as a rank, are keys of the section too, and are kept in `structure_options`. That
    the family has them is checked before training: it takes torch.
    """

    dropout: Probability = 0.0

    @property
    def family(self) -> str:
        """The structure of the blocks."""
        return str(getattr(self, "structure", "circulant"))

    @property
    def label(self) -> str:
        return f"{super().label}-{self.family.replace('_', '-')}"

    def rates(self) -> LearningRates:
        """The family's: HyDRA's Appendix B has 0.002, 0.01 for Vandermonde and 0.004 for low rank.

        From LoRA's start low rank has 0.008 (docs/results/glue-small.md).
        """
        starts_as_lora = getattr(self, "init_weights", True) == "lora"
        rate = declared(self.family, "learning_rate_as_lora") if starts_as_lora else None
        return LearningRates(adapter=rate or declared(self.family, "learning_rate"))

    def doubts(self, model: nn.Module, rate: float) -> Iterator[str]:
        """Whether the general rate is taken where layers are much wider than those that it was found in.

        One step of Adam moves ΔW x by rate · √in · rms(x) where the signs of the numbers know nothing of x, and by up
        to rate · in where they all agree: a rate of as large an effect lies between the two that are named.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        widths = [width for layer in layers if isinstance(width := getattr(layer, "in_features", None), int)]
        if rate != self.rates().adapter or not widths:
            return
        width = statistics.median(widths)
        if width >= WIDE * FOUND_AT:
            often = width / FOUND_AT
            yield (
                f"train.learning_rate = {rate:g}: was compared in layers {FOUND_AT} wide; those that are adapted here "
                f"are {width:,.0f} wide (median), where a step moves {math.sqrt(often):.2g} to {often:.2g} times as "
                f"much: try {rate / math.sqrt(often):.1g} and {rate / often:.1g} as well"
            )

    def settings(self) -> dict[str, Any]:
        """The options as a configuration of `structune` takes them."""
        return self.model_dump(exclude={"name", "target_modules"})

    @model_validator(mode="before")
    @classmethod
    def _own_options(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "structure_options" not in cls.model_fields:
            return given
        wrong = {key: value for key, value in given.items() if not cls._may_be(key, value)}
        right = {key: value for key, value in given.items() if key not in wrong}
        return gathered(right, cls.model_fields) | wrong

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """With options of the family's own as keys."""
        schema = handler(core)
        if "structure_options" in cls.model_fields:
            own = {"type": ["integer", "object", "null"]}
            handler.resolve_ref_schema(schema)["additionalProperties"] = own
        return schema

    @classmethod
    def _may_be(cls, key: Any, value: Any) -> bool:
        """Whether it is an option, or an integer that may be one of the family's own and is no slip of the pen."""
        if key in cls.model_fields:
            return True
        if not isinstance(key, str) or difflib.get_close_matches(key, cls.model_fields, n=1, cutoff=0.8):
            return False
        if key.endswith("_pattern"):
            return isinstance(value, dict)
        return value is None or (isinstance(value, int) and not isinstance(value, bool))


AnyUpdateMethod = TypeVar("AnyUpdateMethod", bound=type[UpdateMethod])


def of_the_update(*without: str) -> Callable[[AnyUpdateMethod], AnyUpdateMethod]:
    """Gives a section every option of ΔW, with its type and check; the defaults are its own where it has some.

    Args:
        *without: options that the method decides; patterns of theirs go as well.
    """
    kept = [each for each in fields(OptionsByModule) if each.name.removesuffix("_pattern") not in without]

    def give(section: AnyUpdateMethod) -> AnyUpdateMethod:
        base: type[UpdateMethod] = section
        own, types = base.model_fields, get_type_hints(OptionsByModule)
        given = {}
        for each in kept:
            check = AfterValidator(partial(_checked, each.name))
            default = own[each.name].get_default() if each.name in own else default_of(each)
            given[each.name] = (Annotated[types[each.name], check], default)
        names = {"__base__": base, "__doc__": section.__doc__, "__module__": section.__module__}
        return cast(AnyUpdateMethod, create_model(section.__name__, **names, **given))  # type: ignore[call-overload]

    return give


def declared(family: str, attribute: str) -> Any:
    """What a family says in its source, without the import of torch.

    Raises:
        UserError: there is no such family.
    """
    try:
        return structures.declared(family, attribute)
    except ValueError as error:
        raise UserError(f"method: {error}") from None


def _checked(name: str, value: Any) -> Any:
    """The value, if it is one that the option may have: for patterns, all of them."""
    option = name.removesuffix("_pattern")
    check = OPTIONS[option].metadata["check"]
    try:
        for single in value.values() if option != name else [value]:
            check(option, single)
    except ValueError as error:
        raise wrong_text(str(error).removeprefix(f"{name}={value!r} ")) from None
    return value
