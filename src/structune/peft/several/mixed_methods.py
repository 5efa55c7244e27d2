"""Adapters of other methods beside ours in one model: PEFT's `PeftMixedModel`."""

from __future__ import annotations

import functools
from typing import Any

from peft.tuners import mixed
from peft.tuners.mixed import model as mixed_model

from structune.peft.config import StructuneConfig
from structune.peft.layer import StructuneLayer
from structune.peft.model import StructuneModel
from structune.peft.pool_scope import check_pools, forget_pools
from structune.peft.registration import peft_type
from structune.peft.storage.rollback import as_before_if_failing


def join_mixed_models() -> None:
    """Enter the method into what `PeftMixedModel` knows, which no registration does; a second call changes nothing."""
    if peft_type() in mixed.COMPATIBLE_TUNER_TYPES:
        return
    names: Any = mixed_model
    names.COMPATIBLE_TUNER_TYPES = (*mixed.COMPATIBLE_TUNER_TYPES, peft_type())
    mixed.COMPATIBLE_TUNER_TYPES = names.COMPATIBLE_TUNER_TYPES
    names.PREFIXES.append(StructuneModel.prefix)
    names.Configs |= StructuneConfig
    names.Layers = (*names.Layers, StructuneLayer)
    others = names.MixedModel._create_and_replace

    @functools.wraps(others)
    def create_and_replace(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        ours = StructuneModel._create_and_replace if isinstance(config, StructuneConfig) else others
        ours(self, config, *args, **kwargs)

    names.MixedModel._create_and_replace = create_and_replace
    put_in = names.MixedModel.inject_adapter

    @functools.wraps(put_in)
    def inject_adapter(self: Any, model: Any, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        with as_before_if_failing(self):
            forget_pools(self, adapter_name)
            put_in(self, model, adapter_name, *args, **kwargs)
            check_pools(self, adapter_name)

    names.MixedModel.inject_adapter = inject_adapter
