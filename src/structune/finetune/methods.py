"""The fine-tuning methods a recipe can name: their settings, and presets such as `hydra-toeplitz`.

A *method section* is the settings of one method; `PRESETS` gives sections by a short name, for `structune compare`
and for the shorthand `method: hydra-toeplitz` in a recipe. `recommended` gives learning rates. Nothing here imports
torch: `structune.finetune.adapters` turns a section into a trainable model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field
from pydantic_core import PydanticKnownError

from structune import structures
from structune.finetune.errors import UserError
from structune.finetune.section import Section, closest

Count = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]


def _workable(scale: float | str) -> float | str:
    """As `structune.arguments` has it, which needs PyTorch."""
    if not isinstance(scale, str) and not 1e-18 <= abs(scale) <= 1e18:
        raise ValueError(f"{scale:g} must be between 1e-18 and 1e+18 in size: fp32 goes no further")
    return scale


Scale = Annotated[float | Literal["1/in_features"], AfterValidator(_workable)]


def _known(structure: str) -> str:
    if structure not in structures.names():
        *others, last = map(repr, structures.names())
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})
    return structure


Structure = Annotated[str, AfterValidator(_known)]


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


class C3A(PeftSection):
    """Circulant blocks with their own numbers (arXiv 2407.19342)."""

    name: Literal["c3a"] = "c3a"
    block_size: Count = 64
    scale: Scale = 1.0
    dropout: Probability = 0.0


class Hydra(PeftSection):
    """Structured blocks that draw their numbers from a pool shared by all blocks of a layer (MERL TR2024-157)."""

    name: Literal["hydra"] = "hydra"
    structure: Structure = "toeplitz"
    num_splits: Count = 4
    rank: Count | None = None
    pool_size: Count = 384
    fixed_ratio: Probability = 0.0
    seed: int = 0
    scale: Scale = 1.0
    dropout: Probability = 0.0

    @property
    def label(self) -> str:
        return f"hydra-{self.structure.replace('_', '-')}"


class Structune(PeftSection):
    """The general method: every field of `structune.StructuneConfig`."""

    name: Literal["structune"] = "structune"
    structure: Structure = "circulant"
    block_size: Count | None = None
    num_splits: Count | None = None
    rank: Count | None = None
    pool_size: Count | None = None
    fixed_ratio: Probability = 0.0
    seed: int = 0
    scale: Scale = 1.0
    init_weights: bool | Literal["xavier_uniform", "kaiming_uniform"] = True
    algorithm: str = "auto"
    dropout: Probability = 0.0
    bias: Literal["none", "all", "structune_only"] = "none"
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    block_size_pattern: dict[str, int] = {}
    num_splits_pattern: dict[str, int] = {}
    rank_pattern: dict[str, int] = {}
    pool_size_pattern: dict[str, int] = {}
    fixed_ratio_pattern: dict[str, float] = {}
    scale_pattern: dict[str, Scale] = {}
    structure_pattern: dict[str, Structure] = {}

    @property
    def label(self) -> str:
        return f"structune-{self.structure.replace('_', '-')}"


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
    C3A | Hydra | Structune | LoRA | VeRA | BOFT | IA3 | PeftC3A | Head | BitFit | Full,
    Field(discriminator="name"),
]

PRESETS: dict[str, MethodSection] = {
    "c3a": C3A(),
    "hydra-low-rank": Hydra(structure="low_rank", num_splits=1, rank=1),
    "hydra-circulant": Hydra(structure="circulant"),
    "hydra-toeplitz": Hydra(structure="toeplitz"),
    "hydra-hankel": Hydra(structure="hankel"),
    "hydra-vandermonde": Hydra(structure="vandermonde"),
    "hydra-cauchy": Hydra(structure="cauchy"),
    "hydra-toeplitz-like": Hydra(structure="toeplitz_like", rank=1),
    "hydra-hankel-like": Hydra(structure="hankel_like", rank=1),
    "hydra-vandermonde-like": Hydra(structure="vandermonde_like", rank=1),
    "hydra-cauchy-like": Hydra(structure="cauchy_like", rank=1),
    "lora": LoRA(),
    "vera": VeRA(),
    "boft": BOFT(),
    "ia3": IA3(),
    "peft-c3a": PeftC3A(),
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
    if key not in PRESETS:
        raise UserError(f"method {name!r}: unknown{closest(key, list(PRESETS))}; known: {', '.join(PRESETS)}")
    return PRESETS[key]


class LearningRates(NamedTuple):
    """The largest learning rate of the adapter's numbers and of the classification head."""

    adapter: float
    head: float


_HEAD = 1e-3
_STRUCTURED: dict[str, float] = {"vandermonde": 1e-2, "low_rank": 4e-3}
_OTHERS: dict[str, LearningRates] = {
    "lora": LearningRates(1e-3, _HEAD),
    "vera": LearningRates(1e-2, _HEAD),
    "boft": LearningRates(1e-3, _HEAD),
    "ia3": LearningRates(1e-2, _HEAD),
    "peft_c3a": LearningRates(3e-1, _HEAD),
    "head": LearningRates(1e-2, 1e-2),
    "bitfit": LearningRates(1e-3, _HEAD),
    "full": LearningRates(1e-4, _HEAD),
}


def recommended(method: Any) -> LearningRates:
    """Learning rates to start from when the recipe gives none.

    The structured families follow HyDRA's Appendix B: 0.002, with 0.01 for Vandermonde and 0.004 for low rank.
    """
    if isinstance(method, C3A | Hydra | Structune):
        structure = "circulant" if isinstance(method, C3A) else method.structure
        return LearningRates(_STRUCTURED.get(structure, 2e-3), _HEAD)
    return _OTHERS[method.name]
