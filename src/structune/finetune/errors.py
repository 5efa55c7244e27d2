"""What stops a command and is no defect: a mistake that is the user's to fix, and Ctrl-C."""

from __future__ import annotations

__all__ = ["Interrupted", "UserError"]


class UserError(ValueError):
    """A mistake in a recipe, a file or a command: the message names the thing, its value and the fix.

    The command line prints the message alone and exits with code 2.
    """


class Interrupted(Exception):
    """Training was stopped by the user after ``step`` steps, and saved. The message says how to go on."""

    def __init__(self, step: int, resume_line: str) -> None:
        super().__init__(f"stopped after step {step}, and saved; {resume_line}")
        self.step = step
