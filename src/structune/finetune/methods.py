"""The fine-tuning methods a recipe can name: their settings, and presets such as `hydra-toeplitz`.

A *method section* is the settings of one method; `preset` gives sections by a short name, for `structune compare`
and for the shorthand `method: hydra-toeplitz` in a recipe. `recommended` gives learning rates. Nothing here imports
torch: `structune.finetune.adapters` turns a section into a trainable model.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast, get_type_hints

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, create_model, model_validator

from structune import structures
from structune.errors import UserError
from structune.options import OPTIONS, BlockSize, OptionsByModule, default_of, gathered
from structune.section import Section, closest, wrong_text
from structune.structures.registry import PLACES

Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class MethodSection(Section):
    """What every method has: a name, and a label for folders and tables."""

    name: str

    @property
    def label(self) -> str:
        """A short name, for example `hydra-toeplitz`."""
        return self.name.replace("_", "-")


class PeftSection(MethodSection):
    """A method that adds an adapter to chosen layers of a frozen model.

    `target_modules`: names of the layers; left out, the attention query and value layers of the architecture.
    """

    target_modules: list[str] | str | None = None


class UpdateSection(PeftSection):
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


UpdateMethod = TypeVar("UpdateMethod", bound=type[UpdateSection])


def of_the_update(*without: str) -> Callable[[UpdateMethod], UpdateMethod]:
    """Gives a section every option of ΔW, with its type and check; the defaults are its own where it has some.

    Args:
        *without: options that the method decides; patterns of theirs go as well.
    """
    kept = [each for each in fields(OptionsByModule) if each.name.removesuffix("_pattern") not in without]

    def give(section: UpdateMethod) -> UpdateMethod:
        base: type[UpdateSection] = section
        own, types = base.model_fields, get_type_hints(OptionsByModule)
        given = {}
        for each in kept:
            check = AfterValidator(partial(_checked, each.name))
            default = own[each.name].get_default() if each.name in own else default_of(each)
            given[each.name] = (Annotated[types[each.name], check], default)
        names = {"__base__": base, "__doc__": section.__doc__, "__module__": section.__module__}
        return cast(UpdateMethod, create_model(section.__name__, **names, **given))  # type: ignore[call-overload]

    return give


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


@of_the_update("structure", "structure_options")
class C3A(UpdateSection):
    """Circulant blocks with their own numbers (arXiv 2407.19342), of a block_size or num_splits of them per axis."""

    name: Literal["c3a"] = "c3a"
    block_size: BlockSize | None = 64

    @model_validator(mode="before")
    @classmethod
    def _one_cut(cls, given: Any) -> Any:
        """Where num_splits is given and no block_size, the default of the latter does not count."""
        if isinstance(given, dict) and given.get("num_splits") is not None:
            return {"block_size": None, **given}
        return given

    @property
    def label(self) -> str:
        return self.name


@of_the_update("block_size")
class Hydra(UpdateSection):
    """Structured blocks that draw their numbers from a pool shared by all blocks of a layer (MERL TR2024-157)."""

    name: Literal["hydra"] = "hydra"
    structure: str = "toeplitz"
    num_splits: int | None = 4
    pool_size: int | None = 384


@of_the_update()
class Structune(UpdateSection):
    """The general method: every field of `structune.StructuneConfig`."""

    name: Literal["structune"] = "structune"
    bias: Literal["none", "all", "structune_only"] = "none"
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None


class LoRA(PeftSection):
    """Low-rank adaptation (arXiv 2106.09685)."""

    name: Literal["lora"] = "lora"
    rank: Count = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Probability = 0.0


class VeRA(PeftSection):
    """Low-rank adaptation with shared frozen random factors (arXiv 2310.11454)."""

    name: Literal["vera"] = "vera"
    rank: Count = 256


class BOFT(PeftSection):
    """Orthogonal fine-tuning by butterfly factors (arXiv 2311.06243)."""

    name: Literal["boft"] = "boft"
    block_size: Count = 4
    factors: Count = 1


class IA3(PeftSection):
    """One trained factor per output feature (arXiv 2205.05638)."""

    name: Literal["ia3"] = "ia3"


class PeftC3A(PeftSection):
    """C3A as PEFT ships it, for comparison."""

    name: Literal["peft_c3a"] = "peft_c3a"
    block_size: Count = 64


class TinyLoRA(PeftSection):
    """A few numbers, spread over SVD factors of each weight by a stored random tensor (arXiv 2602.04118).

    `size` numbers in each group of layers that share them; at `tying` 1 all layers are one group, at 0 each is its own.
    """

    name: Literal["tinylora"] = "tinylora"
    size: Count = 64
    rank: Count = 2
    tying: Annotated[float, Field(ge=0, le=1)] = 1.0


class UniLoRA(PeftSection):
    """Low-rank factors of all layers that read one vector of `size` numbers (arXiv 2506.00799)."""

    name: Literal["unilora"] = "unilora"
    size: Count = 1000
    rank: Count = 4


class VBLoRA(PeftSection):
    """Low-rank factors made of mixtures of shared vectors (arXiv 2405.15179)."""

    name: Literal["vblora"] = "vblora"
    vectors: Count = 30
    length: Count = 64
    rank: Count = 4


class Head(MethodSection):
    """Nothing but the classification head is trained: the baseline every adapter has to beat."""

    name: Literal["head"] = "head"


class BitFit(MethodSection):
    """The model's own biases and the head (arXiv 2106.10199)."""

    name: Literal["bitfit"] = "bitfit"


