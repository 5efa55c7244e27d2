"""PEFT gets the method: done once, when PEFT has been imported (see the package's own `__init__`)."""

from structune.peft.config import StructuneConfig
from structune.peft.model import StructuneModel
from structune.peft.registration import register
from structune.peft.several.mixed_methods import join_mixed_models
from structune.peft.storage.hosts import complete_hosts

register(StructuneConfig, StructuneModel)
complete_hosts()
join_mixed_models()
