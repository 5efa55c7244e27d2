"""A script run by two processes of one launch, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def run_by_two(script: Path, *arguments: str, folder: Path, **environment: str) -> None:
    """Run it in a folder, with more in the environment where that is given; both processes have to end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    begun = []
    for rank in "01":
        meeting = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        one_kind = {"CUDA_VISIBLE_DEVICES": ""}  # both on the CPU, where there is one GPU too
        whole = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **meeting, **address, **one_kind, **environment}
        line = [sys.executable, "-W", "ignore", str(script), *arguments]
        begun.append(subprocess.Popen(line, cwd=folder, env=whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    told = [process.communicate(timeout=500)[0].decode() for process in begun]
    assert [process.returncode for process in begun] == [0, 0], "\n".join(told)
