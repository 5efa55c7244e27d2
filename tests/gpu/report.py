"""Run what takes a device, and write a file that says where, with what and how it went."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from structune.processor import processor

ROOT = Path(__file__).parents[2]
TESTS = ("tests/structures/test_conformance.py", "tests/gpu")
PACKAGES = ("torch", "triton", "peft", "transformers", "safetensors", "numpy", "scipy")


def device(name: str) -> dict[str, Any]:
    """What the device is."""
    if name != "cuda":
        return {"type": name, "name": processor()}
    properties = torch.cuda.get_device_properties(0)
    return {
        "type": name,
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30),
        "count": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that decide a result; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def outcome(case: ElementTree.Element) -> str:
    """Of one test in pytest's XML."""
    kinds = {child.tag for child in case}
    return next((kind for kind in ("error", "failure", "skipped") if kind in kinds), "passed")


def summary(xml: Path) -> dict[str, Any]:
    """Counts by outcome, in all and by file, and the names of what failed."""
    cases = list(ElementTree.parse(xml).iter("testcase"))
    by_file: dict[str, Counter[str]] = {}
    for case in cases:
        place = ".".join(part for part in str(case.get("classname")).split(".") if not part[0].isupper())
        by_file.setdefault(place, Counter())[outcome(case)] += 1
    failed = [f"{c.get('classname')}::{c.get('name')}" for c in cases if outcome(c) in ("error", "failure")]
    return {
        "tests": dict(Counter(outcome(case) for case in cases)),
        "by_file": {place: dict(counts) for place, counts in sorted(by_file.items())},
        "failed": sorted(failed),
    }


def main() -> int:
    """Exit status: pytest's."""
    parser = argparse.ArgumentParser(prog="python -m gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="another than cuda to try the tests themselves")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "test-gpu.json", help="the file to write")
    parser.add_argument("--processes", type=int, default=min(8, os.cpu_count() or 1))
    options, more = parser.parse_known_args()
    started, clock = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(options.processes), "-p", "no:cacheprovider"]
        command += [f"--junitxml={xml}", *(more or TESTS)]
        named = os.environ | {"STRUCTUNE_TEST_DEVICE": options.device}
        status = subprocess.run(command, cwd=ROOT, env=named, check=False).returncode
        results = summary(xml) if xml.exists() else {}
    report = {
        "started": started,
        "seconds": round(time.monotonic() - clock),
        "device": device(options.device),
        "versions": versions(),
        "system": platform.platform(),
        **results,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{results.get('tests')} in {report['seconds']} s, written to {options.out}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
