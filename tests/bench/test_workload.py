"""What is timed computes what it should: the right numbers train, the base stays, nothing is skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from structune.bench.method import Method, Methods
from structune.bench.suite import ModelCase, load_suite
from structune.bench.workload import Workload, workload
from structune.delta import StructuredDelta

SuiteFile = Callable[..., Path]
METHODS = Methods()
MODEL = ModelCase(
    label="tiny", targets=["query", "value"], batch=2, tokens=3, hidden=32, heads=2, intermediate=64, layers=2
)


@pytest.fixture
def bed(suite_file: SuiteFile) -> Workload:
    cases = [{"weight": [384, 384], "tokens": 7}]
    suite = load_suite(suite_file(cases=cases, targets=None))
    return workload(suite, suite.all_cases[0], "cpu")


@pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))
def test_every_method_changes_the_layer_and_gets_gradients(method: Method, bed: Workload) -> None:
    (x,) = bed.inputs
    frozen = torch.nn.functional.linear(x, bed.base.layer.weight, bed.base.layer.bias)
    subject = bed.subject(method)
    y = subject.forward()
    assert torch.allclose(y, frozen, atol=1e-5) == (method.definition.peft is None)
    assert subject.backward is not None
    subject.backward(y)
    trained = {name: p for name, p in subject.model.named_parameters() if p.requires_grad}
    assert subject.trainable == sum(p.numel() for p in trained.values())
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        assert float(parameter.grad.norm()) > 0, name
    assert x.grad is not None
    assert float(x.grad.norm()) > 0
    expected = {"nothing": set(), "biases": {"bias"}, "all": {"weight", "bias"}}
    if method.definition.peft is None:
        assert set(trained) == expected[method.definition.trains]
    else:
        assert not {"weight", "bias"} & set(trained)


def test_frozen_weights_are_shared_and_trained_ones_are_not(bed: Workload) -> None:
    address = bed.base.layer.weight.data_ptr()
    assert bed.adapt(METHODS["frozen"]).layer.weight.data_ptr() == address
    assert bed.adapt(METHODS["toeplitz-k4"]).layer.base_layer.weight.data_ptr() == address
    full = bed.adapt(METHODS["full"]).layer.weight
    assert full.data_ptr() != address
    assert torch.equal(full, bed.base.layer.weight)


def test_gradients_do_not_add_up_over_steps(bed: Workload) -> None:
    subject = bed.subject(METHODS["lora-r8"])
    subject.step()
    first = bed.inputs[0].grad.clone()
    subject.step()
    torch.testing.assert_close(bed.inputs[0].grad, first)


def test_inference_builds_no_graph(suite_file: SuiteFile) -> None:
    suite = load_suite(suite_file(workload="inference", targets=None))
    bed = workload(suite, suite.all_cases[0], "cpu")
    subject = bed.subject(METHODS["toeplitz-k4"])
    y = subject.forward()
    assert (subject.backward, y.requires_grad, subject.model.training) == (None, False, False)
    dense = subject.model.get_delta_weight("default") + subject.model.base_layer.weight
    expected = torch.nn.functional.linear(bed.inputs[0], dense, subject.model.base_layer.bias)
    torch.testing.assert_close(y, expected.detach(), rtol=1e-4, atol=1e-5)


def model_bed(targets: list[str]) -> Workload:
    suite = load_suite("model", quick=True)
    return workload(suite, MODEL.model_copy(update={"targets": targets}), "cpu")


@pytest.mark.parametrize("name", ["frozen", "full", "bitfit", "lora-r8", "hankel-k4", "peft-c3a-d"])
def test_a_step_of_the_model_trains_what_it_should_and_leaves_the_base(name: str) -> None:
    bed = model_bed(["query", "value"])
    base = {key: tensor.clone() for key, tensor in bed.base.state_dict().items()}
    subject = bed.subject(METHODS[name])
    before = {key: p.detach().clone() for key, p in subject.model.named_parameters()}
    subject.step()
    for key, parameter in subject.model.named_parameters():
        unused = "word_embeddings" in key  # they are the input
        assert torch.equal(parameter, before[key]) == (not parameter.requires_grad or unused), key
    assert bed.inputs[0].grad is not None
    assert all(torch.equal(tensor, base[key]) for key, tensor in bed.base.state_dict().items())


def test_targets_of_the_model() -> None:
    assert model_bed(["query", "value"]).features == [(32, 32)] * 4
    assert sorted(set(model_bed(["all-linear"]).features)) == [(32, 32), (32, 64), (64, 32)]
    assert len(model_bed(["all-linear"]).features) == 12
    subject = model_bed(["all-linear"]).subject(METHODS["lora-r8"])
    assert subject.trainable == 2 * 8 * (4 * (32 + 32) + 2 * (32 + 64))


def test_algorithms_of_all_layers_are_named_once_for_the_tokens_and_weights_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(delta: StructuredDelta, x: torch.Tensor, weight: torch.Tensor | None = None) -> str:
        assert weight is not None
        assert tuple(weight.shape) == (delta.grid.out_features, x.shape[1])
        return f"{x.shape[0]} of {x.shape[1]}"

    monkeypatch.setattr(StructuredDelta, "resolved_algorithm", answer)
    bed = model_bed(["all-linear"])
    assert bed.subject(METHODS["hankel-k4"]).algorithm == "6 of 32, 6 of 64"
    assert bed.subject(METHODS["lora-r8"]).algorithm is None
