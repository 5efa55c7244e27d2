"""The command imports heavy libraries without their remarks about each other."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from structune.finetune.importing import without_remarks


@pytest.fixture
def talkative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A library that logs while it is imported, and afterwards."""
    (tmp_path / "talkative.py").write_text(
        "import logging\nlogger = logging.getLogger(__name__)\nlogger.warning('no extension')\nlogger.error('broken')\n"
        "def work():\n    logger.warning('slow')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "talkative"
    sys.modules.pop("talkative", None)


def test_remarks_while_importing_are_not_shown_and_all_else_is(
    talkative: str, caplog: pytest.LogCaptureFixture
) -> None:
    with without_remarks():
        module = importlib.import_module(talkative)
    module.work()
    assert caplog.messages == ["broken", "slow"]


@pytest.mark.parametrize("level", [logging.INFO, logging.CRITICAL])
def test_what_was_silent_before_is_silent_after(level: int) -> None:
    manager = logging.root.manager
    before = manager.disable
    try:
        logging.disable(level)
        with without_remarks():
            assert manager.disable == max(level, logging.WARNING)
        assert manager.disable == level
    finally:
        logging.disable(before)


@pytest.mark.parametrize("command", ["evaluate", "inspect"])
def test_a_command_says_nothing_but_its_own_words(command: str, tmp_path: Path) -> None:
    """With torchao and bitsandbytes installed, as for the tests of quantised layers, PEFT's import is not silent."""
    words = [sys.executable, "-m", "structune.cli", command, "nowhere"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
