"""nn.MultiheadAttention, which multiplies by its weights itself."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from structune.peft.base_layers.linear import StructuneLinear
from structune.peft.base_layers.parameter import ParamWrapper


class StructuneMultiheadAttention(ParamWrapper):
    """nn.MultiheadAttention with a ΔW (3·embed_dim, embed_dim) on `in_proj_weight` and another on `out_proj`.

    Attention, and transformer layers on their fast path, read the weights instead of calling layers: they read W + ΔW
    here, so every path gives the same.

    Args:
        base_layer: the attention, or another adapter's layer around it.

    Raises:
        TypeError: queries, keys and values have weights of their own.
    """

    base_types: ClassVar[tuple[type[nn.Module], ...]] = (nn.MultiheadAttention,)

    def __init__(self, base_layer: nn.Module) -> None:
        attention: Any = base_layer
        while hasattr(attention, "base_layer"):
            attention = attention.base_layer
        if not attention._qkv_same_embed_dim:
            raise TypeError(
                "this attention has a weight each for queries, keys and values (kdim or vdim differ from embed_dim): "
                "name them in target_parameters, as q_proj_weight, k_proj_weight and v_proj_weight"
            )
        super().__init__(base_layer, "in_proj_weight")
        if not isinstance(attention.out_proj, StructuneLinear):
            attention.out_proj = read_by_parent(StructuneLinear(attention.out_proj))

    def add_adapter(self, adapter_name: str, dropout: float, options: dict[str, Any], inference_mode: bool) -> None:
        """Give both projections an adapter: see `StructuneLayer.add_adapter`."""
        out_proj = self._out_proj()
        out_proj._active_adapter = self._active_adapter
        own_stream = {"stream": options.get("stream", 0) ^ 1}
        out_proj.add_adapter(adapter_name, dropout, options | own_stream, inference_mode)
        super().add_adapter(adapter_name, dropout, options, inference_mode)

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """The bare attention; called by PEFT."""
        out_proj = self._out_proj()
        if merge:
            out_proj.merge(safe_merge=safe_merge, adapter_names=adapter_names)
        attention: Any = super().unload_and_optionally_merge_module(merge, safe_merge, adapter_names)
        attention.out_proj = out_proj.base_layer
        out_proj.undo = None
        return attention

    def _out_proj(self) -> StructuneLinear:
        out_proj = self.get_base_layer().out_proj
        assert isinstance(out_proj, StructuneLinear)
        return out_proj


def read_by_parent(layer: StructuneLinear) -> StructuneLinear:
    """The same layer, giving W + ΔW to a module that reads its weight instead of calling it."""
    layer.weight_is_read, layer.is_called = True, False
    return layer
