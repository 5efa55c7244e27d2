"""Who may import whom: one table, checked against every import statement of the package.

`structures ← products ← delta ← peft ← data, methods ← tasks ← finetune ← inspection, study ← comparison, bench ←
cli`, with `pool` and `grid`
below `delta`, and `testing` looking inward only; inside each folder, floors. docs/architecture.md explains the parts.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import structune

PACKAGE = Path(structune.__file__).parent


@dataclass(frozen=True)
class Part:
    """What one part may import: other parts, and libraries (None: any)."""

    parts: frozenset[str]
    libraries: frozenset[str] | None


def part(parts: str = "", libraries: str | None = None) -> Part:
    return Part(frozenset(parts.split()), None if libraries is None else frozenset(libraries.split()))


ROOT = "structune"
"""The package's own `__init__`, which gathers what users import."""

MATHS = (
    "surroundings numerics structures products pool pool_maps grid options identity shared_pool start resolved delta"
)
HELPERS = "errors files section annotation registry doubt duration paths palette processor"
PARTS = {
    "errors": part("", ""),
    "files": part("", "safetensors"),
    "section": part("errors", "pydantic pydantic_core"),
    "annotation": part("section", "pydantic pydantic_core"),
    "registry": part("errors section", "pydantic"),
    "doubt": part("", ""),
    "duration": part("", ""),
    "paths": part("errors section", "pydantic pydantic_core"),
    "palette": part("", ""),
    "processor": part("", ""),
    "quiet": part("", "transformers"),
    "lazy": part("", ""),
    "surroundings": part("", "torch"),
    "numerics": part("surroundings", "torch"),
    "structures": part("lazy surroundings numerics", "torch"),
    "products": part("surroundings structures grid", "torch"),
    "pool": part("numerics", "torch"),
    "pool_maps": part("numerics pool", "torch"),
    "grid": part("", "torch"),
    "options": part("structures pool_maps", ""),
    "identity": part("pool pool_maps options", "torch"),
    "shared_pool": part("identity", "torch"),
    "start": part("numerics structures options", "torch"),
    "resolved": part("structures products pool_maps grid options start", ""),
    "delta": part(
        "surroundings numerics structures products pool pool_maps options identity shared_pool start resolved", "torch"
    ),
    "peft": part(f"{MATHS} errors files", "torch peft transformers safetensors"),
    ROOT: part(f"{MATHS} peft lazy", "transformers wrapt"),
    "data": part(HELPERS, "datasets numpy openpyxl PIL pyarrow pydantic"),
    "methods": part(f"{HELPERS} structures options {ROOT}"),
    "tasks": part(f"{HELPERS} quiet data"),
    "finetune": part(f"{MATHS} {HELPERS} lazy quiet peft {ROOT} data methods tasks"),
    "figure_style": part("structures errors files methods palette", "matplotlib"),
    "inspection": part(f"{MATHS} {HELPERS} quiet peft {ROOT} data methods tasks finetune figure_style"),
    "study": part(f"{MATHS} {HELPERS} quiet peft {ROOT} data methods tasks finetune figure_style"),
    "comparison": part(f"{HELPERS} quiet {ROOT} data methods tasks finetune figure_style study"),
    "bench": part(f"{MATHS} {HELPERS} quiet peft {ROOT} data methods tasks finetune figure_style study"),
    "cli": part(f"{MATHS} {HELPERS} peft {ROOT} data methods tasks finetune inspection study comparison bench"),
    "__main__": part("cli", ""),
    "testing": part(f"{MATHS} {HELPERS} peft {ROOT} data methods tasks finetune"),
}

