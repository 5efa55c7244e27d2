"""How many kernels a pass of one small layer starts with the matrix built, which is what counts on a GPU."""

from typing import Any

import pytest
import torch
from peft import C3AConfig, LoraConfig, PeftConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import structune

SIZE = 96
VIEWS = {
    "alias", "as_strided", "detach", "expand", "narrow", "permute", "select", "slice", "split", "split_with_sizes",
    "squeeze", "t", "transpose", "unbind", "unfold", "unsqueeze", "view", "_reshape_alias", "_unsafe_view",
}  # fmt: skip


class Kernels(TorchDispatchMode):
    """Counts what is dispatched and is no view."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in VIEWS
        return func(*args, **(kwargs or {}))


def kernels(config: PeftConfig) -> int:
    """Of forward and backward, in bf16, the frozen layer's and the input's gradient among them."""
    config.target_modules = {"layer"}
    whole = nn.Sequential()
    whole.add_module("layer", nn.Linear(SIZE, SIZE))
    layer = get_peft_model(whole.to(torch.bfloat16), config).base_model.model.layer
    x = torch.randn(16, SIZE, dtype=torch.bfloat16, requires_grad=True)
    layer(x).sum().backward()  # whatever is made once is there now, and gradients are added to
    with Kernels() as seen:
        y = layer(x)
    start = torch.ones_like(y)
    with seen:
        y.backward(start)
    return seen.count


def own(structure: str) -> PeftConfig:
    return structune.StructuneConfig(structure=structure, num_splits=4, algorithm="dense")


def pooled(structure: str) -> PeftConfig:
    return structune.hydra(structure=structure, pool_size=SIZE // 2, num_splits=4, algorithm="dense")


@pytest.mark.parametrize(
    ("config", "at_most"),
    [
        (own("hankel"), 14),
        (own("toeplitz"), 18),
        (pooled("toeplitz"), 21),
        (structune.c3a(block_size=SIZE, algorithm="dense"), 22),
    ],
    ids=["hankel", "toeplitz", "pool", "circulant"],
)
def test_no_kernel_is_started_for_nothing(config: PeftConfig, at_most: int) -> None:
    assert 4 < kernels(config) <= at_most  # four: W x + b, and two products and a sum for gradients


def test_a_toeplitz_grid_starts_no_more_than_lora() -> None:
    assert kernels(own("toeplitz")) <= kernels(LoraConfig(r=8))


def test_one_circulant_block_starts_fewer_than_peft_s_c3a() -> None:
    assert kernels(structune.c3a(block_size=SIZE, algorithm="dense")) < kernels(C3AConfig(block_size=SIZE))
