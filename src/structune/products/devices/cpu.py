"""CPUs, as measured: x86 with two cores, fp32, forward and backward, 256 to 2048 wide, `structune bench calibrate`.

In bf16 only convolutions were, `structune bench calibrate-bf16`; the rest is as in fp32.

The family's own product was measured later and in the same way, on one core, as in `OWN_PRODUCT` below.
"""

from __future__ import annotations

import torch

from structune.products.devices.case import Case

FOLD_TOKENS, FOLD_SHARE = 256, 1 / 4
"""Where ΔW may be added to a weight, `fold` pays from so many tokens on, and from this share of the width √(in·out).
Without gradients spectra are kept from call to call, W + ΔW is not: then from as many tokens on as W has entries for
each number of a token that `fft` transforms, about a kernel's length for each of √(P·Q) inputs and as many outputs."""

FEW_VECTORS, FEW_VECTORS_TOKENS = 2, 512
"""A chain of two convolutions passes through P·Q·R vectors per token. Up to so many, `fft` pays below so many tokens;
above,"""
FEW_TOKENS = 64
"""up to so many tokens. From here on `fold` also beats `dense` where there is no weight: it keeps no matrix."""

MOVING = 64
"""Multiplications that take as long as writing a number and reading it again, between two products of one's own."""

OWN_BESIDE_FOLD = 4
"""`fold` adds one product, the gradient's, to those of the frozen layer, and one's own adds three smaller ones. So its
own product pays where it takes a quarter as long as one with the whole matrix; beside `dense`, where it takes less."""

BUILDING = 256
"""Tokens whose product with the matrix takes as long as building its entries and pulling gradients back through them.

This and the two above are from low rank of 1 to width/2, Kronecker products, Monarch matrices and block-diagonal ones
of 2 to 16 blocks, as 1 and as 4 × 4 blocks, 256, 768 and 2048 wide, 16 to 2048 tokens, fp32 on one core: medians of
interleaved rounds of x Wᵀ + ΔW x, forward and backward, over x Wᵀ alone. With 2048 tokens and 768 wide, of what
`fold` adds to the frozen layer one's own product adds 0.7 at a 7th of the multiplications (Kronecker, moved numbers
included), 1.0 at a quarter (block-diagonal), 1.9 at a half, and 3 to 4 at as many as the matrix has entries
(Kronecker and Monarch in 4 × 4 blocks); with 16 tokens it adds less in all cases, with 128 in all but one of 30. With
the four families that have such a product `auto` takes what is least, or within 15 % of it, in 84 of 90 such cases; it
loses most, 1.5 times, with a Monarch matrix of 32 square blocks, 768 wide, and 2048 tokens."""


HALF_IS_FAST: bool = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
"""Whether matrix products are faster in bf16 than in fp32 here, as far as was measured: with AVX512-BF16."""

HALF_TRANSFORM, HALF_BUILDING = 260, 100
"""In bf16: entries of a matrix that take as long, multiplied for y, x̄ and their own gradient, as transforming a number
of a token; and `BUILDING` of a convolution's matrix. With 512 tokens a square layer is trained by `dense` where it is
at most 435 wide (circulant) or 870 (Toeplitz, Hankel): so small a matrix may be kept for the backward pass.

From `structune bench calibrate-bf16` on one core: over its 52 cases, 384 to 2048 wide with 64 to 2,048 tokens, what is
chosen takes 1 % longer than the fastest in the geometric mean, and at most 29 %."""


class CPU:
    """Two cores with a second-level cache of 1 MiB or so each."""

    chunk_bytes = 3 << 19  # what the caches hold
    # Fewer rows make products slower, most of all where the matrix is small; with 2,048 columns 512 rows at once are as
    # fast as 2,048.
    strip_entries = 1 << 20

    def transform_cost(self, dtype: torch.dtype) -> int:
        return 64

    def choose(self, case: Case) -> str:
        if case.structure.has_own_product and self._own_product_pays(case):
            return "factored"
        built = "fold" if case.tokens > FEW_TOKENS and case.builds_strips else "dense"
        if not case.structure.has_convolutions:
            return "fold" if case.folds else built
        if vectors := case.num_blocks * case.structure.inner_vectors:
            return "fft" if case.tokens <= (FEW_VECTORS_TOKENS if vectors <= FEW_VECTORS else FEW_TOKENS) else built
        transformed = 2 * case.num_blocks**0.5 * case.structure.numel
        in_bf16 = case.dtype == torch.bfloat16 and HALF_IS_FAST and case.grad and case.entries <= self.strip_entries
        if in_bf16 and case.entries * (1 + HALF_BUILDING / max(1, case.tokens)) < HALF_TRANSFORM * transformed:
            return "dense"
        enough = max(FOLD_TOKENS, FOLD_SHARE * case.width if case.grad else case.width**2 / transformed)
        return "fold" if case.folds and case.tokens >= enough else "fft"

    def _own_product_pays(self, case: Case) -> bool:
        least = OWN_BESIDE_FOLD if case.folds else 1
        return least * case.own_product(MOVING) <= case.entries * (1 + BUILDING / max(1, case.tokens))