INSIDE = {
    "pool_maps": "pool_map signs | index | *",
    "products": "transforms | * | choice | primitive",
    "peft": """
        computed_weight own_forward quantised readers registration strengths targets undo watched
        storage.keys storage.ordered storage.pretrained storage.rollback
        | layer
        | layers idle untie base_layers several.mixed_batch storage.checkpoint storage.nested storage.sharded
        | config convert.converted convert.repair
        | *
        | convert model storage.hosts
        | several.mixed_methods storage.injected
        | entry""",
    "finetune": """
        importing markdown tables distributed.launch distributed.processes stopping.resume
        run_folder.lock run_folder.place run_folder.reported run_folder.rows
        | recipe.recipe recipe.yaml_file recipe.shipped
        | task_data
        | *
        | run_folder.run
        | training evaluate
        | merge predict push check
        | chat
        | interface""",
    "data": """
        empty_words numbers section images
        | cells features header quotes
        | table examples
        | formats.content formats.text
        | formats.kinds
        | *
        | reading
        | sources captioned_folder
        | pieces""",
    "methods": "method parts | update | * | registry",
    "tasks": "parts.model_section | task | parts.classes.no_classes | parts | * | registry",
    "study": """
        search.points search.rates search.tries inputs.hashes inputs.base_model
        | search.sampled results.files results.measured inputs.inventory
        | study_file workers.same_run
        | results.counted inputs.parts workers.own_process
        | workers.job_pool
        | workers.processes
        | workers.ray_task
        | workers.ray_workers
        | pair
        | runner
        | clock
        | dry_run
        | engine
        | *""",
    "comparison": "labels side_by_side | tradeoff_figure | compare",
    "inspection": "backbone spectrum | adapter spectra_figure | inspect",
    "bench": "clock compiled folder machine memory results rounds | method | suite | * | run | page",
    "testing": "* | conformance tasks",
}
"""The floors of each folder, the lowest first: a file imports from its own floor and those below.

A folder's name stands for all in it that is not named itself, `*` for what has no other place. A folder's own
`__init__` stands above its files. No files import each other, on a detour neither.
"""


def imported(source: str, module: str, is_package: bool) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of everything that `source` imports, wherever it stands."""
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
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What `source`, standing in `module`, imports against the table."""
    own = module.removeprefix("structune.").partition(".")[0]
    if own not in PARTS:
        return [f"{module}: the part {own!r} is not in the table of tests/test_import_direction.py: add it"]
    allowed = PARTS[own]
    problems = []
    for line, name in imported(source, module, is_package):
        top, _, rest = name.partition(".")
        if top == "structune":
            inner = rest.partition(".")[0]
            target = inner if inner in PARTS else ROOT
            if target != own and target not in allowed.parts:
                problems.append(f"{module}:{line} imports {name}, but {own} may not import {target}")
        elif top not in sys.stdlib_module_names and allowed.libraries is not None and top not in allowed.libraries:
            problems.append(f"{module}:{line} imports {top}, but {own} may import only {sorted(allowed.libraries)}")
    return problems


def floor(folder: str, inner: str) -> int:
    """On which floor of a folder a file stands, by its path inside it; a package's own `__init__` is above all."""
    floors = [level.split() for level in INSIDE[folder].split("|")]
    names = inner.split(".")
    for length in range(len(names), 0, -1):
        name = ".".join(names[:length])
        if found := [number for number, level in enumerate(floors) if name in level]:
            return found[0]
    return next(number for number, level in enumerate(floors) if "*" in level) if inner else len(floors)


def folder_of(module: str) -> str | None:
    """The innermost folder of `INSIDE` in which a module stands, or which it is."""
    names = module.removeprefix("structune.").split(".")
    return next((name for n in range(len(names), 0, -1) if (name := ".".join(names[:n])) in INSIDE), None)


def file_of(name: str) -> str:
    """The module that a dotted name lies in."""
    while name not in MODULES and "." in name:
        name = name.rpartition(".")[0]
    return name


def upward(source: str, module: str, is_package: bool = False) -> list[str]:
    """What `source`, standing in `module`, imports from a higher floor of its own folder."""
    folder = folder_of(module)
    if folder is None:
        return []
    own = floor(folder, module.removeprefix(f"structune.{folder}").removeprefix("."))
    problems = []
    for line, dotted in imported(source, module, is_package):
        name = file_of(dotted)
        if name.startswith("structune.") and folder_of(name) == folder and name != module:
            inner = name.removeprefix(f"structune.{folder}").removeprefix(".")
            if floor(folder, inner) > own:
                problems.append(f"{module}:{line} imports {name}, which stands above it in {folder}/")
    return problems


