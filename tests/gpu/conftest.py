"""What a GPU shows. Collected where a device is named: `make test-gpu`, or STRUCTUNE_TEST_DEVICE=cpu to try them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

import structune
from structune import structures
from structune.numerics import thin
from structune.testing import DEVICE, sample_inputs
from structune.testing.device import VARIABLE

collect_ignore_glob = [] if os.environ.get(VARIABLE) else ["test_*.py"]

only_cuda = pytest.mark.skipif(DEVICE.type != "cuda", reason="CUDA has it")
every_family = pytest.mark.parametrize("family", structures.names())
every_source = pytest.mark.parametrize("pool_size", [None, 40], ids=["own", "pooled"])

TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Normalised error of two layers and what lies between them, in the dtype of the model."""

every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype).removeprefix("torch."))


class MLP(nn.Module):
    """Two linear layers whose sizes no number of blocks divides."""

    def __init__(self) -> None:
        super().__init__()
        self.lin0 = nn.Linear(50, 70)
        self.lin1 = nn.Linear(70, 30)

    def forward(self, x: Tensor) -> Tensor:
        """(…, 50) to (…, 30)."""
        return self.lin1(torch.tanh(self.lin0(x)))


def base(dtype: torch.dtype = torch.float32) -> MLP:
    """The same numbers on every device."""
    torch.manual_seed(0)
    return MLP().to(DEVICE, dtype).eval()


def adapted(family: str, pool_size: int | None, dtype: torch.dtype = torch.float32, **options: object) -> PeftModel:
    """An MLP with an adapter around both layers, at its start."""
    config = structune.StructuneConfig(
        structure=family, num_splits=3, pool_size=pool_size, target_modules=["lin0", "lin1"], **options
    )
    return get_peft_model(base(dtype), config).to(DEVICE)


def moved(model: PeftModel, size: float = 0.3) -> PeftModel:
    """The same model after its trained numbers have moved."""
    with torch.no_grad():
        for seed, pool in enumerate(pools(model)):
            pool.copy_(size * sample_inputs(*pool.shape, seed=seed))
    return model


def pools(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def inputs(tokens: int = 12, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return sample_inputs(tokens, 50, dtype=dtype, seed=seed)


@pytest.fixture(autouse=True)
def _precise() -> Iterator[None]:
    """fp32 is fp32, whatever the machine's environment says; afterwards it is what it was."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def _of_ten_bits(value: object) -> object:
    """An fp32 tensor rounded to TF32, differentiable as if it were not; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return type(value)(_of_ten_bits(inner) for inner in value)
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        return value
    bits = value.detach().contiguous().view(torch.int32)
    return value + (((bits + 0x1000) & ~0x1FFF).view(torch.float32) - value.detach())


@pytest.fixture
def tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 where there is a GPU; elsewhere what it does to the factors of matrix products, in forward passes."""
    torch.set_float32_matmul_precision("high")
    if DEVICE.type == "cuda":
        return
    monkeypatch.setattr(thin, "may_round", lambda device: True)
    names = ["matmul", "mm", "bmm", "addmm", "baddbmm", "mv"]
    places = [(torch, name) for name in (*names, "einsum")] + [(nn.functional, "linear"), (Tensor, "__matmul__")]
    for place, name in places + [(Tensor, name) for name in names]:
        monkeypatch.setattr(place, name, _with_ten_bits(getattr(place, name)))


def _with_ten_bits(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: product(*_of_ten_bits(args), **kwargs)
