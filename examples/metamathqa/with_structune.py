"""Runs a script with structune imported, so that PEFT knows its configurations: `python with_structune.py run.py …`."""

import runpy
import sys
from pathlib import Path

import structune  # noqa: F401  # registers the method with PEFT

script = sys.argv[1]
sys.argv = sys.argv[1:]
sys.path[0] = str(Path(script).resolve().parent)  # as if python had been called with the script
runpy.run_path(script, run_name="__main__")
