"""A model as it was before something failed: its modules, what they hold, and what was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@contextmanager
def as_before_if_failing(
    model: nn.Module, adapter_name: str | None = None, *, concerns: Callable[[nn.Module], bool] = lambda _: True
) -> Iterator[None]:
    """While it lasts, an error leaves the model as it was: layers, modes, active adapters, what is trained, hooks.

    Args:
        model: any module. Numbers that are overwritten in place stay so, except those of the adapter.
        adapter_name: an adapter that the model may have already, and whose numbers are loaded.
        concerns: whether the model that an error leaves behind is to be set back at all.
    """
    attributes = [
        (module, type(module), {name: (value, _content(value)) for name, value in vars(module).items()})
        for module in model.modules()
    ]
    stored = [parameter for parameter in model.parameters() if not is_lazy(parameter)]
    trained = [(parameter, parameter.data, parameter.requires_grad) for parameter in stored]
    live = adapter_name is not None and adapter_name in getattr(model, "peft_config", {})
    numbers = [(tensor, tensor.detach().clone()) for tensor in _numbers(model, adapter_name)] if live else []
    try:
        yield
    except BaseException:
        if not concerns(model):
            raise
        for module, cls, before in attributes:
            if type(module) is not cls:  # as parametrisations change it
                module.__class__ = cls
            own = vars(module)
            for name in own.keys() - before.keys():
                del own[name]
            for name, (value, content) in before.items():
                own[name] = value
                _refill(value, content)
        for parameter, data, requires_grad in trained:
            if parameter.shape != data.shape:
                parameter.data = data
            parameter.requires_grad_(requires_grad)
        with torch.no_grad():
            for tensor, values in numbers:
                tensor.copy_(values)
        raise


def _content(value: Any) -> Any:
    """The content of a container that may be changed where it is; of anything else, nothing."""
    return value.copy() if isinstance(value, (dict, list, set)) else None


def _refill(container: Any, content: Any) -> None:
    if content is None or _is_still(container, content):  # what nobody changed may be one that nobody can change
        return
    if isinstance(container, list):
        container[:] = content
    elif isinstance(container, (dict, set)):
        container.clear()
        container.update(content)


def _is_still(container: Any, content: Any) -> bool:
    """Whether it holds the very same things, in their order."""
    if isinstance(container, set):
        return bool(container == content)
    if isinstance(container, dict):
        same = list(container) == list(content)
        container, content = list(container.values()), list(content.values())
        return same and _is_still(container, content)
    return len(container) == len(content) and all(one is other for one, other in zip(container, content, strict=True))


def _numbers(model: nn.Module, adapter_name: str | None) -> Iterator[Tensor]:
    """What the adapter has: parameters, buffers, and the tensors that its modules keep beside them."""
    kept = (
        (name, tensor)
        for name, module in model.named_modules()
        for tensor in vars(module).values()
        if isinstance(tensor, Tensor)
    )
    for tensors in (model.named_parameters(), model.named_buffers(), kept):
        for name, tensor in tensors:
            if adapter_name in name.split(".") and not tensor.is_meta:
                yield tensor
