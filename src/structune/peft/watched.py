"""Whether anybody would notice that a module is passed over."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as hooks


def watched(*modules: nn.Module) -> bool:
    """Whether somebody watches calls of these modules or of all: by hooks of any kind, or a `forward` put on one.

    Then what stands for several modules at once must not be used, and what they gave must not be changed in place.
    """
    if hooks._global_forward_pre_hooks or hooks._global_forward_hooks:
        return True
    if hooks._global_backward_pre_hooks or hooks._global_backward_hooks:
        return True
    for module in modules:
        if module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module):
            return True
        if module._backward_pre_hooks or module._backward_hooks:
            return True
    return False
