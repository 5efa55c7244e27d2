"""From a method section to a model in which the right numbers train, and back from its saved files.

Methods of PEFT (structune's own among them) are saved in PEFT's format. `head`, `bitfit` and `full` train part
of the model itself: their trained tensors go, under the model's own names, into one safetensors file of the same name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import safetensors.torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFT_TARGETS
from safetensors import SafetensorError
from torch import nn
from transformers.pytorch_utils import Conv1D

from structune.errors import UserError
from structune.methods.method import Method, PartOfModel, PeftMethod, Targets
from structune.peft.storage.keys import bare
from structune.peft.storage.ordered import in_order
from structune.section import closest
from structune.tasks.parts.weights import is_quantised
from structune.tasks.task import Base, Task

WEIGHTS_FILE = "adapter_model.safetensors"
QUERY_AND_VALUE: dict[str, Sequence[str]] = {
    **PEFT_TARGETS,
    "albert": ["query", "value"],
    "camembert": ["query", "value"],
    "distilbert": ["q_lin", "v_lin"],
    "mpnet": ["q", "v"],
}
"""Names of the attention's query and value layers by architecture: those PEFT knows, and some it does not."""


def apply_method(base: Base, method: Method, task: Task) -> nn.Module:
    """The model with the method's numbers, and the head's, set to train and everything else frozen.

    Raises:
        UserError: the method cannot be applied to this model; the message is the method's own.
    """
    if not isinstance(method, PeftMethod):
        if is_quantised(base.model):
            raise UserError(
                f"method {method.label}: trains the model's own weights, and model.quantisation has them in few bits; "
                f"choose a method that adds an adapter, for example c3a or lora"
            )
        if task.keeps_base():
            raise UserError(
                f"method {method.label}: trains the model itself, and task {task.name} compares with the model as it "
                f"was; choose a method that adds an adapter, for example c3a or lora"
            )
        model = _choose_own(base, method)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError(f"method {method.label}: trains nothing in this model; choose another, for example c3a")
        return model
    targets = method.target_modules or task.adapted(base) or _query_and_value(base.model)
    if not isinstance(targets, str):
        _check_targets(base.model, targets)
    with _of(method):
        # With some task types PEFT trains what is called classifier or score, whatever the configuration says.
        task_type = None if base.frozen else task.peft_name
        model = peft.get_peft_model(base.model, _config(method, targets, base.head, task_type))
        method.mend(model)
    if base.frozen and (hit := [name for name, part in model.named_parameters() if _changes(base.frozen, name, part)]):
        raise UserError(
            f"method.target_modules = {targets!r}: adapts {bare(hit[0])!r} of the pretrained head, which is kept as it "
            f"is; leave it out"
        )
    if task.keeps_base() and (own := [name for name, part in model.named_parameters() if _of_the_model(name, part)]):
        raise UserError(
            f"method {method.label}: trains {bare(own[0])!r} of the model itself, and task {task.name} compares with "
            f"the model as it was; leave that to the adapter (bias: none)"
        )
    return model


def check_method(method: Method) -> None:
    """Refuse settings that no model can have, before a model is loaded.

    Raises:
        UserError: settings do not go together, or a family has not an option that is given as its own.
    """
    if isinstance(method, PeftMethod):
        with _of(method):
            _config(method, method.target_modules or [], [], None)


@contextmanager
def _of(method: Method) -> Iterator[None]:
    """What PEFT or the method itself refuses is the user's mistake."""
    try:
        yield
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise UserError(f"method {method.label}: {error}") from None


def _config(method: PeftMethod, targets: Targets, head: list[str], task_type: str | None) -> peft.PeftConfig:
    return method.config(target_modules=targets, modules_to_save=head or None, task_type=task_type)


def save_trained(model: nn.Module, folder: Path, base_name: str) -> None:
    """Write the trained numbers and the head to `folder`; `base_name` is recorded as the model they belong to."""
    if isinstance(model, peft.PeftModel):
        config = model.peft_config["default"]
        before, config.base_model_name_or_path = config.base_model_name_or_path, base_name
        try:
            with in_order(config):
                model.save_pretrained(str(folder), save_embedding_layers=False)
        finally:
            config.base_model_name_or_path = before
    else:
        safetensors.torch.save_file(
            {name: tensor.detach().contiguous() for name, tensor in model.named_parameters() if tensor.requires_grad},
            folder / WEIGHTS_FILE,
            metadata={"format": "pt"},
        )


def load_trained(base: Base, method: Method, folder: Path) -> nn.Module:
    """The base model with what `save_trained` wrote, in evaluation mode.

    Raises:
        UserError: the files are missing, damaged or of another model.
    """
    weights = folder / WEIGHTS_FILE
    try:
        if isinstance(method, PeftMethod):
            loaded = peft.PeftModel.from_pretrained(base.model, str(folder), local_files_only=True).eval()
            method.mend(loaded)
            return loaded
        tensors = safetensors.torch.load_file(weights)
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{weights}: cannot be loaded ({error}); train again, or restore the file") from None
    model = _choose_own(base, method)
    expected = {name: tensor.shape for name, tensor in model.named_parameters() if tensor.requires_grad}
    if expected != {name: tensor.shape for name, tensor in tensors.items()}:
        raise UserError(
            f"{weights}: holds other tensors than {method.label} trains in this model; use the model it came from"
        )
    model.load_state_dict(tensors, strict=False)
    return model.eval()


def split_parameters(model: nn.Module, head: list[str]) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Trainable parameters by name: (the adapter's, the head's)."""
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    of_head = {name for name in trainable if in_head(name, head)}
    return (
        {name: parameter for name, parameter in trainable.items() if name not in of_head},
        {name: parameter for name, parameter in trainable.items() if name in of_head},
    )


def in_head(name: str, head: list[str]) -> bool:
    """Whether a parameter, by its name with or without PEFT's prefix, belongs to a module in `head`."""
    path = bare(name)
    return any(path.startswith(f"{module}.") for module in head)


def _choose_own(base: Base, method: Method) -> nn.Module:
    for name, parameter in base.model.named_parameters():
        adapted = isinstance(method, PartOfModel) and method.trains(name)
        parameter.requires_grad_((adapted and not in_head(name, base.frozen)) or in_head(name, base.head))
    return base.model


def _changes(frozen: list[str], name: str, parameter: nn.Parameter) -> bool:
    return in_head(name, frozen) and parameter.requires_grad


def _of_the_model(name: str, parameter: nn.Parameter) -> bool:
    """Whether it trains and is no adapter's: PEFT names the adapter in each of its parameters."""
    return parameter.requires_grad and "default" not in name.split(".")


def _query_and_value(model: Any) -> Sequence[str]:
    architecture = getattr(getattr(model, "config", None), "model_type", None)
    if architecture in QUERY_AND_VALUE:
        return QUERY_AND_VALUE[architecture]
    named = f"the class {type(model).__name__}" if architecture is None else f"the architecture {architecture!r}"
    raise UserError(
        f"method.target_modules: no default is known for {named}; "
        f"name the layers to adapt, for example the attention's query and value, out of {', '.join(_layers(model))}"
    )


def _check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    names = [name for name, _ in model.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            layers = _layers(model)
            raise UserError(
                f"method.target_modules: the model has no layer {target!r}{closest(target, layers)}; "
                f"its layers: {', '.join(layers)}"
            )


def _layers(model: nn.Module) -> list[str]:
    """Last parts of the names of what can be adapted."""
    kinds = (nn.Linear, nn.Conv2d, Conv1D)
    return sorted({name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, kinds)})
