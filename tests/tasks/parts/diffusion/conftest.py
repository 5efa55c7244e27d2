"""Small random pipelines, saved as anybody would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .... import pipelines


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small pipeline by its name."""
    folder = tmp_path_factory.mktemp("pipelines")

    def save(name: str) -> Path:
        if not (folder / name).is_dir():
            getattr(pipelines, name)().save_pretrained(folder / name)
        return folder / name

    return save
