"""A benchmark suite as data: what is measured, on what, and what is aimed at."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from structune.bench.folder import SUITES, benchmarks_folder
from structune.bench.method import Definition, Method, Methods
from structune.errors import UserError
from structune.finetune.recipe import yaml_file
from structune.section import Section, closest, explain

Count = Annotated[int, Field(ge=1)]
Dtype = Literal["float32", "float64", "bfloat16", "float16"]


class LayerCase(Section):
    """One linear layer.

    `weight`: its [out, in]; `tokens`: rows of its input; `dtype`: of both, in place of the suite's;
    `series`: which growing size of a growth figure it belongs to.
    """

    weight: Annotated[list[Count], Field(min_length=2, max_length=2)]
    tokens: Count
    dtype: Dtype | None = None
    series: Literal["width", "tokens"] | None = None

    @property
    def name(self) -> str:
        """For example `768x768, 4096 tokens`."""
        dtype = f", {self.dtype}" if self.dtype else ""
        return f"{self.weight[0]}x{self.weight[1]}, {self.tokens} token{'s' if self.tokens > 1 else ''}{dtype}"

    @property
    def size(self) -> int:
        """Numbers in weight, input and output: what memory grows with."""
        out_features, in_features = self.weight
        return out_features * in_features + self.tokens * (out_features + in_features)

    @property
    def work(self) -> float:
        """Multiplications of the frozen layer."""
        return float(self.weight[0] * self.weight[1] * self.tokens)


class ModelCase(Section):
    """A training step of a RoBERTa encoder with random weights.

    `label`: for tables; `targets`: names of the adapted layers; `batch` × `tokens` inputs; the rest: sizes.
    """

    label: str
    targets: list[str]
    batch: Count = 8
    tokens: Count = 128
    hidden: Count = 768
    heads: Count = 12
    intermediate: Count = 3072
    layers: Count = 4
    dtype: Dtype | None = None

    @property
    def name(self) -> str:
        """The label, and the dtype where it is not the suite's."""
        return self.label + (f", {self.dtype}" if self.dtype else "")

    @property
    def size(self) -> int:
        """Numbers in the weights and between the layers: what memory grows with."""
        weights = self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)
        return weights + self.layers * self.batch * self.tokens * (8 * self.hidden + 2 * self.intermediate)

    @property
    def work(self) -> float:
        """Multiplications of the frozen encoder."""
        return float(
            self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate) * self.batch * self.tokens
        )


Case = LayerCase | ModelCase


class Target(Section):
    """What methods should cost at most, in some cases.

    `methods`, `case`: names, with `*` for any text. `device`: where it counts; everywhere when left out.
    `time`: a ratio to the frozen layer, or a method that must not be faster, or several of both.
    `saved`: bytes saved for backward beyond the frozen layer: `nothing`, or one `input` x (and one percent).
    `peak`: transient bytes beyond the frozen layer: one `weight` matrix.
    """

    methods: list[str]
    case: str = "*"
    device: Literal["cpu", "cuda"] | None = None
    time: list[float | str] = []
    saved: Literal["nothing", "input"] | None = None
    peak: Literal["weight"] | None = None

    @field_validator("time", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]

    def applies(self, method: str, case: str, device: str) -> bool:
        """Whether it says something about this method in this case."""
        return (
            self.device in (None, device)
            and fnmatchcase(case, self.case)
            and any(fnmatchcase(method, pattern) for pattern in self.methods)
        )


