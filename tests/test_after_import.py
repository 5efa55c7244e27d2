"""Doing something at the end of another library's import: with small libraries made here."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from structune.after_import import after_import

LIBRARY = "library_of_the_test"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on the path that is not imported yet; afterwards nothing of it is left."""
    folder = tmp_path / LIBRARY
    folder.mkdir()
    (folder / "__init__.py").write_text("ready = False\nfrom . import part\nready = True\n")
    (folder / "part.py").write_text("names = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == LIBRARY]:
        del sys.modules[name]


def add_name() -> None:
    """What an action does: it imports the library, which must be complete, and leaves a mark."""
    module: Any = importlib.import_module(LIBRARY)
    assert module.ready
    module.part.names.append("ours")


def test_it_is_done_at_the_end_of_the_import_and_not_before(library: Path) -> None:
    after_import(LIBRARY, add_name)
    assert LIBRARY not in sys.modules
    module = importlib.import_module(f"{LIBRARY}.part")  # whatever part of it is wanted first
    assert module.names == ["ours"]
    importlib.import_module(LIBRARY)
    assert module.names == ["ours"]


def test_it_is_done_at_once_where_the_library_is_there(library: Path) -> None:
    module: Any = importlib.import_module(LIBRARY)
    finders = len(sys.meta_path)
    after_import(LIBRARY, add_name)
    assert module.part.names == ["ours"]
    assert len(sys.meta_path) == finders


def test_looking_the_library_up_is_not_importing_it(library: Path) -> None:
    after_import(LIBRARY, add_name)
    for _ in range(2):  # as transformers does to see whether PEFT is installed
        spec = importlib.util.find_spec(LIBRARY)
        assert spec is not None
        assert spec.loader.get_filename(LIBRARY) == str(library / "__init__.py")  # type: ignore[union-attr]
    assert LIBRARY not in sys.modules
    assert importlib.import_module(LIBRARY).part.names == ["ours"]


def test_the_module_is_as_if_nobody_had_stood_between(library: Path) -> None:
    after_import(LIBRARY, add_name)
    module = importlib.import_module(LIBRARY)
    assert module.__spec__ is not None
    assert type(module.__loader__) is type(module.__spec__.loader) is type(module.part.__loader__)
    assert inspect.getsource(module) == (library / "__init__.py").read_text()
    importlib.reload(module)
    assert module.part.names == ["ours", "ours"]


def test_a_library_from_a_zip_file(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in library.iterdir():
            archive.write(file, f"{LIBRARY}/{file.name}")
    monkeypatch.syspath_prepend(tmp_path / "all.zip")
    after_import(LIBRARY, add_name)
    module = importlib.import_module(LIBRARY)
    assert "all.zip" in str(module.__file__)
    assert module.part.names == ["ours"]


def test_a_library_that_is_not_there_stays_missing(library: Path) -> None:
    after_import("library_of_nobody", add_name)
    with pytest.raises(ModuleNotFoundError, match="library_of_nobody"):
        importlib.import_module("library_of_nobody")


def test_an_import_that_fails_can_be_tried_again(library: Path) -> None:
    after_import(LIBRARY, add_name)
    (library / "part.py").write_text("raise RuntimeError('half')")
    with pytest.raises(RuntimeError, match="half"):
        importlib.import_module(LIBRARY)
    (library / "part.py").write_text("names = ['mended']")
    importlib.invalidate_caches()
    assert importlib.import_module(LIBRARY).part.names == ["mended", "ours"]


def test_an_action_that_fails_fails_the_import(library: Path) -> None:
    def fail() -> None:
        raise ImportError("another version is needed")

    after_import(LIBRARY, fail)
    with pytest.raises(ImportError, match="another version is needed"):
        importlib.import_module(LIBRARY)
    assert LIBRARY not in sys.modules


def test_no_thread_gets_the_library_without_it(library: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    seen: list[list[str]] = []

    def slow() -> None:
        begun.set()
        go_on.wait(30)
        add_name()

    def use() -> None:
        seen.append(list(importlib.import_module(LIBRARY).part.names))

    after_import(LIBRARY, slow)
    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert seen == [["ours"]] * 3
