"""A model of standardised numbers made one of the data's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def fold_units(model: nn.Module, mean: float, deviation: float, outputs: Callable[[], Tensor]) -> bool:
    """Fold y · deviation + mean into the layer that gives y, and return whether that could be done.

    It can where the model has one linear layer with one output and a bias, and nothing follows it: which is tried.
    The model is as it was where it cannot.

    Args:
        model: that gives a standardised number.
        mean: of the data.
        deviation: of the data.
        outputs: what the model gives (examples,), asked before and after.
    """
    last = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    if len(last) != 1 or last[0].bias is None:
        return False
    layer: Any = last[0]
    kept = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    with torch.no_grad():
        wanted = outputs().double() * deviation + mean
        layer.weight.mul_(deviation)
        layer.bias.mul_(deviation).add_(mean)
        found = outputs().double()
        if torch.allclose(found, wanted, rtol=1e-5, atol=1e-5 * (abs(mean) + deviation)):
            return True
        for name, parameter in layer.named_parameters():
            parameter.copy_(kept[name])
    return False
