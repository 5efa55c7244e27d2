"""Structured weight updates for fine-tuning foundation models: HyDRA, C3A and beyond, inside Hugging Face PEFT."""

from structune import pool, products, structures
from structune.delta import StructuredDelta
from structune.peft import (
    StructuneConfig,
    c3a,
    convert,
    from_pretrained,
    hotswap_adapter,
    hydra,
    load_adapter,
    repair_peft_c3a,
    save_adapter,
)

__version__ = "0.1.0"

__all__ = [
    "StructuneConfig",
    "StructuredDelta",
    "c3a",
    "convert",
    "from_pretrained",
    "hotswap_adapter",
    "hydra",
    "load_adapter",
    "pool",
    "products",
    "repair_peft_c3a",
    "save_adapter",
    "structures",
]
