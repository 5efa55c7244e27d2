"""The name of the processor."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path


@cache
def processor() -> str:
    """The model as Linux tells it, such as `AMD EPYC`, without trademarks and clock; elsewhere what Python knows."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        match = None
    name = match[1] if match else platform.processor() or platform.machine()
    return re.sub(r"\((R|TM)\)|\bProcessor\b|\bCPU\b|@.*", "", name).strip()
