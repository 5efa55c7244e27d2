"""A model that no device holds alone: what is frozen is spread over the processes (FSDP2), what trains is in each.

A configuration of accelerate asks for it, by the environment. Accelerate's own FSDP2 spreads what trains as well, and
nothing on a CPU; here adapters and heads, which are small, stay ordinary tensors, so that optimizers, norms,
checkpoints and files are those of any run. Their gradients are averaged over the processes, as DDP does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import distributed, nn
from torch.distributed.tensor import DTensor

from structune.errors import UserError
from structune.finetune.adapters import in_head
from structune.finetune.recipe.recipe import ResolvedRecipe
from structune.methods.method import PeftMethod
from structune.tasks.task import Base

_USED = "ACCELERATE_USE_FSDP"
_SAID = ("1", "true", "yes")
_WRAPS = ("TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP")


@dataclass(frozen=True)
class Sharding:
    """How the frozen numbers are spread. One block at a time is whole while it computes.

    Attributes:
        wrap: by what blocks are told: their class, or their size; or the whole model is one.
        classes: names of the classes of blocks; none: those that the model names.
        least: more numbers than this make a block, where they are told by size.
        reshard: whether a block is given back after the forward pass, and fetched again for the backward pass.
    """

    wrap: Literal["TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"] = "TRANSFORMER_BASED_WRAP"
    classes: Sequence[str] = ()
    least: int = 0
    reshard: bool = True

    @staticmethod
    @cache
    def asked() -> Sharding | None:
        """What the environment asks for; None: nothing. From then on accelerate is not asked: it would spread all.

        Raises:
            UserError: it asks for what there is not.
        """
        if os.environ.get(_USED, "").lower() not in _SAID:
            return None
        version = os.environ.get("FSDP_VERSION", "1")
        if version != "2":
            raise UserError(
                f"FSDP_VERSION = {version!r}: models are split by FSDP2 only; write fsdp_version: 2 into the "
                f"configuration of accelerate, or set FSDP_VERSION=2"
            )
        for name, instead in _NOT_HERE.items():
            if os.environ.get(f"FSDP_{name}", "").lower() in _SAID:
                raise UserError(f"FSDP_{name} = {os.environ[f'FSDP_{name}']!r}: is not there; {instead}")
        wrap: Any = os.environ.get("FSDP_AUTO_WRAP_POLICY", _WRAPS[0]).upper()
        if wrap not in _WRAPS:
            raise UserError(f"FSDP_AUTO_WRAP_POLICY = {wrap!r}: is none of {', '.join(_WRAPS)}")
        least = os.environ.get("FSDP_MIN_NUM_PARAMS", "0")
        if not least.isdecimal():
            raise UserError(f"FSDP_MIN_NUM_PARAMS = {least!r}: is no number")
        named = os.environ.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "").split(",")
        reshard = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() in (*_SAID, "full_shard")
        os.environ[_USED] = "false"
        return Sharding(wrap, tuple(name.strip() for name in named if name.strip()), int(least), reshard)

    def check(self, recipe: ResolvedRecipe) -> None:
        """Raises `UserError` where a run needs the whole model in one process."""
        method, task = recipe.method, recipe.task
        if not isinstance(method, PeftMethod):
            raise UserError(
                f"method {method.label}: its checkpoints hold the whole model, which FSDP spreads over the processes; "
                f"use an adapter such as c3a or lora, or launch without FSDP"
            )
        if task.shown_at(100):
            raise UserError(
                f"task = {task.name!r}: one process shows what its model makes, and under FSDP none has it whole; "
                f"launch without FSDP"
            )

    def shard(self, model: nn.Module, base: Base, device: str) -> nn.Module:
        """Spread what is frozen over the processes, in place; what trains goes to the device, and a pretrained head.

        Args:
            model: the adapted model, the same in every process.
            base: what it was made of.
            device: where this process computes.

        Raises:
            UserError: no block is found, or the model's numbers cannot be spread.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        parameters = dict(model.named_parameters())
        if odd := [name for name, each in parameters.items() if not each.is_floating_point()]:
            raise UserError(f"model.name: {odd[0]} is quantised, and FSDP spreads no such numbers; launch without FSDP")
        kept = [part for name, part in parameters.items() if part.requires_grad or in_head(name, base.frozen)]
        for part in kept:  # in the same order in every process
            part.data = part.data.to(device)
            distributed.broadcast(part.data, 0)
        mesh = init_device_mesh(torch.device(device).type, (distributed.get_world_size(),))
        for block in self._blocks(model):
            fully_shard(block, mesh=mesh, reshard_after_forward=self.reshard, ignored_params=set(kept))
        fully_shard(model, mesh=mesh, ignored_params=set(kept))
        if hasattr(model, "generate"):
            register_fsdp_forward_method(model, "generate")
            base.model._is_fsdp_managed_module = True  # each generates until all have ended: they need each other
        # Accelerate would put DDP around a model that it has not prepared, which takes no spread numbers.
        model._is_accelerate_prepared = True  # type: ignore[assignment]  # an attribute, no module
        return model

    def _blocks(self, model: nn.Module) -> list[nn.Module]:
        """The blocks, inner ones first."""
        inner = list(model.modules())[:0:-1]
        if self.wrap == "NO_WRAP":
            return []
        if self.wrap == "SIZE_BASED_WRAP":
            return [block for block in inner if sum(part.numel() for part in block.parameters()) > self.least]
        kinds = ", ".join(sorted({type(module).__name__ for module in inner}))
        named = self.classes or getattr(model, "_no_split_modules", None) or ()
        found = [block for block in inner if type(block).__name__ in named]
        if missing := set(self.classes) - {type(block).__name__ for block in found}:
            raise UserError(
                f"FSDP_TRANSFORMER_CLS_TO_WRAP = {','.join(self.classes)!r}: the model has no {min(missing)}; its "
                f"classes are {kinds}"
            )
        if not found:
            raise UserError(
                f"FSDP_TRANSFORMER_CLS_TO_WRAP: this model does not say what its blocks are; name their class "
                f"(fsdp_transformer_layer_cls_to_wrap) out of {kinds}"
            )
        return found


