"""Who may import whom: one table, checked against every import statement of the package.

`structures ← products ← delta ← peft ← finetune ← study ← bench ← cli`, with `pool` and `grid` below `delta`, and
`testing` looking inward only. docs/architecture.md explains the parts.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import structune

PACKAGE = Path(structune.__file__).parent


@dataclass(frozen=True)
class Part:
    """What one part may import: other parts, and libraries (None: any, apart from `OWNERS`)."""

    parts: frozenset[str]
    libraries: frozenset[str] | None


def part(parts: str = "", libraries: str | None = None) -> Part:
    return Part(frozenset(parts.split()), None if libraries is None else frozenset(libraries.split()))


ROOT = "structune"
"""The package's own `__init__`, which gathers what users import."""

MATHS = "surroundings structures products pool pool_maps grid arguments identity shared_pool start delta"
PARTS = {
    "lazy": part("", ""),
    "surroundings": part("", "torch"),
    "structures": part("lazy surroundings", "torch"),
    "products": part("surroundings structures", "torch"),
    "pool": part("", "torch"),
    "pool_maps": part("pool", "torch"),
    "grid": part("", "torch"),
    "arguments": part("structures"),
    "identity": part("pool pool_maps arguments", "torch"),
    "shared_pool": part("identity", "torch"),
    "start": part("structures pool arguments", "torch"),
    "delta": part("surroundings structures products pool pool_maps grid arguments identity shared_pool start", "torch"),
    "peft": part(MATHS, "torch peft transformers safetensors"),
    ROOT: part(f"{MATHS} peft lazy", "transformers wrapt"),
    "finetune": part(f"{MATHS} peft {ROOT}"),
    "study": part(f"{MATHS} peft {ROOT} finetune"),
    "bench": part(f"{MATHS} peft {ROOT} finetune study"),
    "cli": part(f"{MATHS} peft {ROOT} finetune study bench"),
    "testing": part(f"{MATHS} peft {ROOT}"),
}
OWNERS = {"triton": "structune.products.triton"}
"""Libraries that only one place imports."""


def imported_modules(source: str, module: str, is_package: bool) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of every import in `source`, wherever it stands."""
    package = module if is_package else module.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            # `from structune import pool` names a part, `from torch import Tensor` the contents of one.
            names = [f"{base}.{a.name}" for a in node.names] if base == "structune" else [base]
            found += [(node.lineno, name) for name in names]
    return found


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What `source`, standing in `module`, imports against the table."""
    own = module.removeprefix("structune.").partition(".")[0]
    if own not in PARTS:
        return [f"{module}: the part {own!r} is not in the table of tests/test_import_direction.py: add it"]
    allowed = PARTS[own]
    problems = []
    for line, name in imported_modules(source, module, is_package):
        top, _, rest = name.partition(".")
        if top == "structune":
            inner = rest.partition(".")[0]
            target = inner if inner in PARTS else ROOT
            if target != own and target not in allowed.parts:
                problems.append(f"{module}:{line} imports {name}, but {own} may not import {target}")
        elif top in OWNERS:
            if not (module + ".").startswith(OWNERS[top] + "."):
                problems.append(f"{module}:{line} imports {top}, which only {OWNERS[top]} may import")
        elif top not in sys.stdlib_module_names and allowed.libraries is not None and top not in allowed.libraries:
            problems.append(f"{module}:{line} imports {top}, but {own} may import only {sorted(allowed.libraries)}")
    return problems


def module_name(file: Path) -> tuple[str, bool]:
    """The dotted name of a file of the package, and whether it is a package's own file."""
    names = ["structune", *file.relative_to(PACKAGE).with_suffix("").parts]
    return (".".join(names[:-1]), True) if names[-1] == "__init__" else (".".join(names), False)


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(PACKAGE)) for f in FILES])
def test_file_imports_inward_only(file: Path) -> None:
    module, is_package = module_name(file)
    assert violations(file.read_text(encoding="utf-8"), module, is_package) == []


def test_table_is_a_partial_order() -> None:
    """No two parts may import each other, directly or on a detour."""
    finished: set[str] = set()
    while waiting := [name for name in PARTS if name not in finished]:
        ready = [name for name in waiting if PARTS[name].parts <= finished]
        assert ready, f"a cycle among {waiting}"
        finished.update(ready)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("structune.structures.toeplitz", "from structune import products", "may not import products"),
        ("structune.structures.toeplitz", "import structune.delta", "may not import delta"),
        ("structune.structures.toeplitz", "from ..pool import index_map", "may not import pool"),
        ("structune.structures.toeplitz", "from .. import pool", "may not import pool"),
        ("structune.pool", "from structune.delta import StructuredDelta", "may not import delta"),
        (
            "structune.delta",
            "def f():\n    from structune.peft.config import StructuneConfig",
            "may not import peft",
        ),
        ("structune.delta", "if TYPE_CHECKING:\n    import peft", "imports peft, but delta"),
        ("structune.delta", "import scipy.linalg", "imports scipy, but delta"),
        ("structune.finetune.train", "import structune.study.report", "may not import study"),
        ("structune.finetune.train", "from structune.testing import conformance", "may not import testing"),
        ("structune.peft.layer", "from structune import StructuneConfig", "may not import structune"),
        ("structune.peft.layer", "import structune", "may not import structune"),
        ("structune.products.fft", "import triton.language as tl", "only structune.products.triton"),
        ("structune.products.tritonic", "import triton", "only structune.products.triton"),
        ("structune.helpers", "import torch", "is not in the table"),
    ],
)
def test_checker_catches(module: str, source: str, complaint: str) -> None:
    (problem,) = violations(source, module)
    assert complaint in problem


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "structune.delta",
            "import math\nimport torch.nn.functional as F\nfrom structune import pool, products",
        ),
        (
            "structune.structures.toeplitz",
            "from structune.structures.base import Structure\nfrom .shift import shift",
        ),
        ("structune.products.triton.circulant", "import triton\nimport triton.language as tl"),
        ("structune.peft.model", "from peft.tuners.tuners_utils import BaseTuner"),
        ("structune.finetune.train", "import structune\nfrom structune import __version__, pool"),
        ("structune.cli", "import typer\nfrom structune.study import compare"),
    ],
)
def test_checker_lets_pass(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_import_brings_in_nothing_heavy() -> None:
    """`import structune` adds none of these to what torch, peft and transformers bring in by themselves."""
    program = """
import sys, torch, peft, peft.tuners, transformers
from transformers.pytorch_utils import Conv1D
before = set(sys.modules)
import structune
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    added = set(run.stdout.split())
    assert "structune" in added
    assert added.isdisjoint(
        {"datasets", "matplotlib", "pandas", "pydantic", "typer", "rich", "triton", "yaml", "scipy"}
    )
