"""Whoever watches modules sees them called: hooks of every kind, on one module or on all, few tokens and many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.modules import module as everywhere
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

from structune import StructuneConfig

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(10, 14),
    "conv": lambda: nn.Conv1d(10, 14, 3),
    "embedding": lambda: nn.Embedding(10, 14),
}


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lin = LAYERS[kind]()

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x)


def _adapted(kind: str, **options: Any) -> nn.Module:
    config = StructuneConfig(structure="toeplitz", num_splits=2, target_modules=["lin"], **options)
    model = get_peft_model(Net(kind), config)
    model.base_model.model.lin.structune_delta["default"].pool.data.normal_()
    return model


def _input(kind: str, tokens: int) -> Tensor:
    if kind == "embedding":
        return torch.randint(10, (tokens,))
    return torch.randn(tokens, 10, *([5] if kind == "conv" else [])).requires_grad_()


WAYS = {
    "forward hook": nn.Module.register_forward_hook,
    "forward pre hook": nn.Module.register_forward_pre_hook,
    "backward hook": nn.Module.register_full_backward_hook,
    "backward pre hook": nn.Module.register_full_backward_pre_hook,
    "every forward": lambda _, hook: everywhere.register_module_forward_hook(hook),
    "every forward pre": lambda _, hook: everywhere.register_module_forward_pre_hook(hook),
    "every backward": lambda _, hook: everywhere.register_module_full_backward_hook(hook),
    "every backward pre": lambda _, hook: everywhere.register_module_full_backward_pre_hook(hook),
}


@contextmanager
def _watching(way: str, modules: list[nn.Module]) -> Iterator[list[nn.Module]]:
    """The modules that were seen, by a hook on each of `modules` or on all that there are."""
    seen: list[nn.Module] = []

    def hook(module: nn.Module, *_: Any) -> None:
        seen.append(module)

    handles = [WAYS[way](module, hook) for module in (modules[:1] if way.startswith("every") else modules)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("tokens", [5, 300])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", LAYERS)
def test_hooks_are_called(kind: str, way: str, tokens: int) -> None:
    """On the layer, what it is around and, where ΔW has an input, on ΔW and dropout; results stay what they were."""
    model, x = _adapted(kind), _input(kind, tokens)
    layer = model.base_model.model.lin
    expected = model(x)
    watched = [layer, layer.base_layer, layer.structune_delta["default"], layer.structune_dropout["default"]]
    if kind == "embedding":  # numbers of tokens have no gradient, and rows of ΔW are looked up
        watched = watched[:1] if "backward" in way else watched[:2]
    with _watching(way, watched) as seen:
        y = model(x)
        y.sum().backward()
    assert set(watched) <= set(seen)
    assert all(seen.count(module) == 1 for module in watched)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g.abs().max() > 1e-3 for g in gradients)


@pytest.mark.parametrize("place", ["base layer", "delta", "dropout"])
@pytest.mark.parametrize("tokens", [5, 300])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_hook_may_change_what_it_sees(kind: str, tokens: int, place: str) -> None:
    model, x = _adapted(kind), _input(kind, tokens)
    layer = model.base_model.model.lin
    base = layer.base_layer(x)
    update = model(x) - base
    module = {
        "base layer": layer.base_layer,
        "delta": layer.structune_delta["default"],
        "dropout": layer.structune_dropout["default"],
    }[place]
    module.register_forward_hook(lambda *_: 3 * _[-1])
    expected = 3 * base + update if place == "base layer" else base + 3 * update
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", [5, 300])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_forward_put_on_a_part_is_called(kind: str, tokens: int) -> None:
    """As accelerate's hooks do, which bring weights to a device and take them away again."""
    model, x = _adapted(kind), _input(kind, tokens)
    delta = model.base_model.model.lin.structune_delta["default"]
    expected, original, calls = model(x), delta.forward, []

    def forward(*args: Tensor) -> Tensor:
        calls.append(args)
        return original(*args)

    delta.forward = forward
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(6, 9, 3, stride=2, padding=2, groups=3),
        nn.Conv2d(4, 6, (2, 3), dilation=(1, 2), padding="same", groups=2, padding_mode="circular"),
        nn.Conv3d(2, 3, (1, 2, 2), stride=(1, 2, 1), padding=1),
    ],
)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_watched_convolutions_are_the_same(conv: nn.Module, batch: tuple[int, ...]) -> None:
    """ΔW times what each filter sees, for any stride, padding, dilation and number of groups."""
    model = get_peft_model(
        nn.Sequential(conv), StructuneConfig(structure="toeplitz", num_splits=1, target_modules=["0"])
    )
    delta = model.base_model.model[0].structune_delta["default"]
    delta.pool.data.normal_()
    x = torch.randn(*batch, conv.in_channels, *(7, 6, 5)[: len(conv.kernel_size)])
    expected = model(x)
    seen: list[Tensor] = []
    delta.register_forward_hook(lambda module, args, output: seen.append(output))
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert seen[0].abs().max() > 1e-2


@pytest.mark.parametrize("tokens", [5, 300])
def test_selective_checkpointing_may_keep_products(tokens: int) -> None:
    """It keeps what the base layer's product gave, so the update is not added to it in place."""
    model, x = _adapted("linear"), _input("linear", tokens)

    def keep(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        product = op in (torch.ops.aten.addmm.default, torch.ops.aten.mm.default)
        return CheckpointPolicy.MUST_SAVE if product else CheckpointPolicy.PREFER_RECOMPUTE

    def contexts() -> tuple[Any, Any]:
        return create_selective_checkpoint_contexts(keep)

    wanted = torch.autograd.grad(model(x).square().sum(), (x, *[p for p in model.parameters() if p.requires_grad]))
    y = checkpoint(model, x, use_reentrant=False, context_fn=contexts)
    found = torch.autograd.grad(y.square().sum(), (x, *[p for p in model.parameters() if p.requires_grad]))
    for actual, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_products_are_counted() -> None:
    """A counter of operations sees the base layer's product, forward and backward, for many tokens too."""
    x = _input("linear", 300)
    counts = []
    for model in (_adapted("linear"), get_peft_model(Net("linear"), LoraConfig(r=1, target_modules=["lin"]))):
        with FlopCounterMode(display=False) as counter:
            model(x).sum().backward()
        counts.append(counter.get_flop_counts())
    ours, loras = ({name.rpartition(".lin.")[2]: sum(c.values()) for name, c in of.items()} for of in counts)
    assert ours["base_layer"] == loras["base_layer"] > 0
