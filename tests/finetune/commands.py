"""Commands that one of several processes gives one after the other, and how they ended."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

from structune import cli

RANK = int(os.environ["RANK"])
ended: dict[str, Any] = {}
"""Exit code and what was told, by name."""


def command(name: str, *words: str, **environment: str) -> None:
    """Give it, with more in the environment where that is given."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told), mock.patch.dict(os.environ, environment):
        try:
            cli.app(list(words), standalone_mode=False)
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    ended[name] = [code, told.getvalue()]


def sets(*settings: str) -> list[str]:
    return [word for each in settings for word in ("--set", each)]


def in_the_second(target: str, what: Any) -> contextlib.AbstractContextManager[Any]:
    """Something goes wrong, or comes, in the second process alone."""
    return mock.patch(target, what) if RANK == 1 else contextlib.nullcontext()


def stop_in_sixth_step(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
    if state.global_step == 5:
        os.kill(os.getpid(), signal.SIGTERM)


STEP_BEGINS = "structune.finetune.stopping.interrupt.StopOnInterrupt.on_step_begin"


def write_ended() -> None:
    """Into a file for this process, in the folder where it runs."""
    Path(f"ended-{RANK}.json").write_text(json.dumps(ended))
