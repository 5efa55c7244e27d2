"""GPUs, reasoned and not measured: from the multiplications and the bytes of each algorithm, nothing was timed.

What a GPU is taken for lies between an A100 and an H100, by their data sheets, with products at three quarters of their
peak and memory at 85 %:

    product in fp32, no TF32        9.5 – 30 · 10¹² multiplications a second
    product in bf16 or fp16         120 – 370 · 10¹²
    numbers of 4 bytes to or fro    330 – 710 · 10⁹ a second

So in the time that a number of 4 bytes takes to be read or written, 29 – 42 are multiplied in fp32 (`ACCESS`), and 360
– 520 in half precision, tensor cores being that much faster. All else is counted in such accesses.
"""

from __future__ import annotations

import torch

from structune.products.devices.case import Case

ACCESS, ACCESS_HALF = 32, 400
"""Multiplications that take as long as reading or writing a number of 4 bytes, by the dtype of the product."""

TRANSFORM_ACCESSES = 5
"""Transforms are in fp32 whatever x's dtype. An input's number is read and written when it is padded, again by the
transform, and read by the product per frequency; an output's is written there, read and written by the transform back,
read and written when it is cropped. cuFFT's own arithmetic, 2.5 log₂ L for each number, hides behind that."""

BUILDING_ACCESSES = 10
"""To build an entry is to write it, read and write it when it is scaled and when it is rounded; to pull a gradient back
is to write it as a product, read and write it when it is scaled, and read it in sums: ten in all with what is made
again for the input's gradient."""

FEW_TOKENS = 64
"""As on a CPU: from here on the matrix is not kept for the backward pass, so that a model's layers do not keep as many
numbers as they have frozen ones."""


class CUDA:
    """A GPU with some 100 multiprocessors. 5 µs go by before any operation: small pieces waste them."""

    # Numbers of a piece that fill all multiprocessors, and still fit into second-level caches of 40 to 50 MB in part.
    chunk_bytes = 64 << 20
    # A strip of 2²⁰ entries, 256 rows of 4,096, is 4 MB, which takes less than the 5 µs; and its product with 2,048
    # tokens has 32 tiles of 128 × 128 for 108 to 132 multiprocessors. 2²⁴ entries are a whole matrix up to 4,096².
    strip_entries = 1 << 24

    def transform_cost(self, dtype: torch.dtype) -> int:
        return TRANSFORM_ACCESSES * _access(dtype)

    def choose(self, case: Case) -> str:
        """The least sum of products, moved numbers and built entries, per token.

        A product is there three times where gradients are recorded, for y, x̄ and the numbers' own; `fold` adds only the
        last to what the frozen layer takes. `dft_gemm` takes about √L multiplications for each number and side, in fp32
        too: never less than `fft`.
        """
        structure, transform = case.structure, self.transform_cost(case.dtype)
        products = 3 if case.grad else 1
        building = case.entries * BUILDING_ACCESSES * _access(case.dtype) / max(1, case.tokens)
        built = "fold" if case.tokens > FEW_TOKENS and case.builds_strips else "dense"
        costs = {built: products * case.entries + building}
        if structure.has_convolutions:
            # One vector for each input and output, and each of those between two links to and fro.
            length = structure.numel if not structure.inner_vectors else max(structure.rows, structure.cols)
            vectors = case.num_block_rows + case.num_block_cols + 2 * case.num_blocks * structure.inner_vectors
            costs["fft"] = products * vectors * length * transform
        if case.folds:
            gradient = min(case.entries, costs["fft"] / products) if "fft" in costs else case.entries
            costs["fold"] = building + (gradient if case.grad else 0)
        if structure.has_own_product:
            accesses = 1 if case.is_half else 2  # once to and once fro, of 2 or of 4 bytes
            costs["factored"] = products * case.own_product(accesses * _access(case.dtype))
        return min(costs, key=lambda name: costs[name])


def _access(dtype: torch.dtype) -> int:
    return ACCESS_HALF if dtype in (torch.bfloat16, torch.float16) else ACCESS
