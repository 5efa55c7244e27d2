"""What a class counts for in training, and how sure a model is to become: weights of classes and label smoothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from structune.errors import UserError
from structune.section import closest


def _checked(value: Any) -> Any:
    """The setting, if it is one; names of classes that YAML reads as whole numbers are texts."""
    if value is None or value == "balanced":
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{value!r} is neither balanced nor a weight for each class, as in {{yes: 3, no: 1}}")
    named = {str(key) if type(key) is int else key: weight for key, weight in value.items()}
    for name, weight in named.items():
        if not isinstance(name, str):
            raise ValueError(f"{name!r} is no name of a class; put it in quotes")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight <= _LARGEST:
            raise ValueError(f"the weight of {name!r} is {weight!r}; give a number above 0")
    return {name: float(weight) for name, weight in named.items()}


_LARGEST = 1e6  # more than any share of examples asks for

ClassWeights = Annotated[Literal["balanced"] | dict[str, float] | None, BeforeValidator(_checked)]
"""`balanced`, a weight for each class that is not to count 1, or nothing."""


def class_weights(
    given: Literal["balanced"] | Mapping[str, float], labels: Sequence[str], names: Sequence[str]
) -> list[float]:
    """The weight of each class: as given, else 1; `balanced`: examples / (classes · examples of the class).

    Raises:
        UserError: a class is named that there is not.
    """
    if given == "balanced":
        counts = Counter(labels)
        return [len(labels) / (len(names) * counts[name]) for name in names]
    assert isinstance(given, Mapping)  # the other kind, as the section has checked
    if unknown := [name for name in given if name not in names]:
        raise UserError(
            f"task.class_weights: there is no class {unknown[0]!r}{closest(unknown[0], list(names))}; the data have "
            f"{', '.join(map(repr, list(names)[:20]))}"
        )
    return [float(given.get(name, 1.0)) for name in names]


class Weighted:
    """Batches to be learned from: with the weights of all classes for each example (examples, classes).

    Args:
        collate: what puts examples together.
        weights: of the classes.
    """

    def __init__(self, collate: Callable[[list[Mapping[str, Any]]], dict[str, Any]], weights: Sequence[float]) -> None:
        self.collate = collate
        self.weights = list(weights)

    def __call__(self, examples: list[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        batch = dict(self.collate(examples))
        batch["class_weights"] = torch.tensor([self.weights] * len(examples))
        return batch

    def __getattr__(self, name: str) -> Any:
        """Whatever else the collator can, such as to begin an epoch."""
        if name in ("collate", "weights"):  # not there yet, while this is unpickled
            raise AttributeError(name)
        return getattr(self.collate, name)
