"""What stops a command and is no defect: a mistake that is the user's to fix, numbers that run away, a signal."""

from __future__ import annotations

import signal


class UserError(ValueError):
    """A mistake in a recipe, a file or a command: the message names the thing, its value and the fix.

    The command line prints the message alone and exits with `exit_code`.
    """

    exit_code = 2


class Diverged(UserError):
    """The loss, its gradient or the trained numbers stopped being finite. The message says when, and what to try."""

    exit_code = 3


class Interrupted(Exception):
    """Training was stopped by a signal after `step` steps, and saved. The message says how to go on."""

    def __init__(self, step: int, resume_line: str, number: int = signal.SIGINT) -> None:
        super().__init__(f"stopped after step {step}, and saved; {resume_line}")
        self.step = step
        self.number = number
