"""The matrix of a grid of blocks, a strip of rows at a time, so that it never stands in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from structune.structures import Structure


@dataclass(frozen=True)
class Strip:
    """Rows of the matrix that belong to block rows `blocks` and, within these blocks, to rows `inside`.

    A strip is either several whole rows of blocks or a part of one.
    """

    blocks: slice
    inside: slice
    rows: slice


def strips(num_block_rows: int, block_rows: int, out_features: int, cols: int, most_entries: int) -> Iterator[Strip]:
    """The strips of a matrix of `num_block_rows` rows of blocks and `cols` columns, cropped to `out_features` rows.

    None has more than `most_entries` entries, where a row has no more. Within one block they are equally high.
    """
    most_rows = max(1, most_entries // cols)
    group = max(1, most_rows // block_rows)  # whole rows of blocks in a strip
    parts = -(-block_rows // most_rows)  # strips of a row of blocks, where a strip is a part of one
    height = -(-block_rows // parts)
    for p in range(0, num_block_rows, group):
        last = min(p + group, num_block_rows)
        for start in range(0, block_rows, height):
            stop = min(start + height, block_rows)
            first_row = p * block_rows + start
            last_row = (last - 1) * block_rows + stop
            if first_row < out_features:
                yield Strip(slice(p, last), slice(start, stop), slice(first_row, min(last_row, out_features)))


def strip_of_matrix(
    structure: Structure, generators: Mapping[str, Tensor], start: Mapping[str, Tensor], strip: Strip
) -> Tensor:
    """The strip's rows of grid(S(generators) − S(start)), (rows, Q·N); an empty `start` subtracts nothing."""
    blocks_PQMN = _blocks(structure, generators, strip)
    if start:
        blocks_PQMN = blocks_PQMN - _blocks(structure, start, strip)
    matrix = blocks_PQMN.transpose(1, 2).flatten(2).flatten(0, 1)
    return matrix[: strip.rows.stop - strip.rows.start]


def pull_back_strip(
    structure: Structure, generators: Mapping[str, Tensor], strip: Strip, grad: Tensor
) -> dict[str, Tensor]:
    """Gradients of the generators of the strip's blocks, given that of its rows (rows, in ≤ Q·N)."""
    parts = {name: g[strip.blocks] for name, g in generators.items()}
    P, Q = next(iter(parts.values())).shape[:2]
    height = strip.inside.stop - strip.inside.start
    missing = (0, Q * structure.cols - grad.shape[1], 0, P * height - grad.shape[0])
    padded = torch.nn.functional.pad(grad, missing) if any(missing) else grad
    return structure.pullback(padded.view(P, height, Q, structure.cols).transpose(1, 2), strip.inside.start, **parts)


def _blocks(structure: Structure, generators: Mapping[str, Tensor], strip: Strip) -> Tensor:
    """(P, Q, height, N)."""
    parts = {name: g[strip.blocks] for name, g in generators.items()}
    return structure.strip(strip.inside.start, strip.inside.stop, **parts)
