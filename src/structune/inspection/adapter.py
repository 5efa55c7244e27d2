"""A saved adapter as its updates ΔW, one a layer, without the base model's weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from structune.delta import StructuredDelta
from structune.errors import UserError
from structune.finetune.recipe.recipe import ResolvedRecipe
from structune.finetune.run_folder.run import Run
from structune.inspection.backbone import Backbone
from structune.methods.method import PeftMethod
from structune.peft import StructuneConfig
from structune.peft.convert.lora import lora_scale
from structune.peft.pool_scope import own_or_shared
from structune.peft.storage.checkpoint import check_adapter_folder
from structune.peft.storage.keys import bare
from structune.peft.storage.shared_pools import everywhere
from structune.shared_pool import SharedPool

CONFIG_FILE = "adapter_config.json"
TOKENS = 4096  # for which, in fp32, the algorithm is named: a batch of 32 texts of 128 tokens


@dataclass(frozen=True)
class Update:
    """The update of one layer.

    Attributes:
        module: name of the layer in the model that was trained.
        structure: family of the blocks, or `lora`.
        grid: how ΔW is cut, for example `6×6 blocks of 64×64`.
        algorithm: of the product ΔW x, for 4096 tokens in fp32 on this machine.
        trainable: trained numbers; of a pool that several layers share, in one of them.
        frozen: numbers that take part and are regenerated from the seed; likewise.
        num_bytes: bytes of its tensors in the checkpoint.
        dense: gives ΔW (out, in) in at least fp32.
    """

    module: str
    structure: str
    grid: str
    algorithm: str
    trainable: int
    frozen: int
    num_bytes: int
    dense: Callable[[], Tensor]


@dataclass(frozen=True)
class Adapter:
    """What a folder holds.

    Attributes:
        folder: the adapter's.
        updates: one a layer, in the model's order.
        file_bytes: size of the safetensors file.
        other_bytes: of its tensors that are no update: a classification head, biases.
    """

    folder: Path
    updates: list[Update]
    file_bytes: int
    other_bytes: int


def read_adapter(path: str | Path, base: str | None = None) -> Adapter:
    """Read a run's adapter, or an adapter folder: its JSON configuration and its safetensors file, nothing else.

    Args:
        path: the run or the folder.
        base: the base model, where it is not the one that the run or the adapter names.

    Raises:
        UserError: no adapter of structune or LoRA is there, it is damaged, or its base model's configuration cannot be
            had.
    """
    folder, backbone = _locate(Path(path), base)
    try:
        content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        method = content["peft_type"]
        if method == "STRUCTUNE":
            check_adapter_folder(folder)
        tensors = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
        if method == "STRUCTUNE":
            updates = _structured(folder, tensors, backbone)
        elif method == "LORA":
            updates = _lora(folder, tensors)
        else:
            raise UserError(f"{folder}: an adapter of type {method}; inspect reads structune's and LoRA's")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{folder / SAFETENSORS_WEIGHTS_NAME}: no such file; save the adapter again") from None
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder}: the adapter is damaged, or not whole: {reason}") from None
    return Adapter(
        folder,
        updates,
        (folder / SAFETENSORS_WEIGHTS_NAME).stat().st_size,
        sum(tensor.nbytes for tensor in tensors.values()) - sum(update.num_bytes for update in updates),
    )


def _locate(path: Path, base: str | None) -> tuple[Path, Callable[[], Backbone] | None]:
    """The adapter's folder, and its base model's layers; None: those of the model that the adapter names."""
    given = None if base is None else partial(Backbone.named, base)
    if (path / CONFIG_FILE).is_file():
        return path, given
    if Run(path).state() in ("new", "foreign"):
        runs = ", ".join(str(run) for run in sorted(path.glob("*")) if (run / "adapter" / CONFIG_FILE).is_file())
        hint = f"; it holds {runs}" if runs else ""
        raise UserError(f"{path}: neither a run (recipe.yaml) nor an adapter ({CONFIG_FILE}){hint}")
    run = Run.finished(path)
    recipe = run.recipe()
    if isinstance(recipe.method, PeftMethod) and not (run.adapter / CONFIG_FILE).is_file():
        raise UserError(f"{run.adapter / CONFIG_FILE} is missing: restore it, or train again with --overwrite")
    if not (run.adapter / CONFIG_FILE).is_file():
        raise UserError(f"{path}: the method {recipe.method.label} adds no adapter, so there is no ΔW to inspect")
    return run.adapter, given or partial(_of_run, recipe)


def _of_run(recipe: ResolvedRecipe) -> Backbone:
    model, name = recipe.task.skeleton(recipe.model), recipe.model.name
    return Backbone.named(name, recipe.model.revision) if model is None else Backbone(name, model)


def _structured(folder: Path, tensors: dict[str, Tensor], given: Callable[[], Backbone] | None) -> list[Update]:
    config = StructuneConfig.from_pretrained(str(folder))
    base = config.base_model_name_or_path
    if given is None and not base:
        raise UserError(f"{folder / CONFIG_FILE}: names no base model, from which layer sizes are read; give --base")
    backbone = given() if given else Backbone.named(str(base), config.revision)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    updates = []
    pools: dict[Any, SharedPool] = {}
    complete = _by_module(everywhere(tensors), ".structune_delta.")
    for module, stored in _by_module(tensors, ".structune_delta.").items():
        out_features, in_features = backbone.features(module)
        options = config.layer_options(module) | own_or_shared(config.pool_scope, module, pools)
        delta = StructuredDelta(out_features, in_features, dtype=complete[module]["pool"].dtype, **options)
        delta.load_state_dict(complete[module])
        counted = "pool" in stored  # a pool that several matrices share is in the file once
        grid = delta.grid
        updates.append(
            Update(
                module=module,
                structure=delta.structure.name,
                grid=f"{grid.block_rows}×{grid.block_cols} blocks of {grid.rows}×{grid.cols}",
                algorithm=delta.resolved_algorithm(torch.empty(TOKENS, in_features, device=device), torch.empty(0)),
                trainable=delta.num_trainable if counted else 0,
                frozen=delta.num_fixed if counted else 0,
                num_bytes=sum(tensor.nbytes for tensor in stored.values()),
                dense=delta.dense,
            )
        )
    return updates


def _lora(folder: Path, tensors: dict[str, Tensor]) -> list[Update]:
    config: Any = LoraConfig.from_pretrained(str(folder))
    if config.use_dora:
        raise UserError(f"{folder}: a DoRA adapter, whose update depends on the base weights; inspect reads plain LoRA")
    updates = []
    for module, stored in _by_module(tensors, ".lora_").items():
        down, up = stored["A.weight"], stored["B.weight"]
        rank = down.shape[0]
        updates.append(
            Update(
                module=module,
                structure="lora",
                grid=f"rank {rank} of {up.shape[0]}×{down.shape[1]}",
                algorithm="factored",
                trainable=down.numel() + up.numel(),
                frozen=0,
                num_bytes=down.nbytes + up.nbytes,
                dense=partial(_product, up, down, lora_scale(config, module)),
            )
        )
    return updates


def _product(up: Tensor, down: Tensor, scale: float) -> Tensor:
    return up.float() @ down.float() * scale


def _by_module(tensors: dict[str, Tensor], separator: str) -> dict[str, dict[str, Tensor]]:
    """Tensors with `separator` in their names: module → what follows → tensor, numbers in names in numeric order."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key in sorted(tensors, key=_numeric):
        module, found, rest = key.partition(separator)
        if found:
            groups.setdefault(bare(module), {})[rest] = tensors[key]
    if not groups:
        raise UserError("the adapter holds no update of any layer")
    return groups


def _numeric(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
