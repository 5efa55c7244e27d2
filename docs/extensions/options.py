"""For the pages of docs/api: what `structune.options` adds to docstrings when they are imported, as a list."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import griffe

from structune.options import UpdateOptions


class Options(griffe.Extension):
    """Lists the options below the line on `**options` of a class."""

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Called for every class that is read."""
        if cls.docstring and (line := re.search(r"( *)\*\*options: .*\n", cls.docstring.value)):
            listed = "".join(f"{line[1]}    - `{one.name}`: {one.metadata['help']}.\n" for one in fields(UpdateOptions))
            cls.docstring.value = cls.docstring.value.replace(line[0], f"{line[0]}\n{listed}")
