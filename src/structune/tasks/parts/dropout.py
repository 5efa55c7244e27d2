"""Dropout of a pretrained model, switched off where two answers of it are compared."""

from __future__ import annotations

from torch import nn


def switch_off_dropout(model: nn.Module) -> None:
    """Keep the model from dropping anything while it is trained; what an adapter drops is made later, and stays.

    Some architectures have modules for it, others a probability among the attributes of their attention.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if name.endswith(("dropout", "dropout_p", "dropout_prob", "_pdrop")) and isinstance(value, float):
                setattr(module, name, 0.0)
