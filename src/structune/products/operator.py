"""Our functions as operators of PyTorch: autograd, `torch.compile` and `opcheck` treat them like its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Parameter

F = TypeVar("F", bound=Callable[..., Any])

NAMES: list[str] = []
"""The operators defined so far, as torch.ops.structune.<name>."""


def operator(
    name: str,
    function: F,
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> F:
    """`function` as the operator structune::`name`, with what a compiler sees of it and its backward pass.

    Where neither gradients nor a compiler are at work the function is called directly: an operator costs as much time
    as a product with a single token.

    Args:
        name: of the operator.
        function: works on plain tensors; mutates none of its arguments and returns none of them.
        fake: the same signature; returns empty tensors of the right shape and dtype.
        setup_context: as in `torch.library.custom_op`.
        backward: likewise; None for operators that are never differentiated.
    """
    op = torch.library.custom_op(f"structune::{name}", function, mutates_args=())
    op.register_fake(fake)
    if backward is not None:
        op.register_autograd(backward, setup_context=setup_context)
    NAMES.append(name)

    def call(*args: Any) -> Any:
        tensors = list(_tensors(args))
        recorded = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        traced = torch.compiler.is_compiling() or any(type(t) not in (Tensor, Parameter) for t in tensors)
        return op(*args) if recorded or traced else function(*args)

    return call  # type: ignore[return-value]


def _tensors(arguments: Iterable[Any]) -> Iterator[Tensor]:
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, list):
            yield from _tensors(argument)


@contextmanager
def recording() -> Iterator[None]:
    """Autograd inside an operator, where PyTorch switches it off for the compiled call."""
    included = torch._C._dispatch_tls_local_include_set()
    excluded = torch._C._dispatch_tls_local_exclude_set().remove(torch._C.DispatchKey.AutogradFunctionality)
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield
