"""The pretrained head of a classifier, put to use for other classes without training it.

Their logits are M (W h + b) = (M W) h + M b, with what the head reads, h, and a map M (`parts.label_matching`). So the
matched model is an ordinary one, whose head has the rows M W: of `match`, the matched rows as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from structune.errors import UserError
from structune.tasks.parts.matching.matching import Counts, How, Map, Matching, check_enough
from structune.tasks.task import Base

Collator = Callable[[list[Mapping[str, Any]]], dict[str, Tensor]]

_BATCH = 64  # examples that are looked at at once
_TOLERANCE = 1e-3  # of the largest logit: by how much M z may differ from the logits of the matched head


@dataclass(frozen=True)
class SourceHead:
    """The layers of a pretrained head, as they were.

    Attributes:
        layers: weight and bias (None: it has none) of each layer that gives logits, by its name in the model.
        names: of the outputs.
    """

    layers: Mapping[str, tuple[Tensor, Tensor | None]]
    names: Sequence[str]

    @classmethod
    def of(cls, model: Any, model_name: str) -> SourceHead:
        """That of a classifier of transformers.

        Raises:
            UserError: no layer gives its logits as a linear or 1×1 convolution does.
        """
        config = model.config
        names = [str(config.id2label.get(number, number)) for number in range(config.num_labels)]
        fitting = {name: layer for name, layer in model.named_modules() if _gives(layer, len(names))}
        inside = f"{model.base_model_prefix}."
        beside = {name: layer for name, layer in fitting.items() if not name.startswith(inside)}
        layers = beside or dict(list(fitting.items())[-1:])
        if not layers:
            raise UserError(
                f"model.name = {model_name!r}: no linear layer of {type(model).__name__} gives its {len(names)} "
                f"outputs, so they cannot be matched; use task.head: new"
            )
        return cls({name: (_kept(layer.weight), _kept(layer.bias)) for name, layer in layers.items()}, names)

    def put(self, model: nn.Module, weights: Map | None) -> None:
        """Give the model's head the rows M W, frozen; None: the rows as they were."""
        for name, (weight, bias) in self.layers.items():
            layer: Any = model.get_submodule(name)
            rows = weight if weights is None else _mixed(weights, weight)
            _set(layer, "weight", rows)
            if bias is not None:
                _set(layer, "bias", bias if weights is None else _mixed(weights, bias))
            setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(rows))

    @contextmanager
    def back(self, model: nn.Module, weights: Map) -> Iterator[None]:
        """The model with its pretrained head for a while; M is put back after it."""
        self.put(model, None)
        try:
            yield
        finally:
            self.put(model, weights)


@dataclass(frozen=True, kw_only=True)
class MatchedBase(Base):
    """A model whose pretrained head answers for other classes.

    Attributes:
        source: its head as it was.
        targets: names of the classes.
        name: of the model, for messages.
    """

    source: SourceHead
    targets: Sequence[str]
    name: str

    @classmethod
    def of(cls, base: Base, name: str, targets: Sequence[str], how: How) -> MatchedBase:
        """The base of a classifier with its pretrained head, which is still as it was.

        Raises:
            UserError: there are too few outputs, or no layer gives them.
        """
        source = SourceHead.of(base.model, name)
        if how == "match":
            check_enough(len(targets), len(source.names))
        frozen = list(source.layers)
        return cls(base.model, base.processor, frozen=frozen, source=source, targets=targets, name=name)

    def find(self, how: How, train: Sequence[Mapping[str, Any]], collate: Collator, device: str) -> Matching:
        """Let the frozen model, whose head is still as it was, answer for the examples to train on, and match.

        Raises:
            UserError: its logits are not finite, or a map cannot be applied to them.
        """
        home = next(self.model.parameters()).device
        self.model.to(device)
        try:
            counts = self.count(self.model, train, collate)
            matching = Matching.of(how, counts, self.source.names)
            _check(self, matching, collate([train[row] for row in range(min(_BATCH, len(train)))]))
        finally:
            self.model.to(home)
        return matching

    def count(self, model: nn.Module, train: Sequence[Mapping[str, Any]], collate: Collator) -> Counts:
        """The answers of the model, adapted or not, whose head has to be as it was."""
        return count_answers(model, train, collate, len(self.targets), len(self.source.names))

    def use(self, matching: Matching) -> None:
        """Make the model an ordinary classifier of the targets, which answers by this map."""
        self.source.put(self.model, matching.weights)
        self.prepared.clear()
        self.prepared.update(matching.to_json())
        config = self.model.config
        config.id2label = dict(enumerate(self.targets))
        config.label2id = {name: number for number, name in enumerate(self.targets)}
        config.problem_type = "single_label_classification"
        if hasattr(self.model, "num_labels"):
            self.model.num_labels = len(self.targets)


@torch.no_grad()
def count_answers(
    model: nn.Module, examples: Sequence[Mapping[str, Any]], collate: Collator, targets: int, sources: int
) -> Counts:
    """N (T, S): how many examples of each target the model answers with each of its outputs, in evaluation mode.

    It draws no random numbers.

    Raises:
        UserError: an answer is not a number.
    """
    counts = np.zeros((targets, sources), np.int64)
    with _in_evaluation(model):
        for start in range(0, len(examples), _BATCH):
            batch = collate([examples[row] for row in range(start, min(start + _BATCH, len(examples)))])
            labels = batch.pop("labels")
            logits = _logits(model, batch)
            if not logits.isfinite().all():
                raise UserError("task.head: the pretrained model's outputs are not finite: its numbers are broken")
            np.add.at(counts, (labels.cpu().numpy(), logits.argmax(-1).numpy()), 1)
    return counts


class Rematching(TrainerCallback):
    """Matches anew at the start of every epoch but the first, with the model as it is then (arXiv 2211.11635).

    What was matched, and when, stands in `base.prepared`, which checkpoints hold: training that is resumed within an
    epoch does not match again.
    """

    def __init__(self, base: MatchedBase, collate: Collator) -> None:
        self.base, self.collate = base, collate

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        now, epoch = Matching.from_json(self.base.prepared), int(state.epoch or 0)
        if epoch == now.epoch:
            return
        with self.base.source.back(self.base.model, now.weights):
            counts = self.base.count(model, train_dataloader.dataset, self.collate)
        self.base.use(Matching.of(now.how, counts, self.base.source.names, epoch))


def loading_lines(base: MatchedBase, loaded: str = "base") -> str:
    """Python lines that give a loaded model the matched head, without structune; they read the file beside the adapter.

    Args:
        base: of the run.
        loaded: the variable that holds the model.
    """
    lines = """\
import json
from pathlib import Path

found = json.loads(Path("path/to/this/folder/prepared.json").read_text(encoding="utf-8"))
weights = torch.zeros(len(labels), found["sources"])  # how much each pretrained output says for each label
for row, pairs in zip(weights, found["weights"]):
    for source, weight in pairs:
        row[source] = weight"""
    for name, (weight, bias) in base.source.layers.items():
        rows = "head.weight" if weight.dim() == 2 else "head.weight[:, :, 0, 0]"
        tail = "" if weight.dim() == 2 else "[:, :, None, None]"
        lines += (
            f"\nhead = {loaded}.get_submodule({name!r})\nhead.weight = torch.nn.Parameter((weights @ {rows}){tail})"
        )
        if bias is not None:
            lines += "\nhead.bias = torch.nn.Parameter(weights @ head.bias)"
    return f"{lines}\n"


def _gives(layer: nn.Module, outputs: int) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels == outputs and layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear) and layer.out_features == outputs


def _kept(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().clone()


def _mixed(weights: Map, rows: Tensor) -> Tensor:
    """M R for R (S, …), added up in fp64; a row of M that is a single one copies."""
    mixture = torch.from_numpy(weights).to(rows.device)
    return torch.tensordot(mixture, rows.double(), 1).to(rows.dtype)


def _set(layer: nn.Module, name: str, values: Tensor) -> None:
    before = getattr(layer, name)
    setattr(layer, name, nn.Parameter(values.to(before.device, copy=True), requires_grad=False))


@torch.no_grad()
def _check(base: MatchedBase, matching: Matching, batch: dict[str, Tensor]) -> None:
    """Raises `UserError` unless a head of the rows M W gives the logits M z."""
    batch.pop("labels")
    with _in_evaluation(base.model):
        expected = _logits(base.model, batch) @ torch.from_numpy(matching.weights.T)
        base.source.put(base.model, matching.weights)
        try:
            found = _logits(base.model, batch)
        finally:
            base.source.put(base.model, None)
    if found.shape != expected.shape or not (found - expected).abs().max() <= _TOLERANCE * expected.abs().max():
        raise UserError(
            f"model.name = {base.name!r}: the outputs of {type(base.model).__name__} are not those of "
            f"{', '.join(base.source.layers)} alone, so they cannot be matched; use task.head: new"
        )


def _logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """In fp64 on the CPU."""
    device = next(model.parameters()).device
    logits: Tensor = model(**{key: value.to(device) for key, value in batch.items()}).logits
    return logits.cpu().double()


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; each module has its own mode again after it, frozen batch norms among them."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
