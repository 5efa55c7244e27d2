"""What is timed: a layer, a layer without gradients, a training step. Each gives methods the same base and inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaModel

from structune.bench.compiled import compiled
from structune.bench.method import Method
from structune.bench.suite import Case, LayerCase, ModelCase, Suite
from structune.peft.base_layers import StructuneLinear


@dataclass(frozen=True)
class Subject:
    """One method, ready to be measured.

    Attributes:
        forward: the forward pass, to the tensor from which backward starts.
        backward: everything after it; None where there is none.
        model: the adapted module.
        algorithm: of its structured products, where it has any.
        trainable: how many numbers train.
    """

    forward: Callable[[], Tensor]
    backward: Callable[[Tensor], None] | None
    model: nn.Module
    algorithm: str | None
    trainable: int

    def step(self) -> None:
        """What is timed."""
        end = self.forward()
        if self.backward is not None:
            self.backward(end)


class Workload(ABC):
    """The base of one case, and its inputs.

    Args:
        case: what is adapted.
        device: `cpu` or `cuda`.
        dtype: of weights and inputs; adapters choose theirs (PEFT's default is fp32).
        seed: of weights, inputs and adapters.
    """

    inputs: tuple[Tensor, ...]

    def __init__(self, case: Any, device: str, dtype: torch.dtype, seed: int) -> None:
        self.case = case
        self.device = device
        self.dtype = dtype
        torch.manual_seed(seed)
        self.base = self.make_base().to(device, dtype)
        self.targets = self.target_names()
        layers = [
            module
            for name, module in self.base.named_modules()
            if isinstance(module, nn.Linear) and any(f".{name}".endswith(f".{target}") for target in self.targets)
        ]
        self.features = [(layer.out_features, layer.in_features) for layer in layers]
        self.weight_bytes = max(layer.weight.nbytes for layer in layers)

    @abstractmethod
    def make_base(self) -> nn.Module:
        """The module before any method, on the CPU in fp32."""

    @abstractmethod
    def target_names(self) -> list[str]:
        """Names of the adapted layers."""

    @abstractmethod
    def subject(self, method: Method) -> Subject:
        """The method, ready to be measured.

        Raises:
            ValueError: it does not fit this case.
        """

    @property
    def input_bytes(self) -> int:
        """Bytes of the inputs."""
        return sum(tensor.nbytes for tensor in self.inputs)

    def adapt(self, method: Method) -> nn.Module:
        """The method applied to the base."""
        return method.apply(self.base, self.features, self.targets)


class _Host(nn.Module):
    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)


class LayerWorkload(Workload):
    """A linear layer with a bias, forward and backward; the gradient of the input is wanted, as inside a model."""

    case: LayerCase
    gradients: ClassVar[bool] = True

    def __init__(self, case: LayerCase, device: str, dtype: torch.dtype, seed: int) -> None:
        super().__init__(case, device, dtype, seed)
        out_features, in_features = case.weight
        x = torch.randn(1, case.tokens, in_features).to(device, dtype).requires_grad_(self.gradients)
        self.inputs = (x,)
        self.gradient = torch.randn(1, case.tokens, out_features).to(device, dtype)

    def make_base(self) -> nn.Module:
        out_features, in_features = self.case.weight
        return _Host(out_features, in_features)

    def target_names(self) -> list[str]:
        return ["layer"]

    def subject(self, method: Method) -> Subject:
        layer: Any = self.adapt(method).layer
        layer.train(self.gradients)
        call = compiled(layer) if method.compiled else layer
        (x,) = self.inputs
        trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]

        def forward() -> Tensor:
            for tensor in (x, *trained):
                tensor.grad = None
            y: Tensor = call(x)
            return y

        return Subject(
            forward,
            lambda y: torch.autograd.backward(y, self.gradient),
            layer,
            _algorithm(layer, self.case.tokens, x),
            sum(parameter.numel() for parameter in trained),
        )


class InferenceWorkload(LayerWorkload):
    """A linear layer in evaluation mode without gradients, its adapter not merged."""

    gradients = False

    def subject(self, method: Method) -> Subject:
        ready = super().subject(method)

        def forward() -> Tensor:
            with torch.no_grad():
                return ready.forward()

        with torch.no_grad():
            algorithm = _algorithm(ready.model, self.case.tokens, self.inputs[0])
        return Subject(forward, None, ready.model, algorithm, ready.trainable)


class ModelWorkload(Workload):
    """A RoBERTa encoder in training mode without dropout: forward, loss, backward, AdamW over what trains.

    Its inputs are embeddings that want a gradient, so that the frozen model, too, goes backward through every layer.
    """

    case: ModelCase

    def __init__(self, case: ModelCase, device: str, dtype: torch.dtype, seed: int) -> None:
        super().__init__(case, device, dtype, seed)
        shape = (case.batch, case.tokens, case.hidden)
        self.inputs = (torch.randn(shape).to(device, dtype).requires_grad_(),)
        self.goal = torch.randn(shape).to(device, dtype)

    def make_base(self) -> nn.Module:
        case = self.case
        return RobertaModel(
            RobertaConfig(
                vocab_size=8, hidden_size=case.hidden, num_hidden_layers=case.layers, num_attention_heads=case.heads,
                intermediate_size=case.intermediate, max_position_embeddings=case.tokens + 2,
                hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            ),
            add_pooling_layer=False,
        )  # fmt: skip

    def target_names(self) -> list[str]:
        if self.case.targets == ["all-linear"]:
            return ["query", "key", "value", "intermediate.dense", "output.dense"]  # both layers of that last name
        return self.case.targets

    def subject(self, method: Method) -> Subject:
        model: Any = self.adapt(method).train()
        call = compiled(model) if method.compiled else model
        (embeddings,) = self.inputs
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-5) if trained else None

        def forward() -> Tensor:
            for tensor in (embeddings, *trained):
                tensor.grad = None
            hidden = call(inputs_embeds=embeddings).last_hidden_state
            return nn.functional.mse_loss(hidden, self.goal)

        def backward(loss: Tensor) -> None:
            torch.autograd.backward(loss)
            if optimizer is not None:
                optimizer.step()

        tokens = self.case.batch * self.case.tokens
        count = sum(parameter.numel() for parameter in trained)
        return Subject(forward, backward, model, _algorithm(model, tokens, embeddings), count)


_WORKLOADS: dict[str, type[Workload]] = {"layer": LayerWorkload, "inference": InferenceWorkload, "model": ModelWorkload}


def workload(suite: Suite, case: Case, device: str) -> Workload:
    """The workload of a suite's case on a kind of device."""
    dtype = getattr(torch, suite.dtype(case, device))
    return _WORKLOADS[suite.workload](case, device, dtype, suite.seed)


def _algorithm(model: nn.Module, tokens: int, like: Tensor) -> str | None:
    """What the structured layers in a model choose for so many tokens, each name once."""
    names: dict[str, None] = {}
    for layer in model.modules():
        if isinstance(layer, StructuneLinear):
            frozen = layer.frozen_weight()
            x = like.new_empty((tokens, layer.features()[1]), requires_grad=like.requires_grad)
            deltas: list[Any] = list(layer.structune_delta.values())
            names |= {delta.resolved_algorithm(x, None if frozen is None else frozen[0]): None for delta in deltas}
    return ", ".join(names) or None
