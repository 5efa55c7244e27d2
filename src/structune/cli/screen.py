"""Where the command line speaks: results on standard output, errors and notes beside."""

from __future__ import annotations

import io
import sys

from rich.console import Console

for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to fail
        _stream.reconfigure(errors="backslashreplace")
console = Console()
errors = Console(stderr=True)