class Full(MethodSection):
    """Every parameter of the model."""

    name: Literal["full"] = "full"


Method = Annotated[
    C3A | Hydra | Structune | LoRA | VeRA | BOFT | IA3 | PeftC3A | TinyLoRA | UniLoRA | VBLoRA | Head | BitFit | Full,
    Field(discriminator="name"),
]


def _hydra_name(family: str) -> str:
    return f"hydra-{family.replace('_', '-')}"


def _hydra(family: str) -> Hydra:
    return Hydra(structure=family, num_splits=_declared(family, "num_splits"))


def _declared(family: str, attribute: str) -> Any:
    try:
        return structures.declared(family, attribute)
    except ValueError as error:
        raise UserError(f"method: {error}") from None


PRESETS: dict[str, MethodSection] = {
    "c3a": C3A(),
    **{_hydra_name(family): _hydra(family) for family in PLACES},
    "lora": LoRA(),
    "vera": VeRA(),
    "boft": BOFT(),
    "ia3": IA3(),
    "peft-c3a": PeftC3A(),
    "tinylora": TinyLoRA(),
    "unilora": UniLoRA(),
    "vblora": VBLoRA(),
    "head": Head(),
    "bitfit": BitFit(),
    "full": Full(),
}


def preset(name: str) -> MethodSection:
    """The method section with this short name; `_` and `-` are the same.

    Raises:
        UserError: no preset has this name.
    """
    key = name.strip().lower().replace("_", "-")
    outside = {_hydra_name(family): family for family in structures.names() if family not in PLACES}
    if key in outside and key not in PRESETS:
        PRESETS[key] = _hydra(outside[key])
    if key not in PRESETS:
        known = list(dict.fromkeys((*PRESETS, *outside)))
        raise UserError(f"method {name!r}: unknown{closest(key, known)}; known: {', '.join(known)}")
    return PRESETS[key]


class LearningRates(NamedTuple):
    """The largest learning rate of the adapter's numbers and of the classification head."""

    adapter: float
    head: float


_HEAD = 1e-3
_OTHERS: dict[str, LearningRates] = {
    "lora": LearningRates(1e-3, _HEAD),
    "vera": LearningRates(1e-2, _HEAD),
    "boft": LearningRates(1e-3, _HEAD),
    "ia3": LearningRates(1e-2, _HEAD),
    "peft_c3a": LearningRates(3e-1, _HEAD),
    "tinylora": LearningRates(1e-2, _HEAD),
    "unilora": LearningRates(5e-3, _HEAD),
    "vblora": LearningRates(5e-3, _HEAD),
    "head": LearningRates(1e-2, 1e-2),
    "bitfit": LearningRates(1e-3, _HEAD),
    "full": LearningRates(1e-4, _HEAD),
}


def recommended(method: Any) -> LearningRates:
    """Learning rates to start from when the recipe gives none.

    Structured families say theirs: HyDRA's Appendix B has 0.002, 0.01 for Vandermonde and 0.004 for low rank.
    """
    if isinstance(method, UpdateSection):
        return LearningRates(_declared(method.family, "learning_rate"), _HEAD)
    return _OTHERS[method.name]
