"""A finished run to talk to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from structune.finetune.evaluate import LoadedRun, load_run
from structune.finetune.predict import run_of
from structune.finetune.run_folder.run import Run


class Chat:
    """A conversation with a finished run, which remembers what was said.

    Args:
        folder: the run, or its adapter.

    Raises:
        UserError: no finished run is there, or its base model or adapter cannot be loaded.
    """

    def __init__(self, folder: str | Path) -> None:
        self.loaded: LoadedRun = load_run(Run.finished(run_of(folder)).folder)
        self.messages: list[dict[str, str]] = []

    def say(self, text: str, tell: Callable[[str], None]) -> str:
        """The answer to a text; `tell` is given it piece by piece, as it is written.

        Raises:
            UserError: the run does not converse. What was said before stays.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        loaded = self.loaded
        answer = loaded.recipe.task.converse(loaded.model, loaded.base, [*asked], loaded.recipe.data, tell)
        self.messages = [*asked, {"role": "assistant", "content": answer}]
        return answer

    def forget(self) -> None:
        """Begin anew."""
        self.messages = []
