"""PEFT's C3A adapters and structune's: the same blocks, written differently."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from peft import C3AConfig, PeftModel
from torch import Tensor, nn

from structune.peft.base_layers import StructuneLinear
from structune.peft.config import StructuneConfig
from structune.peft.convert.converted import Converted, of_each_layer, read, read_own
from structune.peft.layer import StructuneLayer
from structune.peft.storage.keys import PREFIX
from structune.structures.families.circulant import Circulant, first_column

KERNEL, POOL = ".c3a_kernel", ".structune_delta.pool"
TARGETS = (
    "task_type",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "target_modules",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
)
"""What the two configurations share."""


def from_peft_c3a(source: PeftModel | str | Path, adapter_name: str = "default") -> Converted:
    """PEFT's C3A adapter as structune's, with the same forward.

    PEFT keeps the first row of each block and divides the product by in_features; here it is the first column, and
    scale="1/in_features".

    Args:
        source: a live model with a C3A adapter, or the folder of a saved one.
        adapter_name: which adapter of the live model.

    Raises:
        ValueError: it is not a C3A adapter.
    """
    config, tensors = read(source, adapter_name)
    if not isinstance(config, C3AConfig):
        raise ValueError(f"source holds an adapter of type {config.peft_type}: from_peft_c3a reads C3A")
    converted = {
        key.replace(KERNEL, POOL): first_column(tensor).flatten() if key.endswith(KERNEL) else tensor
        for key, tensor in tensors.items()
    }
    ours = StructuneConfig(
        structure="circulant",
        block_size=config.block_size,
        block_size_pattern=dict(config.block_size_pattern or {}),
        scale="1/in_features",
        bias="structune_only" if config.bias == "c3a_only" else config.bias,  # type: ignore[arg-type]
        **{name: getattr(config, name) for name in TARGETS},
    )
    return Converted(ours, converted, {key[len(PREFIX) : -len(KERNEL)]: 0.0 for key in tensors if key.endswith(KERNEL)})


def to_peft_c3a(model: PeftModel, adapter_name: str = "default") -> Converted:
    """Structune's adapter as PEFT's C3A, where that can say it: square circulant blocks that divide linear layers.

    The scale goes into the kernels, and numbers from a pool are written out. PEFT's gradients are wrong in 0.21:
    convert for inference, or call `structune.repair_peft_c3a` where it is trained on.

    Args:
        model: a live model with the adapter, whose layers say their sizes.
        adapter_name: which adapter.

    Raises:
        ValueError: a layer's ΔW is none of PEFT's C3A; the message names the layer and says why.
    """
    config, tensors = read_own(model, adapter_name, "to_peft_c3a")
    if config.trainable_token_indices:
        raise ValueError(
            f"trainable_token_indices={config.trainable_token_indices!r}: PEFT's C3A trains no rows of an "
            "embedding; merge the adapter instead"
        )
    kernels = of_each_layer(model, adapter_name, _kernel)
    others = {key: tensor for key, tensor in tensors.items() if ".structune_" not in key}
    sizes = {name: kernel.shape[-1] for name, kernel in kernels.items()}
    usual = Counter(sizes.values()).most_common(1)[0][0]
    theirs = C3AConfig(
        block_size=usual,
        block_size_pattern={name: size for name, size in sizes.items() if size != usual},
        init_weights=True,
        bias="c3a_only" if config.bias == "structune_only" else config.bias,
        **{name: getattr(config, name) for name in TARGETS},
    )
    written = {f"{PREFIX}{name}{KERNEL}": kernel for name, kernel in kernels.items()}
    return Converted(theirs, written | others, dict.fromkeys(kernels, 0.0))


def _kernel(layer: StructuneLayer, adapter_name: str) -> Tensor:
    """(out/b, in/b, b), first rows, times in_features."""
    delta = layer.delta(adapter_name)
    structure, generators = delta.as_one_block() or (delta.structure, {})
    if type(layer) is not StructuneLinear or not isinstance(layer.get_base_layer(), nn.Linear):
        raise ValueError("PEFT's C3A adapts nn.Linear alone")
    if not isinstance(structure, Circulant):
        raise ValueError(f"its blocks are {structure.name}, PEFT's C3A has circulant ones")
    grid = delta.grid
    if structure.rows != structure.cols or grid.out_features % structure.rows or grid.in_features % structure.cols:
        raise ValueError(
            f"its blocks of {structure.rows}×{structure.cols} do not divide {grid.out_features}×{grid.in_features}, or "
            "are not square, as PEFT's C3A requires"
        )
    return first_column(generators["c"]).detach() * (delta.scale * grid.in_features)
