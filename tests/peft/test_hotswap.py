"""Swapping numbers in place: exact, all or nothing, and no new compilation."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

import structune
from structune import hotswap_adapter

CONFIGS = {
    "own": structune.c3a(block_size=4, target_modules=["lin0", "lin1"]),
    "pool": structune.hydra("toeplitz", pool_size=12, num_splits=3, target_modules=["lin0", "lin1"], seed=3),
    "start": structune.hydra("cauchy", pool_size=12, num_splits=3, fixed_ratio=0.5, target_modules=["lin0", "lin1"]),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS)
def saved(request, mlp, randomise, tmp_path):
    """The configuration and two folders of adapters with the outputs that they give."""
    x = torch.randn(5, 10)
    outputs = {}
    for seed, name in enumerate(("one", "two")):
        model = randomise(get_peft_model(mlp(), request.param), seed=seed, std=1.0).eval()
        model.save_pretrained(tmp_path / name)
        outputs[name] = model(x).detach()
    assert (outputs["one"] - outputs["two"]).abs().max() > 1e-3
    return request.param, tmp_path, x, outputs


def test_swapped_numbers_are_the_other_adapter(saved, mlp) -> None:
    config, folder, x, outputs = saved
    model = get_peft_model(mlp(), config).eval()
    tensors = {name: tensor.data_ptr() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    for name in ("one", "two", "one"):
        hotswap_adapter(model, folder / name)
        assert torch.equal(model(x), outputs[name])
        with torch.no_grad():
            torch.testing.assert_close(model(x), outputs[name])
    assert tensors == {name: tensor.data_ptr() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def test_a_compiled_model_is_not_compiled_anew(saved, mlp) -> None:
    config, folder, x, outputs = saved
    model = get_peft_model(mlp(), config).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    hotswap_adapter(model, folder / "one")
    torch.testing.assert_close(compiled(x), outputs["one"])
    with torch.compiler.set_stance("fail_on_recompile"):
        for name in ("two", "one"):
            hotswap_adapter(model, folder / name)
            torch.testing.assert_close(compiled(x), outputs[name])
    torch.compiler.reset()


def test_another_pattern_is_another_update(mlp, randomise, tmp_path) -> None:
    plain = structune.c3a(block_size=4, target_modules=["lin0", "lin1"])
    scaled = structune.c3a(block_size=4, target_modules=["lin0", "lin1"], scale_pattern={"lin0": 0.5})
    randomise(get_peft_model(mlp(), scaled)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"scale_pattern=\{'lin0': 0.5\}, but adapter 'default' has \{\}"):
        hotswap_adapter(get_peft_model(mlp(), plain), tmp_path)


def test_what_does_not_fit_changes_nothing(mlp, randomise, tmp_path) -> None:
    config = structune.c3a(block_size=4, target_modules=["lin0", "lin1"])
    model = randomise(get_peft_model(mlp(), config)).eval()
    x = torch.randn(5, 10)
    before = model(x)
    other = get_peft_model(mlp(), structune.c3a(block_size=5, target_modules=["lin0", "lin1"]))
    other.save_pretrained(tmp_path / "sizes")
    fewer = get_peft_model(mlp(), structune.c3a(block_size=4, target_modules=["lin0"]))
    fewer.save_pretrained(tmp_path / "fewer")
    with pytest.raises(ValueError, match="block_size=5, but adapter 'default' has 4"):
        hotswap_adapter(model, tmp_path / "sizes")
    with pytest.raises(ValueError, match="the checkpoint lacks 1 of the 2 tensors"):
        hotswap_adapter(model, tmp_path / "fewer")
    with pytest.raises(ValueError, match=r"adapter_name='other': the model has \['default'\]"):
        hotswap_adapter(model, tmp_path / "fewer", "other")
    assert torch.equal(model(x), before)
