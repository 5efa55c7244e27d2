"""Structured weight updates for fine-tuning foundation models: HyDRA, C3A and beyond, inside Hugging Face PEFT.

Importing this brings in neither torch nor PEFT: each name is imported when it is first used, and the method registers
itself with PEFT as soon as PEFT is imported, before or after.
"""

import sys
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

from structune.lazy import lazy

if TYPE_CHECKING:
    from structune import pool, products, structures
    from structune.delta import StructuredDelta
    from structune.peft import (
        StructuneConfig,
        c3a,
        convert,
        from_pretrained,
        hotswap_adapter,
        hydra,
        keep_pools_whole,
        load_adapter,
        repair_peft_c3a,
        save_adapter,
    )

__version__ = "0.2.0.dev0"

__all__ = [
    "StructuneConfig",
    "StructuredDelta",
    "c3a",
    "convert",
    "from_pretrained",
    "hotswap_adapter",
    "hydra",
    "keep_pools_whole",
    "load_adapter",
    "pool",
    "products",
    "repair_peft_c3a",
    "save_adapter",
    "structures",
]

if not TYPE_CHECKING:
    _PARTS = ("delta", "grid", "options", "peft", "pool", "products", "structures")
    __getattr__, __dir__ = lazy(
        __name__,
        {name: f"structune.peft:{name}" for name in __all__}
        | {name: f"structune.{name}" for name in _PARTS}
        | {"StructuredDelta": "structune.delta:StructuredDelta"},
    )


def _register(peft: ModuleType) -> None:
    import structune.peft.entry  # noqa: F401


def _load_peft_before_adapters(integration: ModuleType) -> None:
    """transformers imports PEFT inside its load_adapter, too late for what `entry` puts around that very method."""
    from transformers.integrations.peft import PeftAdapterMixin

    load = PeftAdapterMixin.load_adapter

    @wraps(load)
    def load_adapter(self: PeftAdapterMixin, *args: Any, **kwargs: Any) -> Any:
        if "structune.peft.entry" in sys.modules:
            return load(self, *args, **kwargs)
        import structune.peft.entry  # noqa: F401

        return PeftAdapterMixin.load_adapter(self, *args, **kwargs)

    PeftAdapterMixin.load_adapter = load_adapter  # type: ignore[method-assign]


register_post_import_hook(_register, "peft")
register_post_import_hook(_load_peft_before_adapters, "transformers.integrations.peft")
