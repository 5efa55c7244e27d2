"""When the layer adds ΔW to W and multiplies once, and that nobody can tell from the result."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import structune
from structune import StructuneConfig
from structune.delta import StructuredDelta
from structune.peft import StructuneLayer

TOKENS, IN, OUT = 300, 10, 14


class Net(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.lin = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x)


def _adapted(layer: nn.Module, **options) -> tuple[nn.Module, StructuneLayer]:
    settings = {"structure": "toeplitz", "num_splits": 2, "target_modules": ["lin"]} | options
    model = get_peft_model(Net(layer), StructuneConfig(**settings))
    adapter = model.base_model.model.lin
    generator = torch.Generator().manual_seed(1)
    for delta in adapter.structune_delta.values():
        delta.pool.data = torch.randn(delta.pool.shape, generator=generator).to(delta.pool.dtype)
    return model, adapter


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[StructuredDelta]:
    """Whatever has been folded so far."""
    seen: list[StructuredDelta] = []
    original = StructuredDelta.fold

    def fold(self: StructuredDelta, *args: Tensor) -> Tensor:
        seen.append(self)
        return original(self, *args)

    monkeypatch.setattr(StructuredDelta, "fold", fold)
    return seen


def _linear(**options) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(IN, OUT, **options)


def _conv1d() -> nn.Module:
    torch.manual_seed(0)
    return Conv1D(OUT, IN)


@pytest.mark.parametrize("family", structune.structures.names())
@pytest.mark.parametrize("make", [_linear, lambda: _linear(bias=False), _conv1d])
def test_folded_equals_unfolded(family: str, make: Callable[[], nn.Module], folds: list) -> None:
    """Result and gradients of x and of the numbers, for linear layers with and without bias and for Conv1D."""
    outcomes = []
    x = torch.randn(2, TOKENS // 2, IN, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for algorithm in ("fold", "dense"):
        model, adapter = _adapted(make(), structure=family, algorithm=algorithm, num_splits=3, pool_size=13)
        model.double()
        inputs = (x.clone().requires_grad_(), adapter.structune_delta["default"].pool)
        y = model(inputs[0])
        outcomes.append((y.detach(), *torch.autograd.grad(y.square().sum(), inputs)))
    assert len(folds) == 1
    for folded, unfolded in zip(*outcomes, strict=True):
        assert folded.abs().max() > 1e-3
        torch.testing.assert_close(folded, unfolded, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("family", ["circulant", "toeplitz", "hankel", "vandermonde", "cauchy"])
def test_many_tokens_are_folded_by_themselves(family: str, folds: list) -> None:
    model, adapter = _adapted(_linear(), structure=family)
    x = torch.randn(TOKENS, IN)
    expected = adapter.base_layer(x) + x @ adapter.get_delta_weight("default").T
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert folds


def _in_training_with_dropout() -> tuple[nn.Module, Tensor]:
    model, _ = _adapted(_linear(), dropout=0.5)
    return model.train(), torch.randn(TOKENS, IN)


def _in_bf16() -> tuple[nn.Module, Tensor]:
    model, _ = _adapted(_linear(), algorithm="fold")
    return model.bfloat16(), torch.randn(TOKENS, IN).bfloat16()


def _with_a_hook() -> tuple[nn.Module, Tensor]:
    model, adapter = _adapted(_linear())
    adapter.base_layer.register_forward_hook(lambda module, args, output: 2 * output)
    return model, torch.randn(TOKENS, IN)


def _with_a_forward_of_its_own() -> tuple[nn.Module, Tensor]:
    model, adapter = _adapted(_linear())
    original = adapter.base_layer.forward
    adapter.base_layer.forward = lambda x: 2 * original(x)
    return model, torch.randn(TOKENS, IN)


def _with_two_adapters() -> tuple[nn.Module, Tensor]:
    model, adapter = _adapted(_linear())
    model.add_adapter("second", StructuneConfig(structure="hankel", num_splits=2, target_modules=["lin"]))
    adapter.structune_delta["second"].pool.data.normal_()
    adapter.set_adapter(["default", "second"])
    return model, torch.randn(TOKENS, IN)


UNFOLDED = [
    _in_training_with_dropout,
    _in_bf16,
    _with_a_hook,
    _with_a_forward_of_its_own,
    _with_two_adapters,
]


@pytest.mark.parametrize("make", UNFOLDED)
def test_not_folded(make: Callable[[], tuple[nn.Module, Tensor]], folds: list) -> None:
    """Where one product would not be the same, the base layer runs as it is and the update is added."""
    model, x = make()
    adapter = model.base_model.model.lin
    torch.manual_seed(3)
    y = model(x)
    assert not folds
    expected = adapter.base_layer(x)
    torch.manual_seed(3)
    for name in adapter.active_adapters:
        delta = adapter.get_delta_weight(name).to(x.dtype)
        expected = expected + adapter.structune_dropout[name](x) @ delta.T
    rtol = 3e-2 if x.dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(y, expected, rtol=rtol, atol=rtol * float(expected.detach().abs().max()))


def test_inference_folds_later(folds: list) -> None:
    """Without gradients spectra are kept, W + ΔW is not: folding pays only for more tokens."""
    torch.manual_seed(0)
    model, _ = _adapted(nn.Linear(768, 768), structure="circulant", num_splits=1)
    x = torch.randn(400, 768)
    with torch.no_grad():
        unfolded = model(x[:300])
        assert not folds
        torch.testing.assert_close(model(x)[:300], unfolded, rtol=1e-4, atol=1e-3)
    assert len(folds) == 1
    model(x[:300])
    assert len(folds) == 2


class Remembering(nn.Linear):
    """A layer that keeps what it gave."""

    def forward(self, x: Tensor) -> Tensor:
        self.given = super().forward(x)
        return self.given


def test_inference_leaves_alone_what_others_hold() -> None:
    """The update is added in place only to what nobody else can have seen."""
    model, adapter = _adapted(_linear())
    seen: list[Tensor] = []
    adapter.base_layer.register_forward_hook(lambda module, args, output: seen.append(output))
    x = torch.randn(3, IN)
    with torch.no_grad():
        y = model(x)
    torch.testing.assert_close(seen[0], nn.functional.linear(x, adapter.weight, adapter.bias))
    assert (y - seen[0]).abs().max() > 0.1


def test_what_a_subclass_keeps_is_what_it_keeps_merged() -> None:
    model, adapter = _adapted(Remembering(IN, OUT))
    x = torch.randn(3, IN)
    with torch.no_grad():
        y = model(x)
        held = adapter.base_layer.given
        assert (held - nn.functional.linear(x, adapter.weight, adapter.bias)).abs().max() > 0.1
        model.merge_adapter()
        torch.testing.assert_close(model(x), y)
    torch.testing.assert_close(held, adapter.base_layer.given)


def test_not_folded_under_autocast(folds: list) -> None:
    """The base layer's own precision decides: bf16 there."""
    model, _ = _adapted(_linear())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.randn(TOKENS, IN)).dtype == torch.bfloat16
    assert not folds


