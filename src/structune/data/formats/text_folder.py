"""A folder of text files with a subfolder for each class."""

from __future__ import annotations

from pathlib import Path

from structune.data.formats.content import read_content, without_packing
from structune.data.formats.kinds import refuse_other_kinds
from structune.data.formats.text import decode
from structune.data.table import Table
from structune.doubt import say
from structune.errors import UserError

_ENDINGS = (".txt", ".text", ".md")


def is_text_folder(path: Path) -> bool:
    """Whether it is a folder with a subfolder that holds a text file."""
    return path.is_dir() and any(_is_text(file) for folder in _folders(path) for file in _files(folder))


def read_text_folder(path: Path, where: str, encoding: str | None = None) -> Table:
    """A row for each file: `text` is what it holds, `label` the name of the subfolder.

    Raises:
        UserError: a file is no text.

    Warns:
        DataWarning: files beside the subfolders, which are not read.
    """
    beside = [file.name for file in _files(path)]
    if beside:
        say([f"{where}: {len(beside)} files beside the subfolders are not read (the first: {beside[0]!r})"])
    columns: dict[str, list[str]] = {"text": [], "label": []}
    files: list[str] = []
    for folder in _folders(path):
        found = sorted(file for file in folder.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
        if not found:
            raise UserError(f"{where}: the subfolder {folder.name!r} is empty. Remove it, or fill it.")
        for file in found:
            if not _is_text(file):
                raise UserError(
                    f"{where}: {str(file.relative_to(path))!r} is no text file ({', '.join(_ENDINGS)}) among others "
                    f"that are. Take it out."
                )
            columns["text"].append(_read(file, encoding))
            columns["label"].append(folder.name)
            files.append(str(file.relative_to(path)))
    return Table(str(path), columns, list(range(1, len(files) + 1)), unit="file", files=files)


def _read(file: Path, encoding: str | None) -> str:
    """The text of a file; nothing, if that is what it holds."""
    content = read_content(file, str(file))
    refuse_other_kinds(content.raw, file, str(file))
    return decode(content.raw, str(file), encoding) if content.raw.strip() else ""


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not _is_hidden(Path(folder.name)))


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file() and not _is_hidden(Path(file.name)))


def _is_text(file: Path) -> bool:
    return without_packing(file).suffix.lower() in _ENDINGS


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
