"""`make bench-gpu`: what layers cost on CUDA from 768 to 8192 wide, beside LoRA of rank 16 and PEFT's C3A."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from gpu.environment import ROOT, python, without_cuda

SUITES = ("widths", "widths-inference", "calibrate-cuda")
"""The last one is what the table `structune/products/devices/cuda.py` should be read off, once it is measured."""

MODULES = (
    *("peft", "transformers", "safetensors", "wrapt", "numpy", "accelerate", "datasets", "filelock"),
    *("psutil", "pydantic", "yaml", "rich", "typer", "matplotlib"),
)
"""What the command needs beside torch: the extra `train`."""


def main() -> int:
    """Each suite in a process of its own. Returns the first status that is not 0, or 0."""
    parser = argparse.ArgumentParser(prog="bench-gpu", description=__doc__)
    parser.add_argument("suites", nargs="*", default=SUITES)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run?")
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results"), help="folder of the results")
    asked = parser.parse_args()
    if asked.device == "cuda" and (missing := without_cuda()):
        sys.exit(f"bench-gpu: {missing}")
    interpreter = python(MODULES, "train")
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    surroundings = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    failed = 0
    for suite in asked.suites:
        options = ["--device", asked.device, "--out", asked.out, "--overwrite", *(["--quick"] if asked.quick else [])]
        command = [interpreter, "-c", "from structune.cli import app; app()", "bench", suite, *options]
        failed = failed or subprocess.run(command, env=surroundings, cwd=ROOT, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
