"""One process, or several that a launcher started: torchrun, accelerate launch, mpirun, srun."""

from __future__ import annotations

import os

from structune.errors import UserError

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")
"""Where launchers tell how many processes there are and which one this is. SLURM_NTASKS tells of a whole job."""


def refuse_several_processes() -> None:
    """Raises `UserError` when this process is one of several of one launch: they would all write the same files.

    A process that is alone runs as one, whatever rank it was given: Accelerate would start a process group.
    """
    for size, rank in zip(_SIZES, _RANKS, strict=True):
        count = _number(size)
        if count is not None and count > 1:
            raise UserError(
                f"{size} = {count}: this is process {_number(rank) or 0} of {count} of one launch (torchrun, "
                f"accelerate launch, mpirun, srun), and structune runs in one process only. Start it once, without the "
                f"launcher; if it is one process all the same, unset {size}"
            )
    os.environ.pop("LOCAL_RANK", None)


def first_rank() -> bool:
    """Whether this process speaks for its launch: it is the first of several, or alone."""
    for size, rank in zip(_SIZES, _RANKS, strict=True):
        if (_number(size) or 1) > 1:
            return not _number(rank)
    return True


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else None
