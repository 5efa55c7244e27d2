"""Against PEFT's own C3A: the same forward on the same kernels, and a right input gradient where PEFT's is not."""

from __future__ import annotations

import pytest
import torch
from peft import C3AConfig, get_peft_model
from peft.tuners.c3a.utils import BlockCircularConvolution
from torch import nn

import structune
from structune.structures.families.circulant import first_column


def pair(out_features: int, in_features: int, block_size: int) -> tuple[nn.Module, nn.Module]:
    """PEFT's C3A and ours on the same layer with the same kernels; theirs are first rows, ours first columns."""

    def layer() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(in_features, out_features)).double()

    theirs = get_peft_model(layer(), C3AConfig(block_size=block_size, target_modules=["0"])).double()
    config = structune.c3a(block_size=block_size, target_modules=["0"], scale="1/in_features")
    ours = get_peft_model(layer(), config).double()
    kernel = theirs.base_model.model[0].c3a_kernel["default"]
    assert kernel.abs().max() > 0
    with torch.no_grad():
        ours.base_model.model[0].structune_delta["default"].pool.copy_(first_column(kernel).flatten())
    return theirs, ours


@pytest.mark.parametrize(("out_features", "in_features", "block_size"), [(24, 24, 24), (24, 36, 12), (30, 12, 2)])
def test_forward_equals_on_copied_kernels(out_features, in_features, block_size) -> None:
    theirs, ours = pair(out_features, in_features, block_size)
    x = torch.randn(3, 5, in_features, dtype=torch.float64)
    # PEFT casts x to fp32 inside, so its own rounding is the bound.
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-7)
    own_delta = ours.base_model.model[0].get_delta_weight("default")
    torch.testing.assert_close(own_delta, theirs.base_model.model[0].get_delta_weight("default"), rtol=0, atol=1e-7)


def test_input_gradient_is_right_where_pefts_is_not() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(2, 1, 8, dtype=torch.float64, requires_grad=True)
    weight_gradient = torch.randn(2, 16, dtype=torch.float64)

    theirs = BlockCircularConvolution.apply(x, kernel)
    block = structune.structures.get("circulant")(8, 8)
    ours = structune.products.block_matmul(block, x.unsqueeze(1), {"c": first_column(kernel)}, "fft").flatten(1)
    torch.testing.assert_close(ours, theirs)

    matrix = block.dense(c=first_column(kernel)).squeeze(1).flatten(0, 1)
    true = weight_gradient @ matrix
    (our_gradient,) = torch.autograd.grad(ours, x, weight_gradient)
    (their_gradient,) = torch.autograd.grad(theirs, x, weight_gradient)
    torch.testing.assert_close(our_gradient, true)
    assert torch.cosine_similarity(their_gradient.flatten(), true.flatten(), dim=0) < 0.9, (
        "PEFT was mended: say so in docs/"
    )


@pytest.mark.parametrize("algorithm", ["dense", "fft"])
def test_gradcheck_of_the_adapted_layer(algorithm) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 8)).double()
    config = structune.c3a(block_size=4, target_modules=["0"], algorithm=algorithm)
    model = get_peft_model(layer, config).double()
    pool = model.base_model.model[0].structune_delta["default"].pool
    nn.init.normal_(pool)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def forward(x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        name = "base_model.model.0.structune_delta.default.pool"
        return torch.func.functional_call(model, {name: numbers}, (x,))

    assert torch.autograd.gradcheck(forward, (x, pool.detach().clone().requires_grad_()))
