"""GPUs, as measured on an NVIDIA H200 with torch 2.11, fp32 without TF32 and bf16: `structune bench calibrate-cuda`.

Two clocks run there. The GPU's, in picoseconds for each multiplication, moved number and built entry; and that of the
process, which prepares every operation: a layer's forward and backward pass take it a millisecond or two, whatever the
sizes. The slower one is the time that goes by. So small layers are done by the algorithm of fewest operations, which is
`dense`, and large ones by that of least arithmetic.

Read off medians of five rounds at 1024² and 4096² with 64 to 8,192 tokens: there, what this file chooses takes 3 %
(bf16) and 2 % (fp32) longer than the fastest, in the geometric mean over eleven families, and at most 24 %. Since then
it was not timed again, and never on another GPU.
"""

from __future__ import annotations

import torch

from structune.products.devices.case import Case

MULTIPLICATION, MULTIPLICATION_HALF = 0.04, 0.0026
"""Picoseconds of a large product, by its dtype: 25 and 380 · 10¹² a second."""

TRANSFORM = 10.0
"""Of an input's or output's number, to the frequencies or back: padded, transformed, multiplied with one kernel,
cropped, in fp32 whatever x's dtype."""

MIXED = 9.0
"""More for each, where several blocks meet at a frequency: a small complex product each, which fill no tensor cores."""

ADDED = 6.0
"""Of a number of the result or of x̄ that is worked out beside the frozen layer's and added to it."""

MOVED = 4.0
"""Of a number that a family's own product writes and reads in between."""

ENTRY, ENTRY_LARGE = 40.0, 90.0
"""Of an entry that is built, and its gradient pulled back: of a grid of blocks, and of one block, whose numbers are in
that many more places."""

OPERATIONS = {"dense": 1.2e9, "factored": 0.7e9, "fft": 2.1e9, "fold": 2.2e9}
"""What a process takes to prepare the forward and the backward pass of a layer; the forward pass alone is a quarter."""

OPERATIONS_OF_A_MOVE = 0.25e9
"""More for a family's own product, for each time that it writes and reads its vectors in between."""

OPERATIONS_OF_LINKS = {"dense": 4.6e9, "fft": 3.8e9, "fold": 7.5e9}
"""The same of chains with inner vectors."""

OPERATIONS_OF_ENTRIES = {"dense": 3.0e9, "fold": 4.0e9}
"""The same where entries are computed one by one, from nodes and powers."""

FEW_TOKENS = 64
"""As on a CPU: from here on the matrix is not kept for the backward pass, so that a model's layers do not keep as many
numbers as they have frozen ones."""


class CUDA:
    """A GPU with some 130 multiprocessors."""

    # Numbers of a piece that fill all multiprocessors, and still fit into second-level caches of 40 to 60 MB in part.
    chunk_bytes = 64 << 20
    # A strip of 2²⁰ entries, 256 rows of 4,096, is 4 MB, which takes less than an operation's preparation; and its
    # product with 2,048 tokens has 32 tiles of 128 × 128 for 132 multiprocessors. 2²⁴ entries are a whole matrix up to
    # 4,096².
    strip_entries = 1 << 24

    def transform_cost(self, dtype: torch.dtype) -> int:
        return round(TRANSFORM / _multiplication(dtype))

    def choose(self, case: Case) -> str:
        """The algorithm for which the slower clock shows least; where several do not show, that of fewest operations.

        A product is there three times where gradients are recorded, for y, x̄ and the numbers' own; `fold` adds only the
        last to what the frozen layer takes. `dft_gemm` takes about √L multiplications for each number and side, in fp32
        too: never less than `fft`.
        """
        structure, multiplication = case.structure, _multiplication(case.dtype)
        products = 3 if case.grad else 1
        frozen = (2 if case.grad else 1) * case.entries * multiplication * case.tokens
        added = ADDED * (2 if case.grad else 1) * _vectors_of(case) * case.tokens
        building = case.entries * (ENTRY if case.num_blocks > 1 or not structure.has_convolutions else ENTRY_LARGE)
        multiplied = case.entries * multiplication * case.tokens
        gpu = {"dense": products * multiplied + added + building}
        if case.builds_strips and case.tokens > FEW_TOKENS:
            gpu["fold"] = gpu["dense"]  # ΔW alone, strip by strip: nothing is kept
        if structure.has_convolutions:
            # One vector for each input and output, and each of those between two links to and fro.
            length = structure.numel if not structure.inner_vectors else max(structure.rows, structure.cols)
            vectors = case.num_block_rows + case.num_block_cols + 2 * case.num_blocks * structure.inner_vectors
            each = TRANSFORM + (MIXED if case.num_blocks > 1 or structure.inner_vectors else 0.0)
            transformed = vectors * length * each * case.tokens
            gpu["fft"] = products * transformed + added
        if case.folds:
            gradient = min(multiplied, transformed) if "fft" in gpu else multiplied
            gpu["fold"] = building + (gradient if case.grad else 0.0)
        if structure.has_own_product:
            gpu["factored"] = products * case.own_product(MOVED / multiplication) * multiplication * case.tokens + added
        process = _operations(case)
        share = 1.0 if case.grad else 0.25

        def time(name: str) -> tuple[float, float, float]:
            return max(process[name] * share, frozen + gpu[name]), process[name], gpu[name]

        return min(gpu, key=time)


def _multiplication(dtype: torch.dtype) -> float:
    return MULTIPLICATION_HALF if dtype in (torch.bfloat16, torch.float16) else MULTIPLICATION


def _vectors_of(case: Case) -> int:
    """Numbers of x and y for each token."""
    return case.num_block_rows * case.structure.rows + case.num_block_cols * case.structure.cols


def _operations(case: Case) -> dict[str, float]:
    structure = case.structure
    if structure.has_own_product:
        grid = case.num_block_rows, case.num_block_cols
        moves = 2 * structure.moved(*grid) / _vectors_of(case)
        return OPERATIONS | {"factored": OPERATIONS["factored"] + OPERATIONS_OF_A_MOVE * moves}
    if structure.has_convolutions and structure.inner_vectors:
        return OPERATIONS | OPERATIONS_OF_LINKS
    if structure.has_convolutions:
        return OPERATIONS
    return OPERATIONS | OPERATIONS_OF_ENTRIES
