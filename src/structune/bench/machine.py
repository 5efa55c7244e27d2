"""Where and with what a benchmark ran."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from structune.finetune.run_folder.run import versions
from structune.processor import processor

PACKAGES = ("python", "torch", "peft", "transformers", "structune")


def machine(device: str) -> dict[str, Any]:
    """Processor, threads, memory, GPU and system; what must not change within one benchmark."""
    found = {
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "ram_gib": round(psutil.virtual_memory().total / 2**30),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "system": platform.platform(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        found |= {
            "gpu_gib": round(properties.total_memory / 2**30),
            "gpu_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        }
    return found


def in_words(found: Mapping[str, Any]) -> str:
    """What `machine` found, for a line above results: `AMD EPYC, 2 threads`, or the GPU."""
    return found["gpu"] or f"{found['cpu']}, {found['threads']} thread{'s' if found['threads'] > 1 else ''}"


def package_versions() -> dict[str, str]:
    """Versions of what decides a measurement."""
    found = versions()
    return {name: found[name] for name in PACKAGES}


def commit() -> dict[str, Any] | None:
    """The checkout's commit, and whether its code or suites differ from it; None outside a checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--", "src", "benchmarks", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"id": head, "dirty": bool(changed)}


def device_slug(device: str, found: dict[str, Any]) -> str:
    """For file names: `cpu-amd-epyc-2-threads`, `cuda-nvidia-h200`."""
    name = found["gpu"] if device == "cuda" else f"{found['cpu']} {found['threads']} threads"
    return re.sub(r"[^a-z0-9]+", "-", f"{device} {name}".lower()).strip("-")


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
