"""Models without numbers: shapes come out of them as of any other, and nothing pretends to have numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.pytorch_utils import Conv1D

from structune import StructuneConfig


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


CASES: dict[str, Any] = {
    "linear": (lambda: nn.Sequential(nn.Linear(8, 6)), {"target_modules": ["0"]}, (2, 8), (2, 6)),
    "many tokens": (lambda: nn.Sequential(nn.Linear(8, 6)), {"target_modules": ["0"]}, (600, 8), (600, 6)),
    "Conv1D": (lambda: nn.Sequential(Conv1D(6, 8)), {"target_modules": ["0"]}, (2, 8), (2, 6)),
    "conv": (lambda: nn.Sequential(nn.Conv1d(8, 6, 3)), {"target_modules": ["0"]}, (2, 8, 5), (2, 6, 3)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(8, 6)), {"target_modules": ["0"]}, None, (2, 6)),
    "attention": (Attention, {"target_modules": ["attention"]}, (2, 3, 8), (2, 3, 8)),
    "parameter": (lambda: nn.Sequential(nn.Linear(8, 6)), {"target_parameters": ["0.weight"]}, (2, 8), (2, 6)),
}
STRUCTURES: list[dict[str, Any]] = [
    *({"structure": "circulant", "algorithm": algorithm} for algorithm in ("auto", "fft", "fold", "dft_gemm", "dense")),
    {"structure": "toeplitz_like", "pool_size": 10},
    {"structure": "cauchy", "pool_size": 10},
    {"structure": "low_rank"},
]


def _model(kind: str, **options: Any) -> tuple[nn.Module, Tensor, tuple[int, ...]]:
    make, targets, given, expected = CASES[kind]
    model = get_peft_model(make(), StructuneConfig(num_splits=2, **targets, **options))
    x = torch.zeros(2, dtype=torch.int64) if given is None else torch.randn(given)
    return model, x, expected


@pytest.mark.parametrize("options", STRUCTURES, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("kind", CASES)
def test_shapes_on_meta(kind: str, options: dict[str, Any]) -> None:
    """Forward with and without gradients, backward, merging with and without a look for NaN, unmerging, unloading."""
    with torch.device("meta"):
        model, x, shape = _model(kind, **options)
    y = model(x)
    y.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert gradients and all(gradient.is_meta for gradient in gradients)
    with torch.no_grad():
        outputs = [y, model(x)]
        model.merge_adapter(safe_merge=True)
        outputs.append(model(x))
        model.unmerge_adapter()
        outputs += [model(x), model.merge_and_unload()(x)]
    assert all(output.is_meta and output.shape == shape for output in outputs)


@pytest.mark.parametrize("kind", CASES)
def test_shapes_of_fake_tensors(kind: str) -> None:
    """Of a model made with numbers, in the mode in which compilers look at it; nothing of it is kept afterwards."""
    model, x, shape = _model(kind, structure="circulant")
    with torch.no_grad():
        expected = model(x)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            y = model(mode.from_tensor(x))
        assert y.shape == shape and y.device == x.device
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("kind", ["linear", "conv", "attention"])
def test_numbers_cannot_be_merged_into_none(kind: str) -> None:
    model, _, _ = _model(kind, structure="circulant")
    layer = next(module for module in model.modules() if hasattr(module, "structune_delta"))
    base = layer.get_base_layer()
    setattr(base, layer.weight_name, nn.Parameter(getattr(base, layer.weight_name).to("meta"), requires_grad=False))
    with pytest.raises(RuntimeError, match="is on the meta device, which holds no numbers: load it first"):
        model.merge_adapter()
    assert not layer.merged


@pytest.mark.parametrize("kind", ["linear", "many tokens", "embedding", "conv"])
def test_adapters_without_numbers_are_named(kind: str) -> None:
    model, x, _ = _model(kind, structure="circulant")
    layer = model.base_model.model[0]
    layer.structune_delta.to("meta")
    with pytest.raises(RuntimeError, match="on the meta device, which holds no"):
        model(x)


def test_a_convolution_that_is_added_to_names_them_too() -> None:
    """In half precision, or where its weight is offloaded, ΔW is convolved by itself."""
    model, x, _ = _model("conv", structure="circulant")
    model.bfloat16()
    model.base_model.model[0].structune_delta.to("meta")
    with pytest.raises(RuntimeError, match="on the meta device, which holds no"):
        model(x.bfloat16())
