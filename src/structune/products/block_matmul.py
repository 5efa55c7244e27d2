"""The primitive: a grid of structured blocks times a batch of vectors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from structune.products.choice import ALGORITHMS, resolve
from structune.products.precision import working_dtype
from structune.structures import Structure
from structune.surroundings import without_autocast


def block_matmul(
    structure: Structure,
    x: Tensor,
    generators: Mapping[str, Tensor],
    algorithm: str = "auto",
    start: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """y_p = Σ_q (W(generators[p, q]) − W(start[p, q])) x_q, the product with a P×Q grid of M×N blocks.

    Args:
        structure: the family and size of the blocks.
        x: (…, Q, N), fp64, fp32, bf16 or fp16.
        generators: one tensor (P, Q, *shape) for each of the family's generators, fp32 or wider for full accuracy.
        algorithm: "auto" or a name in `structune.products.ALGORITHMS`.
        start: generators of what is subtracted, of the same shapes and not differentiated; None subtracts nothing.

    Returns:
        (…, P, M) in x's dtype. The difference is taken before anything is rounded to it.

    Raises:
        ValueError: shapes do not fit, or the algorithm cannot carry out this family's product.
    """
    num_rows, num_cols = _grid(structure, generators)
    if x.dim() < 2 or tuple(x.shape[-2:]) != (num_cols, structure.cols):
        raise ValueError(f"x has shape {tuple(x.shape)}, (…, {num_cols}, {structure.cols}) expected")
    x_TQN = x.reshape(-1, num_cols, structure.cols)
    name = resolve(algorithm, structure, (num_rows, num_cols), x_TQN.shape[0], x.dtype, x.device.type)
    module = ALGORITHMS[name]
    if start is not None:
        _grid(structure, start)
        merged = structure.difference(generators, start)
        if merged is not None and module.supports(merged[0]):
            (structure, generators), start = merged, None
    if start is None:
        y_TPM = module.multiply(structure, x_TQN, generators)
    else:
        # Most of either product cancels: what is rounded before the difference is taken would be left alone.
        wide = x_TQN.to(working_dtype(x, *generators.values()))
        with without_autocast(x.device):
            y_TPM = module.multiply(structure, wide, generators) - module.multiply(structure, wide, start)
    return y_TPM.to(x.dtype).reshape(*x.shape[:-2], num_rows, structure.rows)


def _grid(structure: Structure, generators: Mapping[str, Tensor]) -> tuple[int, int]:
    """P and Q."""
    structure.check(generators)
    shapes = structure.shapes
    grids = {name: tuple(g.shape[: g.dim() - len(shapes[name])]) for name, g in generators.items()}
    grid = next(iter(grids.values()))
    if len(grid) != 2 or any(other != grid for other in grids.values()):
        raise ValueError(f"generators must share the leading dimensions (P, Q); theirs are {grids}")
    return grid[0], grid[1]
