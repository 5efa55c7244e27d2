"""Programs written down by exporters and tracers: any number of tokens, any type of layer, merged or not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from structune import StructuneConfig, structures

MOST = 512


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


Case = tuple[Callable[[], nn.Module], dict[str, Any], Callable[[int], Tensor]]
CASES: dict[str, Case] = {
    "linear": (lambda: nn.Sequential(nn.Linear(8, 6)), {"target_modules": ["0"]}, lambda n: torch.randn(n, 2, 8)),
    "Conv1D": (lambda: nn.Sequential(Conv1D(6, 8)), {"target_modules": ["0"]}, lambda n: torch.randn(n, 8)),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1)),
        {"target_modules": ["0"]},
        lambda n: torch.randn(n, 4, 5, 5),
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(8, 6)),
        {"target_modules": ["0"]},
        lambda n: torch.randint(8, (n, 3)),
    ),
    "attention": (Attention, {"target_modules": ["attention"]}, lambda n: torch.randn(n, 5, 8)),
    "parameter": (
        lambda: nn.Sequential(nn.Linear(8, 6)),
        {"target_parameters": ["0.weight"]},
        lambda n: torch.randn(n, 8),
    ),
}
FAMILIES = [("linear", family) for family in structures.names()]
KINDS = [(kind, family) for kind in list(CASES)[1:] for family in ("circulant", "toeplitz_like")]


def _model(kind: str, family: str, *, merged: bool = False, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    make, targets, _ = CASES[kind]
    model = get_peft_model(make(), StructuneConfig(structure=family, num_splits=2, **targets, **options)).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    if merged:
        model.merge_adapter()
    return model.base_model.model


def _check(written: Callable[[Tensor], Tensor], model: nn.Module, inputs: Callable[[int], Tensor]) -> None:
    """The same for few tokens and for many, and ΔW has a part in it."""
    for size in (3, MOST):
        x = inputs(size)
        with torch.no_grad():
            expected = model(x)
            torch.testing.assert_close(written(x), expected, rtol=1e-4, atol=1e-4)
    assert expected.abs().max() > 1e-2


def _export(model: nn.Module, inputs: Callable[[int], Tensor], *, strict: bool) -> torch.export.ExportedProgram:
    size = torch.export.Dim("size", min=2, max=MOST)
    return torch.export.export(model, (inputs(4),), dynamic_shapes=({0: size},), strict=strict)


def _operators(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(("kind", "family"), [*FAMILIES, *KINDS])
def test_exported_for_any_number_of_tokens(kind: str, family: str, merged: bool) -> None:
    """In PyTorch's own operators: the program runs where this package is not installed."""
    model, inputs = _model(kind, family, merged=merged), CASES[kind][2]
    program = _export(model, inputs, strict=False)
    assert not [name for name in _operators(program) if "structune" in name]
    _check(program.module(), model, inputs)


@pytest.mark.parametrize(("kind", "family"), [("linear", "circulant"), *KINDS[::2]])
def test_exported_strictly_and_without_gradients(kind: str, family: str) -> None:
    model, inputs = _model(kind, family), CASES[kind][2]
    with torch.no_grad():
        program = _export(model, inputs, strict=True)
    assert not [name for name in _operators(program) if "structune" in name]
    _check(program.module(), model, inputs)


@pytest.mark.parametrize("algorithm", ["fft", "fold", "dft_gemm"])
def test_an_algorithm_asked_for_is_exported(algorithm: str) -> None:
    model, inputs = _model("linear", "circulant", algorithm=algorithm), CASES["linear"][2]
    program = _export(model, inputs, strict=False)
    assert [name for name in _operators(program) if "structune" in name]
    _check(program.module(), model, inputs)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("algorithm", ["auto", "fft", "fold", "dense"])
@pytest.mark.parametrize(("kind", "family"), [("linear", "circulant"), ("linear", "low_rank"), *KINDS])
def test_traced_for_any_number_of_tokens(kind: str, family: str, algorithm: str, gradients: bool) -> None:
    """TorchScript of PyTorch's own operators, whatever algorithm was asked for and however many tokens were traced."""
    if family == "low_rank" and algorithm == "fft":
        return
    model, inputs = _model(kind, family, algorithm=algorithm), CASES[kind][2]
    with torch.set_grad_enabled(gradients):
        program = torch.jit.trace(model, (inputs(300),), check_trace=False)
    file = io.BytesIO()
    torch.jit.save(program, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    assert "structune::" not in str(loaded.inlined_graph)
    _check(loaded, model, inputs)


@pytest.mark.parametrize("algorithm", ["auto", "fft"])
@pytest.mark.parametrize(("kind", "family"), [("linear", "toeplitz_like"), ("conv", "circulant")])
def test_onnx(kind: str, family: str, algorithm: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, inputs = _model(kind, family, algorithm=algorithm), CASES[kind][2]
    size = torch.export.Dim("size", min=2, max=MOST)
    file = tmp_path / "model.onnx"
    torch.onnx.export(model, (inputs(4),), file, dynamo=True, dynamic_shapes=({0: size},), external_data=False)
    session = runtime.InferenceSession(file)
    name = session.get_inputs()[0].name
    _check(lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]), model, inputs)
