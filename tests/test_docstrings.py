"""One dialect: docstrings are Markdown with single backticks, and only packages have an `__all__`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import structune

PACKAGE = Path(structune.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every string that stands as a statement: docstrings, of constants too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def has_all(source: str) -> bool:
    """Whether a module lists its public names."""
    return any(
        isinstance(target, ast.Name) and target.id == "__all__"
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
    )


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES])
def test_dialect(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert [line for line, text in docstrings(source) if re.search(r"(?<!`)``(?!`)", text)] == []
    assert file.name == "__init__.py" or not has_all(source)


def test_both_are_noticed() -> None:
    assert list(docstrings('x = 1\n"""Of ``x``."""\n')) == [(2, "Of ``x``.")]
    assert has_all('__all__ = ["x"]\nx = 1\n')
    assert not has_all("x = 1\n")
