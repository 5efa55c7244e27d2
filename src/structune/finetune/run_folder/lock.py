"""One process at a time in a folder. The kernel holds the lock, so a killed process holds none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from structune.errors import UserError

LOCK_FILE = ".lock"
"""Empty, and left where it is: whoever removed it could part two processes that wait for it."""


@contextmanager
def locked(folder: Path, where: str) -> Iterator[None]:
    """Hold the lock of a folder, which is there.

    Raises:
        UserError: another process holds it; `where` begins the message.
    """
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{where}: another process is writing there now; wait for it, stop it, or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def refuse_locked(folder: Path, where: str) -> None:
    """Raises `UserError` when another process holds the lock of a folder; makes nothing."""
    if (folder / LOCK_FILE).exists():
        with locked(folder, where):
            pass
