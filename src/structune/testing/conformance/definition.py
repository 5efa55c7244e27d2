"""What a block is."""

from __future__ import annotations

import torch
from torch import Tensor

from structune.testing.conformance.cases import EXACT, Size, case, grids, sizes, small_sizes
from structune.testing.errors import assert_close
from structune.testing.oracles import oracle_dense
from structune.testing.samples import make_structure, sample_generators


class Definition:
    """Blocks, their derivatives and their displacement."""

    @sizes
    @grids
    def test_dense_is_the_definition(self, family: str, size: Size, grid: Size) -> None:
        structure, _, generators = case(family, size, grid)
        assert_close(
            {"W": structure.dense(**generators)}, {"W": oracle_dense(structure, **generators)}, EXACT, str(structure)
        )

    @small_sizes
    def test_dense_broadcasts_leading_dimensions(self, family: str, size: Size) -> None:
        """Each generator has a leading dimension of its own; the blocks are those of the expanded generators."""
        structure = make_structure(family, *size)
        names = list(structure.shapes)
        narrow, full = {}, {}
        for k, name in enumerate(names):
            batch = [2 if axis == k else 1 for axis in range(len(names))]
            narrow[name] = sample_generators(structure, *batch, seed=k)[name]
            shape = structure.shapes[name]
            full[name] = narrow[name].expand(*[2] * len(names), *shape)
        assert_close({"W": structure.dense(**narrow)}, {"W": oracle_dense(structure, **full)}, EXACT, str(structure))

    @small_sizes
    def test_dense_is_twice_differentiable(self, family: str, size: Size) -> None:
        """First and second derivatives with respect to each generator alone and to all together, by differences."""
        structure, _, generators = case(family, size, (1, 2))
        names = list(generators)
        for chosen in [{name} for name in names] + [set(names)]:
            inputs = tuple(generators[name].detach().requires_grad_(name in chosen) for name in names)

            def dense(*numbers: Tensor) -> Tensor:
                return structure.dense(**dict(zip(names, numbers, strict=True)))

            torch.autograd.gradcheck(dense, inputs)
            torch.autograd.gradgradcheck(dense, inputs)

    @sizes
    def test_displacement_rank(self, family: str, size: Size) -> None:
        """rank(A W − W B) is at most the rank declared, which is below n; without a square there is no displacement."""
        structure = make_structure(family, *size)
        generators = sample_generators(structure)
        pair, declared = structure.displacement(**generators), structure.displacement_rank
        if size[0] != size[1] or declared is None:
            assert pair is None
            return
        assert pair is not None
        A, B = pair
        W = structure.dense(**generators)
        singular_values = torch.linalg.svdvals(A @ W - W @ B)
        scale = torch.linalg.matrix_norm(W, 2) * (torch.linalg.matrix_norm(A, 2) + torch.linalg.matrix_norm(B, 2))
        rank = int((singular_values > EXACT * scale).sum())
        assert rank <= declared, f"rank {rank}, at most {declared} declared"
        assert declared < max(size[0], 3), "a displacement rank of n says nothing"
