"""Programs that begin with torch and transformers imported, and nothing else: neither PEFT nor structune.

One process has imported them, which takes seconds, and each program is a fork of it.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SURROUNDINGS = dict(os.environ)
"""As they are before any test changes them."""

SERVER = """
import json, os, sys, traceback, warnings

warnings.simplefilter("ignore")
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

assert not {"peft", "structune"} & set(sys.modules)
for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if not child:
        for number, file in enumerate((os.devnull, task["out"], task["err"])):
            os.dup2(os.open(file, os.O_WRONLY if number else os.O_RDONLY), number)
        os.chdir(task["folder"])
        sys.path[:0] = ["", *task["path"]]
        sys.argv = ["-c", *task["arguments"]]
        code = 0
        try:
            exec(compile(task["program"], "<string>", "exec"), {"__name__": "__main__"})
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            code = 1
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def python(program: str, *arguments: str, folder: Path | str = ".", path: tuple[str, ...] = ()) -> str:
    """What a program prints that is run in a process of its own.

    Args:
        program: Python.
        arguments: of `sys.argv`.
        folder: where it is run.
        path: folders of modules before others.

    Raises:
        AssertionError: it failed.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as place:
        out, err = (Path(place) / name for name in ("out", "err"))
        out.touch()
        err.touch()
        task = {"program": program, "arguments": arguments, "folder": str(Path(folder).absolute()), "path": path}
        server.stdin.write(json.dumps({**task, "out": str(out), "err": str(err)}) + "\n")
        server.stdin.flush()
        code = server.stdout.readline().strip()
        assert code == "0", f"exit code {code}\n{out.read_text()}\n{err.read_text()}"
        return out.read_text().strip()


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=SURROUNDINGS,
    )
    atexit.register(server.kill)
    return server


def command(*arguments: str) -> str:
    """The program that `structune ARGUMENTS` is."""
    return f"import sys; sys.argv = {['structune', *arguments]!r}\nfrom structune.cli import app\napp()"
