"""The PEFT method: configuration, layers, model, registration; the only part that imports peft."""

from structune.peft.base_layers import StructuneConv1D, StructuneLinear
from structune.peft.config import StructuneConfig
from structune.peft.hotswap import hotswap_adapter
from structune.peft.layer import StructuneLayer
from structune.peft.model import StructuneModel
from structune.peft.presets import c3a, hydra
from structune.peft.registration import register

register(StructuneConfig, StructuneModel)

__all__ = [
    "StructuneConfig",
    "StructuneConv1D",
    "StructuneLayer",
    "StructuneLinear",
    "StructuneModel",
    "c3a",
    "hotswap_adapter",
    "hydra",
]