class Suite(Section):
    """What every suite has.

    `title`: for pages and figures. `measure`: time, memory or both. `dtypes`: by kind of device. `rounds`:
    how often each method is timed; `warmup`: calls before. `least_ms`: a timing shorter than this repeats the
    call. `methods`: names from methods.yaml or `define`, groups, `name@algorithm`. `algorithms`,
    `compiled`: more rows for each structured method. `targets`: what is aimed at. `beside`: the method that is
    marked in figures. `memory_limit_gib`: a method whose peak would be above is left out of a case, with a note.
    """

    name: str
    title: str
    workload: Literal["layer", "inference", "model"]
    measure: list[Literal["time", "memory"]] = ["time", "memory"]
    dtypes: dict[Literal["cpu", "cuda"], Dtype] = {"cpu": "float32", "cuda": "bfloat16"}
    rounds: Count = 20
    warmup: Count = 3
    least_ms: Annotated[float, Field(ge=0)] = 20.0
    seed: Annotated[int, Field(ge=0)] = 0
    define: dict[str, Definition] = {}
    methods: Annotated[list[str], Field(min_length=1)]
    algorithms: list[str] = []
    compiled: bool = False
    targets: list[Target] = []
    beside: str = "lora-r8"
    memory_limit_gib: Annotated[float, Field(gt=0)] = 8.0

    @property
    def all_cases(self) -> Sequence[Case]:
        """The cases, of either kind."""
        cases: Sequence[Case] = self.cases  # type: ignore[attr-defined]
        return cases

    def rows(self) -> list[Method]:
        """The methods in the order of the rows. Raises `UserError` for an unknown name."""
        return Methods(self.define).select(self.methods, self.algorithms, self.compiled)

    def dtype(self, case: Case, device: str) -> str:
        """In which a case is measured on `cpu` or `cuda`."""
        return case.dtype or self.dtypes[device]  # type: ignore[index]


class LayerSuite(Suite):
    """Cases are layers: forward and backward (`layer`), or forward alone (`inference`)."""

    workload: Literal["layer", "inference"]
    cases: Annotated[list[LayerCase], Field(min_length=1)]


class ModelSuite(Suite):
    """Cases are encoders: whole training steps."""

    workload: Literal["model"]
    cases: Annotated[list[ModelCase], Field(min_length=1)]


def load_suite(name: str | Path, quick: bool = False) -> Suite:
    """A suite by name, or from a YAML file; `quick` puts its section `quick` in place of the values it names.

    Raises:
        UserError: no such suite, or a mistake in it; the message names the field, the value and the fix.
    """
    path = benchmarks_folder() / f"{name}.yaml" if str(name) in SUITES else Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = [str(suite) for suite in SUITES]
        raise UserError(
            f"suite {str(name)!r}: unknown{closest(str(name), known)}; known: {', '.join(known)}, or a file"
        )
    content = {"name": path.stem, **yaml_file.read(path, "suite", "'cases:' and 'methods:'")}
    changes = content.pop("quick", None) or {}
    whole = _parse(content, path.name)
    _check_targets(whole, path.name)
    small = _parse({**content, **changes}, f"{path.name}, quick")
    return small if quick else whole


def _parse(content: dict[str, Any], where: str) -> Suite:
    kind = ModelSuite if content.get("workload") == "model" else LayerSuite
    try:
        suite: Suite = kind.model_validate(content)
    except ValidationError as error:
        raise explain(error, kind, where) from None
    names = [case.name for case in suite.all_cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{where}: cases: {'; '.join(twice)} given twice")
    try:
        suite.rows()
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return suite


def _check_targets(suite: Suite, where: str) -> None:
    """A target that says nothing, about nothing or against nobody is a mistake."""
    labels = [method.label for method in suite.rows()]
    names = [case.name for case in suite.all_cases]
    for number, target in enumerate(suite.targets):
        place = f"{where}: targets.{number}"
        if not (target.time or target.saved or target.peak):
            raise UserError(f"{place}: says nothing; give time, saved or peak")
        for pattern in target.methods:
            if not any(fnmatchcase(label, pattern) for label in labels):
                raise UserError(f"{place}.methods: {pattern!r} is no method of the suite{closest(pattern, labels)}")
        if not any(fnmatchcase(name, target.case) for name in names):
            raise UserError(f"{place}.case = {target.case!r}: no such case; they are {'; '.join(names)}")
        for bound in target.time:
            if isinstance(bound, str) and bound not in labels:
                raise UserError(f"{place}.time = {bound!r}: no method of the suite{closest(bound, labels)}")