def module_name(file: Path) -> tuple[str, bool]:
    """The dotted name of a file of the package, and whether it is a package's own file."""
    names = ["structune", *file.relative_to(PACKAGE).with_suffix("").parts]
    return (".".join(names[:-1]), True) if names[-1] == "__init__" else (".".join(names), False)


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_name(file)[0]: file for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=[str(f.relative_to(PACKAGE)) for f in FILES])
def test_file_imports_inward_only(file: Path) -> None:
    module, is_package = module_name(file)
    source = file.read_text(encoding="utf-8")
    assert violations(source, module, is_package) == []
    assert upward(source, module, is_package) == []


def test_no_files_import_each_other() -> None:
    """The package's own `__init__`, whose names are imported when they are asked for, may be imported by any."""
    graph: dict[str, set[str]] = {}
    for name, file in MODULES.items():
        found = imported(file.read_text(encoding="utf-8"), *module_name(file))
        graph[name] = {file_of(dotted) for _, dotted in found} & MODULES.keys() - {name, "structune"}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names them


@pytest.mark.parametrize("folder", INSIDE)
def test_floors_name_what_is_there(folder: str) -> None:
    names = [name for name in INSIDE[folder].replace("|", " ").split() if name != "*"]
    assert len(names) == len(set(names))
    assert [name for name in names if f"structune.{folder}.{name}" not in MODULES] == []


@pytest.mark.parametrize(
    ("module", "source", "above"),
    [
        ("structune.products.convolve", "from structune.products.choice import choose", True),
        ("structune.products.convolve", "from .choice import choose", True),
        ("structune.products.convolve", "from structune.products import choose", True),
        ("structune.products.choice", "from structune.products import convolve", False),
        ("structune.peft.several.weighted", "def f():\n    import structune.peft.model", True),
        ("structune.peft.model", "from structune.peft.several import weighted", False),
        ("structune.peft.layer", "from structune.peft.storage import rollback", False),
        ("structune.peft.layer", "from structune.peft.storage.checkpoint import check_state_dict", True),
        ("structune.data.table", "from structune.data.sources import load_tables", True),
        ("structune.data.table", "from structune.section import closest", False),
        ("structune.finetune.run_folder.card", "from structune.finetune.training import train", True),
    ],
)
def test_floors_are_held(module: str, source: str, above: bool) -> None:
    assert len(upward(source, module)) == above


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
        ("structune.structures.families.toeplitz", "from structune import products", "may not import products"),
        ("structune.structures.families.toeplitz", "import structune.delta", "may not import delta"),
        ("structune.structures.families.toeplitz", "from ...pool import index_map", "may not import pool"),
        ("structune.structures.families.toeplitz", "from ... import pool", "may not import pool"),
        ("structune.pool", "from structune.delta import StructuredDelta", "may not import delta"),
        (
            "structune.delta",
            "def f():\n    from structune.peft.config import StructuneConfig",
            "may not import peft",
        ),
        ("structune.delta", "if TYPE_CHECKING:\n    import peft", "imports peft, but delta"),
        ("structune.delta", "import scipy.linalg", "imports scipy, but delta"),
        ("structune.finetune.training", "import structune.study.report", "may not import study"),
        ("structune.finetune.training", "from structune.testing import conformance", "may not import testing"),
        ("structune.peft.layer", "from structune import StructuneConfig", "may not import structune"),
        ("structune.peft.layer", "import structune", "may not import structune"),
        ("structune.products.fft", "import triton", "imports triton, but products"),
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
            "structune.structures.families.toeplitz",
            "from structune.structures.base import Structure\nfrom ..shift import shift",
        ),
        ("structune.peft.model", "from peft.tuners.tuners_utils import BaseTuner"),
        ("structune.finetune.training", "import structune\nfrom structune import __version__, pool"),
        ("structune.cli", "import typer\nfrom structune.comparison import compare"),
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
