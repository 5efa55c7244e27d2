"""A Python with torch, CUDA and whatever else the tests need: the one that runs this, or one made beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-gpu"

MODULES = (
    *("peft", "transformers", "safetensors", "wrapt", "numpy", "scipy", "pytest", "pytest_timeout", "xdist"),
    "hypothesis",
)
"""What tests need beside torch."""

REQUIREMENTS = ("hypothesis", "pytest-timeout", "pytest-xdist")
"""What the extra `testing` does not bring."""


def without_cuda() -> str | None:
    """Why nothing can be run on CUDA, in one line; None where it can."""
    try:
        import torch
    except ModuleNotFoundError:
        return f"no CUDA device: {sys.executable} has no torch; set PYTHON to one that has"
    if not torch.cuda.is_available():
        return f"no CUDA device: torch {torch.__version__} of {sys.executable} sees none"
    return None


def complete(modules: Sequence[str]) -> bool:
    """Whether this Python has torch, whichever it is, and all of these, so that no network is needed."""
    return all(find_spec(module) for module in ("torch", *modules))


def python(modules: Sequence[str] = MODULES, extra: str = "testing") -> str:
    """The interpreter to run tests with, or whatever else needs these modules, which that extra brings.

    Where something is missing it is installed into a folder of its own, which finds everything else, torch above all,
    where this Python does: the machine's torch is the one that fits its driver.

    Raises:
        subprocess.CalledProcessError: pip could not install it.
    """
    if complete(modules):
        return sys.executable
    interpreter = FOLDER / "bin" / "python"
    if not interpreter.exists():
        venv.create(FOLDER, with_pip=True)
        inside = subprocess.run(
            [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        )
        (Path(inside.stdout.strip()) / "machine.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    install = [interpreter, "-m", "pip", "install", "--quiet", "-e", f"{ROOT}[{extra}]", *REQUIREMENTS]
    subprocess.run(install, check=True)
    return str(interpreter)


def variables() -> dict[str, str]:
    """The environment in which tests run: the package from this checkout, no hub, as many processes as cores."""
    path = [str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it deterministic products are refused
        "TOKENIZERS_PARALLELISM": "false",
    }
