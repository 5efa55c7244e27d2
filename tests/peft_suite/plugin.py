"""A pytest plugin: PEFT's test modules get our cases in place of theirs, and run nothing else.

Their lists are replaced in place once a module is imported and before its tests are made from them. Tests that are
not made from our cases are left out. What is expected to fail is in `exceptions.py`, and must fail.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from peft_suite.cases import CASES
from peft_suite.exceptions import EXCEPTIONS
from structune import StructuneConfig


class Everything(dict[str, int]):
    """Models that count as fetched before, so that nothing asks the hub."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> int:
        return 1


def pytest_ignore_collect(collection_path) -> bool | None:
    """Leave out the modules that we have no cases for."""
    return True if collection_path.is_file() and collection_path.stem not in CASES else None


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makemodule(module_path, parent) -> Iterator[None]:
    module = yield
    for name, cases in CASES[module_path.stem].items():
        theirs = getattr(module.obj, name)
        if isinstance(theirs, tuple):
            replace_parameters(module.obj, theirs, cases)
            continue
        theirs.clear()
        theirs.update(cases) if isinstance(theirs, dict) else theirs.extend(cases)
    from tests import testing_utils

    testing_utils._HUB_MODEL_ACCESSES = Everything()
    return module


def replace_parameters(module: ModuleType, theirs: tuple[Any, ...], cases: list[Any]) -> None:
    """A tuple cannot be changed in place: the marks that parametrise tests with it are."""
    for cls in vars(module).values():
        for test in vars(cls).values() if isinstance(cls, type) else ():
            for number, mark in enumerate(marks := getattr(test, "pytestmark", [])):
                if mark.name == "parametrize" and mark.args[1] is theirs:
                    marks[number] = pytest.mark.parametrize(mark.args[0], cases, **mark.kwargs).mark


def is_ours(value: Any) -> bool:
    """Whether a parameter is our configuration or its class."""
    return isinstance(value, StructuneConfig) or (isinstance(value, type) and issubclass(value, StructuneConfig))


def pytest_collection_modifyitems(config, items) -> None:
    ours = [item for item in items if hasattr(item, "callspec") and any(map(is_ours, item.callspec.params.values()))]
    config.hook.pytest_deselected(items=sorted(set(items) - set(ours), key=str))
    items[:] = ours
    for item in items:
        for pattern, reason in EXCEPTIONS.items():
            if re.search(pattern, item.nodeid):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def pytest_terminal_summary(terminalreporter) -> None:
    """Why tests were skipped: PEFT's tests skip by lists of methods, which cannot name ours."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])
    )
    terminalreporter.section("skipped by the tests themselves")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5d}  {reason}")
