"""Adapters of other methods to structune's and back: PEFT's C3A and LoKr, LoRA."""

from structune.peft.convert.c3a import from_peft_c3a, to_peft_c3a
from structune.peft.convert.converted import Converted
from structune.peft.convert.lokr import from_peft_lokr, to_peft_lokr
from structune.peft.convert.lora import from_lora, to_lora

__all__ = [
    "Converted",
    "from_lora",
    "from_peft_c3a",
    "from_peft_lokr",
    "to_lora",
    "to_peft_c3a",
    "to_peft_lokr",
]
