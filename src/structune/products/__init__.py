"""How a grid of blocks multiplies: one function, several algorithms, and the choice between them.

A tensor's name ends in its axes, a letter each: x_TQN has the axes (T, Q, N), and y_TPM comes of it.

    T     tokens: all leading dimensions of the input, flattened
    P, Q  rows and columns of the grid, counted in blocks: outputs lie in P pieces, inputs in Q
    M, N  rows and columns of a block: the length of a piece of the output, of the input
    B     groups that have nothing to do with one another, such as the terms of a sum
    R, C  rank; channels, which are P or Q where a transform does not care
    K     length of a kernel      L  of what is transformed      F  number of frequencies

A capital before the underscore is the transform: X_TBQF is that of x_TBQN.

A convolution is four things, each in its place: what a family says about itself (`structures.Convolution`), one or two
of them as a whole product (`chain.Chain`), the differentiable operator that multiplies by kernels (`convolve.convolve`)
and, in the definitions of families, the function of two vectors (`numerics.cyclic.cyclic_convolution`).
"""

from structune.products.choice import ALGORITHMS, check, choose, resolve
from structune.products.folding import fold, fold_update
from structune.products.primitive import block_matmul
from structune.products.update import Update

__all__ = ["ALGORITHMS", "Update", "block_matmul", "check", "choose", "fold", "fold_update", "resolve"]
