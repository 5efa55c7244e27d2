"""Adapted models as functions of their parameters: gradients by sample, several adapters at once, ensembles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from transformers.pytorch_utils import Conv1D

from structune import StructuneConfig

SAMPLES = 3


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


Case = tuple[Callable[[], nn.Module], dict[str, Any], Callable[..., Tensor]]
CASES: dict[str, Case] = {
    "linear": (lambda: nn.Sequential(nn.Linear(8, 6)), {"target_modules": ["0"]}, lambda *n: torch.randn(*n, 2, 8)),
    "many tokens": (
        lambda: nn.Sequential(nn.Linear(8, 6)),
        {"target_modules": ["0"]},
        lambda *n: torch.randn(*n, 300, 8),
    ),
    "Conv1D": (lambda: nn.Sequential(Conv1D(6, 8)), {"target_modules": ["0"]}, lambda *n: torch.randn(*n, 2, 8)),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3, padding=1)),
        {"target_modules": ["0"]},
        lambda *n: torch.randn(*n, 1, 4, 5, 5),
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(8, 6)),
        {"target_modules": ["0"]},
        lambda *n: torch.randint(8, (*n, 3)),
    ),
    "attention": (Attention, {"target_modules": ["attention"]}, lambda *n: torch.randn(*n, 1, 3, 8)),
    "parameter": (
        lambda: nn.Sequential(nn.Linear(8, 6)),
        {"target_parameters": ["0.weight"]},
        lambda *n: torch.randn(*n, 2, 8),
    ),
}
STRUCTURES = [{"structure": "circulant"}, {"structure": "toeplitz_like", "pool_size": 10}, {"structure": "cauchy"}]


def _model(kind: str, options: dict[str, Any], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    make, targets, _ = CASES[kind]
    model = get_peft_model(make(), StructuneConfig(num_splits=2, **targets, **options)).double().eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    return model


def _inputs(kind: str, *batch: int) -> Tensor:
    x = CASES[kind][2](*batch)
    return x.double() if x.is_floating_point() else x


def _own(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("options", STRUCTURES, ids=lambda options: options["structure"])
@pytest.mark.parametrize("kind", CASES)
def test_gradients_by_sample(kind: str, options: dict[str, Any]) -> None:
    model, x = _model(kind, options), _inputs(kind, SAMPLES)
    found = vmap(grad(lambda p, one: functional_call(model, p, (one,)).pow(2).sum()), (None, 0))(_own(model), x)
    for k, one in enumerate(x):
        model.zero_grad()
        model(one).pow(2).sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad.abs().max() > 1e-3
                torch.testing.assert_close(found[name][k], parameter.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", STRUCTURES, ids=lambda options: options["structure"])
@pytest.mark.parametrize("kind", CASES)
def test_adapters_and_models_at_once(kind: str, options: dict[str, Any]) -> None:
    """Stacked adapters on one base, and stacked models, are one model after the other."""
    models = [_model(kind, options, seed) for seed in range(SAMPLES)]
    x = _inputs(kind)
    first = models[0]
    adapters = {name: torch.stack([_own(model)[name] for model in models]) for name in _own(first)}
    found = vmap(lambda p: functional_call(first, p, (x,)))(adapters)
    for k in range(SAMPLES):
        expected = functional_call(first, {name: numbers[k] for name, numbers in adapters.items()}, (x,))
        torch.testing.assert_close(found[k], expected, rtol=1e-9, atol=1e-9)
    assert (found[1] - found[0]).abs().max() > 1e-2
    found = vmap(lambda p, b: functional_call(first, (p, b), (x,)))(*stack_module_state(models))
    torch.testing.assert_close(found, torch.stack([model(x) for model in models]), rtol=1e-9, atol=1e-9)


def test_compiled_gradients_by_sample() -> None:
    model, x = _model("linear", STRUCTURES[0]), _inputs("linear", SAMPLES)
    by_sample = vmap(grad(lambda p, one: functional_call(model, p, (one,)).pow(2).sum()), (None, 0))
    expected = by_sample(_own(model), x)
    torch._dynamo.reset()
    compiled = torch.compile(by_sample, backend="aot_eager", fullgraph=True)
    for name, found in compiled(_own(model), x).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-9, atol=1e-9)
