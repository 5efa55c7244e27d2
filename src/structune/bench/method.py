"""The methods a suite can name: `benchmarks/methods.yaml` defines them, this file applies them to a model."""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from pydantic import ValidationError, model_validator
from torch import nn

import structune  # noqa: F401  (registers its type with PEFT)
from structune.bench.folder import benchmarks_folder
from structune.errors import UserError
from structune.finetune.recipe import yaml_file
from structune.section import Section, closest, explain

FROZEN = "frozen"
"""The method every other one is compared with."""

_DIVISION = re.compile(r"d(?:/([1-9]\d*))?")


class Definition(Section):
    """What a method is: a part of the model itself that trains, or an adapter.

    `trains`: which of the model's own numbers.
    `peft`: a PEFT type, such as `LORA` or `STRUCTUNE`, with
    `options`: fields of its configuration. A block size may be `d`, the greatest common divisor of the adapted
    layers' sizes, a part of it such as `d/6`, or alternatives such as `d/6 or d/8`: the first that is whole.
    """

    trains: Literal["nothing", "biases", "all"] = "nothing"
    peft: str | None = None
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _known(self) -> Definition:
        if self.peft is None and self.options:
            raise ValueError("options are those of an adapter: name its type with peft")
        if self.peft is not None and self.trains != "nothing":
            raise ValueError("give trains or peft, not both: an adapter leaves the model frozen")
        if self.peft is not None and self.peft not in PEFT_TYPE_TO_CONFIG_MAPPING:
            types = [str(key.value) for key in PEFT_TYPE_TO_CONFIG_MAPPING]
            raise ValueError(f"peft = {self.peft!r}: unknown to PEFT{closest(self.peft, types)}")
        return self


@dataclass(frozen=True)
class Method:
    """A method as a row of a benchmark.

    Attributes:
        name: in the registry.
        definition: what it is.
        algorithm: of the structured product, in place of `auto`.
        compiled: whether the layer goes through `torch.compile(fullgraph=True)`.
    """

    name: str
    definition: Definition
    algorithm: str | None = None
    compiled: bool = False

    @property
    def label(self) -> str:
        """For tables: `toeplitz-k4`, `toeplitz-k4@fft`, `toeplitz-k4 compiled`."""
        return self.name + (f"@{self.algorithm}" if self.algorithm else "") + (" compiled" if self.compiled else "")

    @property
    def structured(self) -> bool:
        """Whether it is one of structune's."""
        return self.definition.peft == "STRUCTUNE"

    @property
    def kind(self) -> str:
        """The name under which `structune.figure_style` knows its colour and marker."""
        if self.structured and not self.name.startswith("c3a"):
            family = self.definition.options.get("structure", "circulant").replace("_", "-")
            return f"{'hydra' if 'pool_size' in self.definition.options else 'structune'}-{family}"
        return "peft-c3a" if self.name.startswith("peft-c3a") else self.name.partition("-")[0]

    def config(self, features: Sequence[tuple[int, int]], targets: list[str]) -> peft.PeftConfig:
        """PEFT's configuration for layers of these (out, in).

        Raises:
            UserError: an option does not exist.
            ValueError: an option does not fit.
        """
        definition = self.definition
        assert definition.peft is not None
        options = dict(definition.options)
        if isinstance(size := options.get("block_size"), str):
            options["block_size"] = _block_size(size, features)
        if self.algorithm:
            options["algorithm"] = self.algorithm
        make: Any = PEFT_TYPE_TO_CONFIG_MAPPING[definition.peft]  # type: ignore[index]
        try:
            config: peft.PeftConfig = make(target_modules=targets, **options)
        except TypeError as error:
            raise UserError(f"method {self.label}: {definition.peft} takes no such option ({error})") from None
        return config

    def apply(self, base: nn.Module, features: Sequence[tuple[int, int]], targets: list[str]) -> nn.Module:
        """A copy of `base` with the right numbers set to train.

        Frozen weights are not copied: all methods read the same ones. Adapters are moved off their start by noise of
        deviation 0.02, so that no product is with zeros alone.

        Raises:
            ValueError: the method does not fit this model.
        """
        model = _sharing_copy(base)
        if self.definition.peft is None:
            for name, parameter in model.named_parameters():
                if self.definition.trains == "all" or (self.definition.trains == "biases" and name.endswith("bias")):
                    parameter.data = parameter.data.clone()
                    parameter.requires_grad_(True)
            return model
        config = self.config(features, targets)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of optional kernels that are not there
            adapted: nn.Module = peft.get_peft_model(model, config)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.02 * torch.randn_like(parameter))
        return model  # its layers are replaced; PEFT's wrapper around it costs time and is the same for all


