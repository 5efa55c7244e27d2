"""The PEFT method: configuration, layers, model, registration; the only part that imports peft."""

import peft  # noqa: F401  (first: at its end all that `entry` needs is imported, and must not be half imported already)

from structune.peft import convert
from structune.peft.base_layers import StructuneConv1D, StructuneLinear
from structune.peft.config import StructuneConfig
from structune.peft.convert.repair import repair_peft_c3a
from structune.peft.layer import StructuneLayer
from structune.peft.model import StructuneModel
from structune.peft.parallel import keep_pools_whole
from structune.peft.presets import c3a, hydra
from structune.peft.several.hotswap import hotswap_adapter
from structune.peft.storage.injected import load_adapter, save_adapter
from structune.peft.storage.pretrained import from_pretrained

__all__ = [
    "StructuneConfig",
    "StructuneConv1D",
    "StructuneLayer",
    "StructuneLinear",
    "StructuneModel",
    "c3a",
    "convert",
    "from_pretrained",
    "hotswap_adapter",
    "hydra",
    "keep_pools_whole",
    "load_adapter",
    "repair_peft_c3a",
    "save_adapter",
]