def test_a_trained_base_weight_gets_its_gradient(folds: list) -> None:
    """Nothing of W's own training is lost when it is folded into the product."""
    model, adapter = _adapted(_linear(), algorithm="fold")
    other = copy.deepcopy(adapter.base_layer)
    for layer in (adapter.base_layer, other):
        layer.requires_grad_(True)
    x = torch.randn(TOKENS, IN)
    model(x).sum().backward()
    other(x).sum().backward()
    assert folds
    torch.testing.assert_close(adapter.base_layer.weight.grad, other.weight.grad)
    torch.testing.assert_close(adapter.base_layer.bias.grad, other.bias.grad)


@pytest.mark.parametrize("algorithm", ["auto", "fold", "dense"])
def test_compiles_whole(algorithm: str) -> None:
    """The adapted layer in one graph, trained and with any number of tokens."""
    model, adapter = _adapted(_linear(), algorithm=algorithm)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for tokens in (300, 400, 350):
        x = torch.randn(tokens, IN)
        torch._dynamo.mark_dynamic(x, 0)
        with torch.compiler.set_stance("fail_on_recompile" if tokens == 350 else "default"):
            y = compiled(x)
        y.square().sum().backward()
        pool = adapter.structune_delta["default"].pool
        (expected,) = torch.autograd.grad(model(x).square().sum(), pool)
        torch.testing.assert_close(pool.grad, expected, rtol=1e-4, atol=1e-3)
        pool.grad = None
