"""How a command ends: errors as one line, and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.markup import escape

from structune.cli.screen import errors
from structune.errors import Interrupted, UserError
from structune.finetune.distributed.launch import first_rank, launched_together, refuse_several_processes
from structune.finetune.stopping.signals import raised


@contextmanager
def errors_as_lines(debug: bool, several: bool = False) -> Iterator[None]:
    """Errors as one clear red line; of several processes of one launch the first tells it.

    Exit codes: 2 for a mistake the user can fix, 3 for numbers that ran away, 128 + the signal's number for Ctrl-C
    (130), SIGTERM (143) and SIGHUP (129), 1 for the rest.

    Args:
        debug: whether tracebacks are shown.
        several: whether the command runs in several processes.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not debug:
        warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries about each other
    _show_doubts()
    try:
        with raised():
            launched_together() if several else refuse_several_processes()
            yield
    except Interrupted as stop:
        if first_rank():
            errors.print(f"[yellow]{escape(str(stop))}[/]", soft_wrap=True, highlight=False)
        sys.exit(128 + stop.number)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt as stop:
        if first_rank():
            errors.print("[yellow]stopped[/]")
        sys.exit(128 + getattr(stop, "number", signal.SIGINT))
    except Exception as error:
        if debug:
            raise
        if first_rank():
            _print_error(error)
        sys.exit(getattr(error, "exit_code", 2 if isinstance(error, ModuleNotFoundError) else 1))


def _show_doubts() -> None:
    """Let `DataWarning` appear as one yellow line; other warnings as before."""
    from structune.doubt import DataWarning

    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, DataWarning):
            if not first_rank():
                return
            errors.print(f"[yellow]warning:[/] {escape(str(message))}", soft_wrap=True, highlight=False)
        else:
            before(message, category, *place, **more)

    warnings.simplefilter("always", DataWarning)
    warnings.showwarning = show


def _print_error(error: Exception) -> None:
    if isinstance(error, UserError):
        message = escape(str(error))
    elif isinstance(error, ModuleNotFoundError):
        message = escape(f"{error.name} is not installed. Run `pip install 'structune[train]'`.")
    else:
        message = f"{escape(f'{type(error).__name__}: {error}')} [dim](--debug shows where)[/]"
    errors.print(f"[red]error:[/] {message}", soft_wrap=True, highlight=False)
