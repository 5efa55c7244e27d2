"""One process, or several that a launcher started: torchrun, accelerate launch, mpirun, srun."""

from __future__ import annotations

import os

from structune.errors import UserError

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")
"""Where launchers tell how many processes there are and which one this is. SLURM_NTASKS tells of a whole job."""

_MEETING = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun and accelerate launch tell besides WORLD_SIZE, so that the processes find each other."""


def launched_together() -> bool:
    """Whether this process is one of several that torchrun or accelerate launch started to do one thing.

    A process that is alone runs as one, whatever rank it was given: Accelerate would start a process group.

    Raises:
        UserError: it is one of several, and cannot find the others.
    """
    if (_number("WORLD_SIZE") or 1) > 1 and all(os.environ.get(name) for name in _MEETING):
        for plugin in ("DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG"):
            if os.environ.get(f"ACCELERATE_USE_{plugin}", "false").lower() in ("1", "true"):
                raise UserError(
                    f"ACCELERATE_USE_{plugin}: models are split over processes by FSDP2 only; launch with --use_fsdp "
                    f"--fsdp_version 2, or without --use_{plugin.lower()}, where one device holds the model"
                )
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch warns where every parameter has a gradient
        return True
    _refuse(
        "they do not know of each other. Start them with torchrun or accelerate launch: "
        "torchrun --nproc_per_node N -m structune train RECIPE"
    )
    os.environ.pop("LOCAL_RANK", None)
    return False


def refuse_several_processes() -> None:
    """Raises `UserError` when this process is one of several of one launch: they would all write the same files."""
    _refuse("this runs in one process only (train alone runs in several). Start it once, without the launcher")
    os.environ.pop("LOCAL_RANK", None)


def first_rank() -> bool:
    """Whether this process speaks for its launch: it is the first of several, or alone."""
    for size, rank in zip(_SIZES, _RANKS, strict=True):
        if (_number(size) or 1) > 1:
            return not _number(rank)
    return True


def _refuse(why: str) -> None:
    for size, rank in zip(_SIZES, _RANKS, strict=True):
        count = _number(size)
        if count is not None and count > 1:
            raise UserError(
                f"{size} = {count}: this is process {_number(rank) or 0} of {count} of one launch (torchrun, "
                f"accelerate launch, mpirun, srun), and {why}; if it is one process all the same, unset {size}"
            )


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else None
