"""PEFT's tests, from the source distribution of the installed version, and the models that they load."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

from peft_suite import models


def prepare(build: Path) -> Path:
    """A folder with tests/ and models/; what is there already for this version of PEFT is left."""
    release = f"peft-{version('peft')}"
    folder = build / release
    if not (folder / "tests").is_dir():
        fetch_tests(release, folder)
    if not (folder / "models").is_dir():
        partial = folder / "models-partial"
        shutil.rmtree(partial, ignore_errors=True)
        models.build(partial)
        partial.rename(folder / "models")
    return folder


def fetch_tests(release: str, folder: Path) -> None:
    """Unpack the tests; pip fetches them, from wherever it is set up to look."""
    with tempfile.TemporaryDirectory() as scratch:
        flags = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", scratch]
        subprocess.run([sys.executable, "-m", "pip", "download", *flags, release.replace("-", "==")], check=True)
        with tarfile.open(next(Path(scratch).glob("*.tar.gz"))) as archive:
            archive.extractall(scratch, filter="data")
        tests = Path(scratch) / release / "tests"
        (tests / "__init__.py").touch()  # the distribution leaves it out, and the tests import from one another
        shutil.copytree(tests, folder / "tests")
