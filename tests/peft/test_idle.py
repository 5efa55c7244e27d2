"""Adapters that get no gradient are named, once and after the first step, and no others."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.distributed as dist
from peft import get_peft_model, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, TrainingArguments

import structune
from structune.peft import StructuneLayer


def product(layer: nn.Module, x: Tensor) -> Tensor:
    """Reads a weight out of sight of the module that holds the layer."""
    return nn.functional.linear(x, layer.weight)


class Net(nn.Module):
    """A layer that is called, one whose weight is read elsewhere, one in a branch, and a head."""

    def __init__(self, checkpointed: bool = False, detached: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.called, self.read, self.branch = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 2)
        self.checkpointed, self.detached, self.take = checkpointed, detached, True

    def body(self, x: Tensor) -> Tensor:
        x = product(self.read, self.called(x).tanh())
        return self.branch(x) if self.take else x

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        y = checkpoint(self.body, x, use_reentrant=False) if self.checkpointed else self.body(x)
        y = self.head(y.detach() if self.detached else y)
        return {"loss": y.square().mean(), "logits": y}


CONFIG = {"block_size": 4, "target_modules": ["called", "read", "branch"], "modules_to_save": ["head"]}


def made(**kwargs: bool) -> nn.Module:
    return get_peft_model(Net(**kwargs), structune.c3a(**CONFIG)).train()


def steps(model: nn.Module, count: int = 1, optimizer: torch.optim.Optimizer | None = None) -> list[str]:
    """What is warned of in so many steps."""
    optimizer = optimizer or torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(count):
            model(torch.randn(3, 8))["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
    return [str(warning.message) for warning in caught if "no gradient so far" in str(warning.message)]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_named_once_after_the_first_step(checkpointed) -> None:
    model = made(checkpointed=checkpointed)
    (said,) = steps(model, 3)
    assert said.startswith("1 of 3 adapters have got no gradient so far, after the first step: read. ")
    assert "exclude_modules" in said
    assert not steps(model, 2)


def test_a_branch_not_taken_is_named_too_as_it_may_be_taken_later() -> None:
    model = made()
    model.base_model.model.take = False
    (said,) = steps(model)
    assert "2 of 3 adapters have got no gradient so far, after the first step: read, branch. " in said
    assert "a branch that was not taken" in said


def test_all_of_them_where_only_the_head_learns() -> None:
    (said,) = steps(made(detached=True))
    assert "3 of 3 adapters" in said


def test_without_a_wrapper() -> None:
    model = inject_adapter_in_model(structune.c3a(**CONFIG), Net()).train()
    (said,) = steps(model)
    assert "after the first step: read. " in said


def test_not_where_all_learn_or_nothing_is_to_be_learned() -> None:
    config = structune.c3a(block_size=4, target_modules=["called", "branch"])
    assert not steps(get_peft_model(Net(), config).train(), 2)
    model = made()
    model.base_model.merge_adapter()
    assert not steps(model)
    model.unmerge_adapter()
    layers = [module for module in model.modules() if isinstance(module, StructuneLayer)]
    for enabled in (False, True):
        for layer in layers:
            layer.enable_adapters(enabled)
        assert enabled or not steps(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()  # before any gradient
        torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1).step()
    assert len(steps(model)) == 1


def test_all_of_an_optimizers_own() -> None:
    """Nothing in it learns: that may be a step before the first gradient, so a few are waited for."""
    model = made()
    model.base_model.model.take = False
    named = dict(model.named_parameters())
    idle = [p for name, p in named.items() if p.requires_grad and (".read." in name or ".branch." in name)]
    others = [p for p in named.values() if p.requires_grad and all(p is not one for one in idle)]
    own = torch.optim.SGD(idle, lr=0.1)
    assert not steps(model, 1, torch.optim.SGD(others, lr=0.1))
    assert not steps(model, 2, own)
    (said,) = steps(model, 3, own)
    assert "2 of 2 adapters have got no gradient so far, after 3 steps: read, branch. " in said
    assert not steps(model, 4, own)


def test_in_evaluation_mode() -> None:
    (said,) = steps(made().eval())
    assert "1 of 3 adapters have got no gradient so far, after the first step: read. " in said


def test_gradients_of_zeros_are_none() -> None:
    model = made()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(5):
            model(torch.randn(3, 8))["loss"].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            assert len(caught) == (step >= 2)
    assert "1 of 3 adapters have got no gradient so far, after 3 steps: read. " in str(caught[0].message)


@pytest.mark.parametrize("zeros", [False, True])
def test_not_where_the_first_step_is_skipped_or_starts_at_a_head_of_zeros(zeros) -> None:
    model = get_peft_model(Net(), structune.c3a(**{**CONFIG, "target_modules": ["called", "branch"]})).train()
    head = model.base_model.model.head.modules_to_save["default"]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(1)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    if zeros:
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        optimizer.step()
    assert not steps(model, 4, optimizer)
    assert head.weight.any()


def test_not_where_an_optimizer_takes_gradients_away_in_its_step() -> None:
    class Taking(torch.optim.Optimizer):
        def step(self, closure: None = None) -> None:
            for parameter in self.param_groups[0]["params"]:
                if parameter.grad is not None:
                    self.state[parameter]["sum"] = parameter.grad.square()
                    parameter.data -= 0.1 * parameter.grad
            self.zero_grad()

    model = made()
    (said,) = steps(model, 4, Taking([p for p in model.parameters() if p.requires_grad], {}))
    assert "1 of 3 adapters have got no gradient so far, after the first step: read. " in said


def test_an_inactive_adapter_is_looked_at_when_it_is_trained() -> None:
    model = made()
    model.add_adapter("second", structune.c3a(block_size=4, target_modules=["read", "called"]))
    assert "1 of 3 adapters" in steps(model)[0]
    model.set_adapter("second")
    assert "1 of 2 adapters" in steps(model)[0]


def test_attention_and_its_output() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)
            self.called = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"loss": self.called(x).square().mean()}

    config = structune.c3a(block_size=4, target_modules=["attention", "called"])
    (said,) = steps(get_peft_model(Unused(), config).train())
    assert "2 of 3 adapters" in said
    assert "attention, attention.base_layer.out_proj" in said


def test_under_trainer(tmp_path) -> None:
    arguments = TrainingArguments(
        tmp_path, max_steps=2, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    data = [{"x": torch.randn(8), "labels": 0} for _ in range(16)]
    with pytest.warns(UserWarning, match="1 of 3 adapters have got no gradient so far") as caught:
        Trainer(made(), arguments, train_dataset=data).train()
    assert sum("no gradient so far" in str(warning.message) for warning in caught) == 1


def test_under_ddp(tmp_path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        (said,) = steps(DistributedDataParallel(made(), find_unused_parameters=True))
        assert "1 of 3 adapters" in said
    finally:
        dist.destroy_process_group()


def test_a_compiled_step_is_left_alone() -> None:
    model = made()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    torch._dynamo.reset()
    step = torch.compile(optimizer.step, backend="eager")
    pool = model.base_model.model.called.structune_delta["default"].pool
    for _ in range(2):
        model(torch.randn(3, 8))["loss"].backward()
        before = pool.clone()
        step()
        assert not torch.equal(pool, before)
