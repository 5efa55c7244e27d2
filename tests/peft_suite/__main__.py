"""Prepare PEFT's tests and run them; arguments go on to pytest, such as `-k merge`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from peft_suite.prepare import prepare

if __name__ == "__main__":
    folder = prepare(Path("build").absolute())
    home = str(Path(__file__).parents[1])
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pytest", "../tests", "--config-file", os.devnull, "--rootdir", ".."]
    flags = ["-p", "peft_suite.plugin", "-n", "2", "--quiet", "--no-header", "-W", "ignore", *sys.argv[1:]]
    # The models are found by the names of their folders, as if they were the hub's.
    sys.exit(subprocess.run([*command, *flags], cwd=folder / "models", env=environment, check=False).returncode)
