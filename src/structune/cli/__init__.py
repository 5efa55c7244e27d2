"""The command line: `structune train`, `evaluate`, `predict` and so on, a command a file."""

from structune.cli.app import app
from structune.cli.screen import console

__all__ = ["app", "console"]
