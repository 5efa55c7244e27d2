"""Our functions as operators of PyTorch: autograd, `torch.compile` and `opcheck` treat them like its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from structune.products.bilinear import bilinear
from structune.surroundings import plain, transformed

F = TypeVar("F", bound=Callable[..., Any])

NAMES: list[str] = []
"""The operators defined so far, as torch.ops.structune.<name>."""


def operator(
    name: str,
    function: F,
    fake: Callable[..., Any],
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
    axes: tuple[str, str, str] | None = None,
) -> F:
    """`function` as the operator structune::`name`, with what a compiler sees of it and its backward pass.

    Where neither gradients nor a compiler are at work the function is called directly: an operator costs as much time
    as a product with a single token. Under function transforms a bilinear operator goes by the rules of `bilinear`, for
    PyTorch has none for the backward passes of operators made in Python; others must not be called there.

    Args:
        name: of the operator.
        function: works on plain tensors; mutates none of its arguments and returns none of them.
        fake: the same signature; returns empty tensors of the right shape and dtype.
        setup_context: as in `torch.library.custom_op`.
        backward: likewise; None for operators that are never differentiated.
        axes: those of `bilinear`, for a bilinear operator whose first two arguments are its factors.
    """
    op = torch.library.custom_op(f"structune::{name}", function, mutates_args=())
    op.register_fake(fake)
    if backward is not None:
        op.register_autograd(backward, setup_context=setup_context)
    NAMES.append(name)

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            return op(*args)
        if ruled is not None and transformed():
            return ruled.apply(*args)
        tensors = list(_tensors(args))
        recorded = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        return function(*args) if not recorded and plain(*tensors) else op(*args)

    ruled: Any = bilinear(op, call, axes, setup_context, backward) if axes and setup_context and backward else None
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
