"""TRL's Triton kernels where they can be compiled, and torch's operations where they cannot."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
from trl.kernels import chunked_logprob
from trl.trainer import utils

from structune.doubt import say


@cache
def use_what_compiles() -> None:
    """Have TRL do without Triton where a GPU is there, and nothing that makes Triton's kernels work on it.

    Triton compiles when a kernel is first called, with a C compiler and Python's headers: many machines have neither,
    and TRL looks for the package alone. Its operations of torch compute the same, with more memory.

    Warns:
        UserWarning: it does without.
    """
    own = int(os.environ.get("LOCAL_RANK", "0")) % max(1, torch.cuda.device_count())  # of several processes
    device = torch.device("cuda", own)
    if not torch.cuda.is_available() or not chunked_logprob._use_triton(device):
        _score_what_is_learned()
        return
    try:
        with torch.cuda.device(device):  # Triton takes the current one
            _score_a_token(device)
    except Exception as error:  # noqa: BLE001  (whatever compilers and drivers raise)
        reason = " ".join(str(error).split())[:200]
        say(
            [
                f"Triton's kernels do not compile here ({type(error).__name__}: {reason}): language models are trained "
                f"without them, and take more memory; install a C compiler and Python's headers to have them"
            ]
        )
        chunked_logprob._TRITON_AVAILABLE = False
        vars(utils)["is_triton_available"] = lambda: False  # the name under which it was imported there
        _score_what_is_learned()


def _score_what_is_learned() -> None:
    """Have TRL pass over tokens without a label where it does without Triton, too.

    It would score them all, for compilers that want the same sizes in every batch; torch's operations do not.
    """
    vars(utils)["_use_triton"] = lambda device: True  # what is asked there decides that alone


def _score_a_token(device: torch.device) -> None:
    """Call a kernel as a training does, on one token."""
    hidden, weight = torch.zeros(1, 16, device=device), torch.zeros(16, 16, device=device)
    first = torch.zeros(1, dtype=torch.long, device=device)
    score: Any = chunked_logprob.ChunkedLogProbFunction.apply
    score(hidden, weight, None, first, 1.0, 16, None, 1.0, ("is_top1",))
