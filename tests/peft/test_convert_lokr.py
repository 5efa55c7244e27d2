"""PEFT's LoKr and back: the same forward and the same ΔW, or a refusal that says why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoKrConfig, LoraConfig, PeftModel, get_peft_model
from torch import nn

import structune
from structune import StructuneConfig, convert
from structune.peft import StructuneLayer

from ..forked import python

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
LINEAR = ["query", "intermediate.dense", "classifier"]  # 32×32, 48×32 and 3×32: square, even and prime sizes


def lokr(bert, randomise, **options):
    options = {"r": 4, "alpha": 6, "target_modules": LINEAR} | options
    return randomise(get_peft_model(bert(), LoKrConfig(**options)), std=0.5).eval()


def assert_same_updates(ours, theirs, **tolerance) -> None:
    """ΔW of every layer, not the forward alone."""
    layers = {name: layer for name, layer in ours.get_base_model().named_modules() if isinstance(layer, StructuneLayer)}
    assert layers
    for name, layer in layers.items():
        expected = theirs.get_base_model().get_submodule(name).get_delta_weight("default")
        assert expected.abs().max() > 1e-2
        torch.testing.assert_close(layer.get_delta_weight("default"), expected, **(tolerance or CLOSE))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"r": 64},
        {"r": 1, "decompose_both": True},
        {"r": 1, "decompose_both": True, "decompose_factor": 2},
        {"decompose_factor": 16},
        {"decompose_factor": 3},
        {"rank_pattern": {"query": 64}, "alpha_pattern": {"1.*query": 1}},
        {"modules_to_save": ["pooler.dense"], "exclude_modules": ["classifier"]},
    ],
    ids=["rank", "whole", "both", "both-factor", "large-factor", "odd-factor", "patterns", "more"],
)
def test_there_and_back(options, bert, ids, randomise, tmp_path) -> None:
    theirs = lokr(bert, randomise, **options)
    theirs.save_pretrained(tmp_path / "theirs")
    expected = theirs(ids).logits
    assert (expected - bert()(ids).logits).abs().max() > 1e-3
    for source in (theirs, tmp_path / "theirs"):
        converted = convert.from_peft_lokr(source)
        assert len(converted.errors) == (4 if "exclude_modules" in options else 5)
        assert max(converted.errors.values()) < 1e-6
        ours = converted.load_into(bert()).eval()
        assert_same_updates(ours, theirs)
        torch.testing.assert_close(ours(ids).logits, expected, **CLOSE)
    converted.save(tmp_path / "ours")
    loaded = PeftModel.from_pretrained(bert(), tmp_path / "ours").eval()
    torch.testing.assert_close(loaded(ids).logits, expected, **CLOSE)
    back = convert.to_peft_lokr(loaded)
    again = back.load_into(bert()).eval()
    assert type(again.base_model).__name__ == "LoKrModel"
    assert_same_updates(loaded, again)
    torch.testing.assert_close(again(ids).logits, expected, **CLOSE)


@pytest.mark.parametrize(
    "config",
    [
        StructuneConfig(structure="kronecker", num_splits=1, target_modules=["query", "output.dense"], scale=0.3),
        StructuneConfig(
            structure="kronecker",
            num_splits=1,
            left_rows=8,
            left_cols=8,
            target_modules=["output.dense"],
            init_weights=False,
        ),
    ],
    ids=["nearly-square", "of-eight"],
)
def test_peft_alone_reads_what_is_written(config, bert, ids, randomise, tmp_path) -> None:
    ours = randomise(get_peft_model(bert(), config), std=2.0).eval()
    convert.to_peft_lokr(ours).save(tmp_path / "theirs")
    torch.save(ids, tmp_path / "ids")
    code = f"""
import sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from peft import PeftModel
from conftest import make_bert
model = PeftModel.from_pretrained(make_bert(), {str(tmp_path / "theirs")!r})
assert "structune" not in sys.modules
torch.save(model.eval()(torch.load({str(tmp_path / "ids")!r})).logits.detach(), {str(tmp_path / "out")!r})
"""
    python(code)
    assert (ours(ids).logits - bert()(ids).logits).abs().max() > 1e-3
    torch.testing.assert_close(torch.load(tmp_path / "out"), ours(ids).logits, **CLOSE)


def image_model(kernel: int = 3, groups: int = 1, dims: int = 2) -> nn.Module:
    torch.manual_seed(0)
    if dims == 1:
        return nn.Sequential(nn.Conv1d(8, 12, kernel, padding="same"), nn.ReLU())
    return nn.Sequential(nn.Conv2d(36, 48, kernel, padding="same", groups=groups), nn.ReLU())


@pytest.mark.parametrize("options", [{"r": 64}, {"r": 2}, {"r": 2, "use_effective_conv2d": True}])
@pytest.mark.parametrize(("kernel", "groups"), [(3, 1), (1, 1), (3, 2)])
def test_convolutions_there_and_back(options, kernel, groups, randomise) -> None:
    x = torch.randn(2, 36, 6, 5)
    theirs = get_peft_model(image_model(kernel, groups), LoKrConfig(alpha=3, target_modules=["0"], **options))
    theirs = randomise(theirs, std=0.5).eval()
    parts = {name for name, value in theirs.get_base_model()[0].named_parameters() if "lokr" in name}
    whole, effective = options["r"] == 64, "use_effective_conv2d" in options and kernel > 1
    assert any("w2_a" in name for name in parts) != whole
    assert any("t2" in name for name in parts) == effective
    ours = convert.from_peft_lokr(theirs).load_into(image_model(kernel, groups)).eval()
    assert_same_updates(ours, theirs)
    torch.testing.assert_close(ours(x), theirs(x), **CLOSE)
    again = convert.to_peft_lokr(ours).load_into(image_model(kernel, groups)).eval()
    assert_same_updates(ours, again)
    torch.testing.assert_close(again(x), theirs(x), **CLOSE)


def test_convolutions_in_one_dimension(randomise) -> None:
    theirs = get_peft_model(image_model(dims=1), LoKrConfig(r=1, alpha=3, target_modules=["0"]))
    theirs = randomise(theirs, std=0.5).eval()
    x = torch.randn(2, 8, 6)
    ours = convert.from_peft_lokr(theirs).load_into(image_model(dims=1)).eval()
    torch.testing.assert_close(ours(x), theirs(x), **CLOSE)
    with pytest.raises(ValueError, match=r"0: PEFT's LoKr says this of nn.Linear and nn.Conv2d alone"):
        convert.to_peft_lokr(ours)


def test_a_whole_w2_in_one_dimension_is_no_kronecker_product(randomise) -> None:
    """Kronecker products have rank one once their entries are laid out as left × right."""
    theirs = get_peft_model(image_model(dims=1), LoKrConfig(r=64, target_modules=["0"]))
    theirs = randomise(theirs, std=0.5).eval()
    weight = theirs.get_base_model()[0].get_delta_weight("default").flatten(1)  # 12 × 8·3
    for (a, c), (b, d) in (((3, 2), (4, 12)), ((4, 2), (3, 12))):
        rearranged = weight.view(a, b, c, d).transpose(1, 2).reshape(a * c, b * d)
        assert torch.linalg.matrix_rank(rearranged, rtol=1e-4) > 1
    with pytest.raises(ValueError, match=r"0: PEFT multiplies w1 of \(3, 2\) with the last two axes of w2, \(4, 4,"):
        convert.from_peft_lokr(theirs)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (structune.c3a(block_size=4, target_modules=["query"]), "query: its 64 blocks are circulant"),
        (
            StructuneConfig(structure="kronecker", num_splits=2, target_modules=["query"]),
            "query: its 4 blocks are kronecker, PEFT's LoKr has one kronecker block",
        ),
        (
            structune.hydra("kronecker", pool_size=20, num_splits=1, target_modules=["query"]),
            "query: its ΔW is a sum of 2 Kronecker products, PEFT's LoKr is one",
        ),
        (
            StructuneConfig(structure="kronecker", num_splits=1, left_rows=5, target_modules=["query"]),
            "query: 5×4 ⊗ 7×8 is cropped to 32×32, PEFT's LoKr has no more entries than the weight: give left_rows",
        ),
        (
            StructuneConfig(
                structure="kronecker", num_splits=1, left_rows=8, left_cols=2, target_modules=["intermediate.dense"]
            ),
            "no decompose_factor, .* these rows and columns: 2 of 32, 8 of 48",
        ),
        (
            StructuneConfig(structure="kronecker", num_splits=1, target_modules=["query"], bias="all"),
            "bias='all': PEFT's LoKr trains nothing beside ΔW",
        ),
        (
            StructuneConfig(structure="kronecker", num_splits=1, target_modules=["word_embeddings"]),
            "word_embeddings: PEFT's LoKr says this of nn.Linear and nn.Conv2d alone",
        ),
    ],
)
def test_what_lokr_cannot_say(config, said, bert) -> None:
    with pytest.raises(ValueError, match=said):
        convert.to_peft_lokr(get_peft_model(bert(), config))


def test_other_methods_are_refused(bert) -> None:
    lora = get_peft_model(bert(), LoraConfig(target_modules=["query"]))
    with pytest.raises(ValueError, match="type PeftType.LORA: from_peft_lokr reads LoKr"):
        convert.from_peft_lokr(lora)
    with pytest.raises(ValueError, match="type PeftType.LORA: to_peft_lokr reads structune's adapters"):
        convert.to_peft_lokr(lora)


def test_dropout_of_rows_is_said(bert, randomise) -> None:
    theirs = lokr(bert, randomise, rank_dropout=0.1)
    with pytest.warns(UserWarning, match=r"rank_dropout=0.1, module_dropout=0.0: .* trains without it"):
        convert.from_peft_lokr(theirs)


def test_half_precision_is_not_lost_in_the_start(bert, randomise, tmp_path) -> None:
    """The start is of order one and added to what is stored: numbers are held in fp32 whatever LoKr's were."""
    theirs = lokr(bert, randomise).to(torch.bfloat16)
    converted = convert.from_peft_lokr(theirs)
    assert max(converted.errors.values()) < 1e-6
    assert {t.dtype for key, t in converted.state_dict.items() if key.endswith(".pool")} == {torch.float32}