def average_gradients(model: nn.Module) -> None:
    """The gradients of what trains, averaged over the processes: one message for all. What has none in any stays so."""
    trained = [part for part in model.parameters() if part.requires_grad]
    gradients = [torch.zeros_like(part) if part.grad is None else part.grad for part in trained]
    there = torch.tensor([float(part.grad is not None) for part in trained], device=trained[0].device)
    flat = torch.cat([there, *(gradient.reshape(-1).float() for gradient in gradients)])
    distributed.all_reduce(flat)
    there, *parts = flat.split([len(trained), *(part.numel() for part in trained)])
    for part, mean, some in zip(trained, parts, there.tolist(), strict=True):
        if some:
            part.grad = (mean / distributed.get_world_size()).view_as(part).to(part.dtype)


def give_back(model: nn.Module) -> None:
    """Every process keeps its own part alone, as where one of them is about to save: that makes it give back the rest.

    Where only one had, it alone would ask the others for their parts in the next step.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def is_sharded(model: nn.Module) -> bool:
    """Whether its numbers are spread over processes."""
    return any(isinstance(part, DTensor) for part in model.parameters())


def save_adapter(model: Any, folder: str) -> None:
    """What `Trainer` saves of an adapted model, without the base model's embeddings, which are frozen and spread."""
    assert isinstance(model, PeftModel)
    model.save_pretrained(folder, save_embedding_layers=False)


_NOT_HERE = {
    "OFFLOAD_PARAMS": "write fsdp_offload_params: false",
    "ACTIVATION_CHECKPOINTING": "write fsdp_activation_checkpointing: false, and train.gradient_checkpointing: true "
    "into the recipe",
}
"""What accelerate can and this cannot, or not in this way, and what to do."""
