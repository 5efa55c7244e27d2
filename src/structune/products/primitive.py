"""The primitive: a grid of structured blocks times a batch of vectors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from structune.products.choice import ALGORITHMS, resolve
from structune.structures import Structure
from structune.surroundings import multiplied_in


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
    if start is not None:
        _grid(structure, start)
    tokens = x.shape[:-2].numel()
    name = resolve(algorithm, structure, (num_rows, num_cols), tokens, multiplied_in(x), x.device.type)
    return ALGORITHMS[name].grid_product(structure, x, generators, start)


def _grid(structure: Structure, generators: Mapping[str, Tensor]) -> tuple[int, int]:
    """P and Q."""
    structure.check(generators)
    shapes = structure.shapes
    grids = {name: tuple(g.shape[: g.dim() - len(shapes[name])]) for name, g in generators.items()}
    grid = next(iter(grids.values()))
    if len(grid) != 2 or any(other != grid for other in grids.values()):
        raise ValueError(f"generators must share the leading dimensions (P, Q); theirs are {grids}")
    return grid[0], grid[1]
