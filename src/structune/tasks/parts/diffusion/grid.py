"""A figure of samples that grows: a row for each prompt, a column for each step after which they were made."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from structune.files import write_bytes
from structune.palette import INK

_TILE = 256  # pixels, at most
_GAP, _HEAD, _LINE, _TEXT = 8, 30, 17, 13
_SMALLEST = 128  # small samples are enlarged to that, pixel by pixel
_SOFT = "#666666"
_STEPS = "steps"


def add_column(path: Path, prompts: Sequence[str], samples: Sequence[Image.Image], step: int) -> None:
    """Put the samples of a step beside those of earlier ones; columns of this step and later ones go.

    Args:
        path: of a PNG file, which knows the steps of its columns.
        prompts: of the rows.
        samples: an image for each.
        step: after which they were made.
    """
    side = _side(samples[0])
    before = _columns(path, len(prompts), side)
    columns = [(known, tiles) for known, tiles in before if known < step]
    columns.append((step, [_tile(sample, side) for sample in samples]))
    _write(path, prompts, columns, side)


def _side(sample: Image.Image) -> int:
    widest = max(sample.size)
    return min(_TILE, widest * -(-_SMALLEST // widest))


def _tile(sample: Image.Image, side: int) -> Image.Image:
    smaller = max(sample.size) <= side
    return sample.convert("RGB").resize((side, side), Image.Resampling.NEAREST if smaller else Image.Resampling.LANCZOS)


def _places(side: int, row: int, column: int, lines: int) -> tuple[int, int]:
    """Where a tile begins, with so many lines of text above each row."""
    return _GAP + column * (side + _GAP), _HEAD + row * (side + lines * _LINE + _GAP) + lines * _LINE


_LINES = 2


def _columns(path: Path, rows: int, side: int) -> list[tuple[int, list[Image.Image]]]:
    """Steps and tiles of a figure that is there already; none where it is another's."""
    try:
        with Image.open(path) as figure:
            figure.load()
            steps = [int(step) for step in figure.info.get(_STEPS, "").split()]
            if figure.size != _size(side, rows, len(steps)):
                return []
            return [
                (step, [_cut(figure, _places(side, row, column, _LINES), side) for row in range(rows)])
                for column, step in enumerate(steps)
            ]
    except (OSError, ValueError, UnidentifiedImageError):
        return []


def _cut(figure: Image.Image, place: tuple[int, int], side: int) -> Image.Image:
    return figure.convert("RGB").crop((*place, place[0] + side, place[1] + side))


def _size(side: int, rows: int, columns: int) -> tuple[int, int]:
    return _GAP + max(columns, 2) * (side + _GAP), _HEAD + rows * (side + _LINES * _LINE + _GAP)


def _write(path: Path, prompts: Sequence[str], columns: Sequence[tuple[int, list[Image.Image]]], side: int) -> None:
    figure = Image.new("RGB", _size(side, len(prompts), len(columns)), "white")
    draw = ImageDraw.Draw(figure)
    bold, plain = ImageFont.load_default(_TEXT + 2), ImageFont.load_default(_TEXT)
    across = int((figure.width - 2 * _GAP) / (0.55 * _TEXT))  # characters
    for row, prompt in enumerate(prompts):
        left, top = _places(side, row, 0, _LINES)
        lines = textwrap.wrap(prompt, across, max_lines=_LINES, placeholder=" …")
        for number, line in enumerate(lines):
            draw.text((left, top - (len(lines) - number) * _LINE), line, fill=_SOFT, font=plain)
    for column, (step, tiles) in enumerate(columns):
        left, _ = _places(side, 0, column, _LINES)
        draw.text((left, _GAP), f"step {step:,}" if step else "before training", fill=INK, font=bold)
        for row, tile in enumerate(tiles):
            figure.paste(tile, _places(side, row, column, _LINES))
    known = PngInfo()
    known.add_text(_STEPS, " ".join(str(step) for step, _ in columns))
    content = BytesIO()
    figure.save(content, "PNG", pnginfo=known)
    write_bytes(path, content.getvalue())