class Methods(Mapping[str, Method]):
    """The registry: method by name, and groups of names.

    Args:
        define: further definitions by name, a suite's own.

    Raises:
        UserError: `benchmarks/methods.yaml` is missing or wrong.
    """

    def __init__(self, define: Mapping[str, Definition] | None = None) -> None:
        path = benchmarks_folder() / "methods.yaml"
        self._methods: dict[str, Method] = {}
        self.groups: dict[str, list[str]] = {}
        for group, definitions in yaml_file.read(path, "suite", "'baselines:'").items():
            self.groups[group] = list(definitions)
            for name, content in definitions.items():
                try:
                    self._methods[name] = Method(name, Definition.model_validate(content))
                except ValidationError as error:
                    raise explain(error, Definition, f"{path.name}: {name}") from None
        self._methods |= {name: Method(name, definition) for name, definition in (define or {}).items()}

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]

    def __iter__(self) -> Any:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)

    def select(self, names: Sequence[str], algorithms: Sequence[str] = (), compiled: bool = False) -> list[Method]:
        """Methods by name, `name@algorithm` or the name of a group; always with `FROZEN`, which comes first.

        Args:
            names: in the order of the rows.
            algorithms: each structured method once with each of these that can carry out its product.
            compiled: each structured method once more, compiled.

        Raises:
            UserError: a name is unknown, or given twice.
        """
        chosen = [self[FROZEN]]
        for name in names:
            for member in self.groups.get(name, [name]):
                method = self._named(member)
                if method.label != FROZEN:
                    chosen.append(method)
        labels = [method.label for method in chosen]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise UserError(f"methods: {', '.join(twice)} given twice; name each method once")
        rows = []
        for method in chosen:
            variants = [method]
            if algorithms and method.structured and method.algorithm is None:
                variants = [replace(method, algorithm=name) for name in algorithms if _able(method, name)]
            rows += variants
            if compiled and method.structured:
                rows += [replace(variant, compiled=True) for variant in variants]
        return rows

    def _named(self, text: str) -> Method:
        name, _, algorithm = text.partition("@")
        if name not in self:
            known = [*self.groups, *self]
            raise UserError(f"method {name!r}: unknown{closest(name, known)}; known: {', '.join(known)}")
        method = self[name]
        if not algorithm:
            return method
        if not method.structured:
            raise UserError(f"method {text!r}: {name} has no choice of algorithm; write {name!r}")
        chosen = replace(method, algorithm=algorithm)
        try:
            chosen.config([(64, 64)], ["layer"])
        except ValueError as error:
            raise UserError(f"method {text!r}: {error}") from None
        return chosen


def _able(method: Method, algorithm: str) -> bool:
    if algorithm == "auto":
        return True
    try:
        replace(method, algorithm=algorithm).config([(64, 64)], ["layer"])
    except UserError:
        raise
    except ValueError:
        return False
    return True


def _block_size(text: str, features: Sequence[tuple[int, int]]) -> int:
    width = math.gcd(*(size for pair in features for size in pair))
    for part in text.split(" or "):
        match = _DIVISION.fullmatch(part.strip())
        if match is None:
            raise UserError(f"block_size = {text!r}: write a number, d, d/6, or d/6 or d/8")
        divisor = int(match[1] or 1)
        if width % divisor == 0:
            return width // divisor
    raise ValueError(f"block_size = {text!r}: none is whole for d = {width}, the common divisor of the layers' sizes")


def _sharing_copy(base: nn.Module) -> nn.Module:
    """A copy with frozen parameters of its own that lie on the same storages."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.data, requires_grad=False) for p in base.parameters()}
    return copy.deepcopy(base, memo)
