"""Where something may be written: a folder of its own, on a disk that takes it. Told before any work."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from structune.errors import UserError


def check_own_folder(folder: Path, where: str, kept: Mapping[str, Path]) -> None:
    """Raises `UserError` unless `folder` can be a folder of its own.

    Args:
        folder: to be made, or filled.
        where: what names it, for the message.
        kept: what must not lie in it, by what it is. The current folder is one of them.
    """
    if folder.is_symlink():
        raise UserError(f"{where}: is a symbolic link to {folder.readlink()}; name a folder itself")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{where}: is a file; name a folder")
    whole = folder.resolve()
    for what, path in {"the current folder": Path(), **kept}.items():
        inside = path.resolve()
        if whole == inside or whole in inside.parents:
            holds = "is" if whole == inside else "holds"
            raise UserError(f"{where}: {holds} {what}; name a new folder, for example {Path('runs') / 'NAME'}")


def check_writable(folder: Path, where: str, needed: int = 0) -> None:
    """Raises `UserError` unless `folder` can be written to, or made, and its disk has `needed` bytes left."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists() or path.is_symlink())
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".structune-"):
            free = shutil.disk_usage(there).free
    except OSError as error:
        raise UserError(f"{where}: {there} cannot be written to ({error.strerror}); name another folder") from None
    if free < needed:
        raise UserError(
            f"{where}: the disk of {there} has {_megabytes(free)} left, and about {_megabytes(needed)} are needed; "
            f"free some, or name a folder on another disk"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
