"""Everything a product computes, by name: its result and all its gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from structune import products
from structune.structures import Structure
from structune.testing.samples import sample_inputs

Matmul = Callable[[Structure, Tensor, Mapping[str, Tensor]], Tensor]
"""A product: structure, x (…, Q, N), generators (P, Q, …) to (…, P, M)."""


def algorithms(structure: Structure) -> list[str]:
    """The names of all algorithms that can carry out the family's product."""
    return [name for name, module in products.ALGORITHMS.items() if module.supports(structure)]


def by_algorithm(algorithm: str) -> Matmul:
    """`products.block_matmul` with that algorithm."""
    return lambda structure, x, generators: products.block_matmul(structure, x, generators, algorithm)


def reference_matmul(structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> Tensor:
    """y_p = Σ_q W[p, q] x_q from `Structure.dense`, in the dtype of its arguments: what every algorithm must equal."""
    return torch.einsum("pqmn,...qn->...pm", structure.dense(**generators), x)


def cotangent(y: Tensor) -> Tensor:
    """A fixed random output gradient: multiples of 1/4, the same numbers in every dtype."""
    return sample_inputs(*y.shape, seed=2).mul(4).round().div(4).to(y.dtype)


def outcomes(matmul: Matmul, structure: Structure, x: Tensor, generators: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """y and, for a fixed random output gradient, the gradients of x and of every generator, as "y", "d x", "d t", ….

    An input on which y does not depend is an error.
    """
    leaves = {"x": x, **generators}
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
    y = matmul(structure, leaves["x"], {name: leaves[name] for name in generators})
    gradients = torch.autograd.grad(y, tuple(leaves.values()), cotangent(y))
    return {"y": y.detach()} | {f"d {name}": g for name, g in zip(leaves, gradients, strict=True)}
