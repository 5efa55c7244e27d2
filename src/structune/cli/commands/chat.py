"""`structune chat`."""

from __future__ import annotations

import sys

from structune.cli.arguments import Debug, RunFolder, path_of
from structune.cli.ending import errors_as_lines
from structune.cli.screen import console
from structune.finetune.importing import without_remarks


def chat(run: RunFolder, debug: Debug = False) -> None:
    """Talk to a run that answers instructions, in the terminal; of what is piped in, each line is said.

    **/new** begins a new conversation, Ctrl-D ends.
    """
    with errors_as_lines(debug):
        with without_remarks():
            from structune.finetune.chat import Chat

        talk = Chat(path_of("RUN", run))
        typed = sys.stdin.isatty()
        if typed:
            console.print("[dim]/new begins a new conversation, Ctrl-D ends[/]", highlight=False)
        while (line := _said(typed)) is not None:
            if line.strip() == "/new":
                talk.forget()
            elif line.strip():
                talk.say(line, _as_it_comes)
                _as_it_comes("\n")


def _said(typed: bool) -> str | None:
    """The next line; None at the end."""
    try:
        return input("> " if typed else "")
    except EOFError:
        return None


def _as_it_comes(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
