"""How a grid of blocks multiplies: one function, several algorithms, and the choice between them."""

from structune.products.block_matmul import block_matmul
from structune.products.choice import ALGORITHMS, check, choose, resolve
from structune.products.folding import fold, fold_update
from structune.products.update import Update

__all__ = ["ALGORITHMS", "Update", "block_matmul", "check", "choose", "fold", "fold_update", "resolve"]
