"""`make test-gpu`: find a device and a Python, then `gpu.report` in it; arguments go on to it and to pytest."""

from __future__ import annotations

import subprocess
import sys

from gpu.environment import python, variables, without_cuda

if __name__ == "__main__":
    wants_cuda = "--device" not in sys.argv
    if wants_cuda and (missing := without_cuda()):
        sys.exit(f"test-gpu: {missing}")
    command = [python(), "-m", "gpu.report", *sys.argv[1:]]
    sys.exit(subprocess.run(command, env=variables(), check=False).returncode)
