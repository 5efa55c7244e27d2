"""Compiled models and CUDA graphs: what they give is what calls one by one give."""

from __future__ import annotations

import copy

import pytest
import torch

from structune.testing import DEVICE, normalised_error

from .conftest import TOLERANCE, adapted, every_family, every_source, inputs, moved, only_cuda, pools

MODES = ["default", pytest.param("reduce-overhead", marks=only_cuda)]


def _gradients(model: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    y = model(x)
    return [y.detach().clone(), *torch.autograd.grad(y.square().sum(), pools(model))]


@every_family
@pytest.mark.parametrize("mode", MODES)
def test_compiled(family: str, mode: str) -> None:
    """Forward and backward, for two numbers of tokens and after a step; reduce-overhead is CUDA graphs."""
    plain = moved(adapted(family, 40))
    compiled = copy.deepcopy(plain)
    torch._dynamo.reset()
    program = torch.compile(compiled, mode=mode)
    for tokens, size in ((12, 0.3), (12, 0.2), (20, 0.2)):
        x = inputs(tokens)
        moved(plain, size)
        moved(compiled, size)
        for found, expected in zip(_gradients(program, x), _gradients(plain, x), strict=True):
            assert normalised_error(found, expected) < 5 * TOLERANCE[torch.float32]


@only_cuda
@every_family
@every_source
def test_a_captured_forward_pass_follows_its_numbers(family: str, pool_size: int | None) -> None:
    """A graph that was captured once is right for other inputs, and for numbers that were changed in place."""
    model, x = moved(adapted(family, pool_size)), inputs()
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                model(x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = model(x)
        for seed, size in ((3, 0.3), (4, 0.1)):
            moved(model, size)
            x.copy_(inputs(seed=seed))
            graph.replay()
            assert normalised_error(y, model(x)) < TOLERANCE[torch.float32]


@only_cuda
@every_family
@every_source
def test_captured_training(family: str, pool_size: int | None) -> None:
    """Forward and backward pass as graphs, with PyTorch's own tool; the loss is that of calls one by one."""
    losses = []
    for captured in (False, True):
        model = moved(adapted(family, pool_size)).train()
        call = torch.cuda.make_graphed_callables(model, (inputs().requires_grad_(),)) if captured else model
        optimizer = torch.optim.AdamW(pools(model), lr=1e-3, capturable=True)
        course = []
        for step in range(5):
            loss = call(inputs(seed=step).requires_grad_()).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            course.append(loss.detach())
        losses.append(torch.stack(course))
    assert normalised_error(losses[1], losses[0]) < 1e-3


@only_cuda
def test_everything_runs_on_the_device() -> None:
    assert inputs().device.type == DEVICE.type == "cuda"
