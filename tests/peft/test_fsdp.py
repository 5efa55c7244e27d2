"""Fully sharded data parallel: views of the weights stand where parameters stood, and ΔW still counts."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from peft import get_peft_model
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

import structune

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed")


class Attention(nn.Module):
    """Self-attention over rows."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Matrix(nn.Module):
    """A weight that no layer of torch holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


class Twice(nn.Module):
    """One convolution that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.tanh(self.conv(x)))


CASES = {
    "linear": (lambda: nn.Sequential(nn.Linear(8, 6)), {"target_modules": ["0"]}, (5, 8)),
    "conv2d": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3)), {"target_modules": ["0"]}, (2, 4, 5, 5)),
    "conv2d, called twice": (Twice, {"target_modules": ["conv"]}, (2, 4, 5, 5)),
    "attention": (Attention, {"target_modules": ["attention"]}, (5, 8)),
    "parameter": (lambda: nn.Sequential(Matrix()), {"target_parameters": ["0.weight"]}, (5, 8)),
}


@pytest.fixture(scope="module", autouse=True)
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(("make", "targets", "shape"), CASES.values(), ids=CASES)
def test_outputs_and_gradients_are_those_of_the_model_itself(make, targets, shape, randomise) -> None:
    torch.manual_seed(0)
    model = randomise(get_peft_model(make(), structune.c3a(block_size=4, **targets)))
    x = torch.randn(shape)
    sharded = FullyShardedDataParallel(copy.deepcopy(model), use_orig_params=True, device_id=torch.device("cpu"))
    expected, found = model(x), sharded(x)
    with model.disable_adapter():
        assert (model(x) - expected).abs().max() > 0.1
    torch.testing.assert_close(found, expected)
    with model.disable_adapter(), sharded.module.disable_adapter():
        torch.testing.assert_close(sharded(x), model(x))
    expected.square().sum().backward()
    found.square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    trained = {name.replace("_fsdp_wrapped_module.", ""): p.grad for name, p in sharded.named_parameters()}
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 1e-3
        torch.testing.assert_close(trained[name], gradient)
