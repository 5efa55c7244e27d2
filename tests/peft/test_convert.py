"""Adapters of other methods and back: what comes out does what went in, or its error is the true one."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from pathlib import Path

import peft
import pytest
import torch
from huggingface_hub import ModelCard
from peft import C3AConfig, LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import structune
from structune import StructuneConfig, convert, structures
from structune.peft import StructuneLayer
from structune.structures import registry
from structune.structures.generator import zeros

from ..forked import python

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def peft_c3a(bert, randomise, **kwargs):
    config = peft.C3AConfig(
        block_size=8, target_modules=["query", "intermediate.dense"], block_size_pattern={"query": 4}, **kwargs
    )
    return randomise(get_peft_model(bert(), config), std=3.0).eval()


@pytest.mark.parametrize("live", [True, False])
def test_from_peft_c3a_has_the_same_forward(live, bert, ids, randomise, tmp_path) -> None:
    theirs = peft_c3a(bert, randomise, modules_to_save=["classifier"], task_type="SEQ_CLS")
    theirs.save_pretrained(tmp_path / "theirs")
    expected = theirs(ids).logits
    assert (expected - bert()(ids).logits).abs().max() > 1e-2
    converted = convert.from_peft_c3a(theirs if live else tmp_path / "theirs")
    assert len(converted.errors) == 4
    torch.testing.assert_close(converted.load_into(bert()).eval()(ids).logits, expected, **CLOSE)
    converted.save(tmp_path / "ours")
    ours = PeftModel.from_pretrained(bert(), tmp_path / "ours")
    torch.testing.assert_close(ours(ids).logits, expected, **CLOSE)
    back = convert.to_peft_c3a(ours)
    again = back.load_into(bert()).eval()
    assert type(again.base_model).__name__ == "C3AModel"
    torch.testing.assert_close(again(ids).logits, expected, **CLOSE)


@pytest.mark.parametrize(
    "config",
    [
        structune.c3a(block_size=4, target_modules=["query", "output.dense"], scale=0.3, init_weights=False),
        structune.hydra("circulant", pool_size=20, target_modules=["query"], num_splits=2, fixed_ratio=0.5),
    ],
    ids=["own", "pooled"],
)
def test_to_peft_c3a_writes_scale_and_pool_out(config, bert, ids, randomise, tmp_path) -> None:
    ours = randomise(get_peft_model(bert(), config)).eval()
    convert.to_peft_c3a(ours).save(tmp_path / "theirs")
    code = f"""
import sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
from peft import PeftModel
from conftest import make_bert
model = PeftModel.from_pretrained(make_bert(), {str(tmp_path / "theirs")!r})
assert "structune" not in sys.modules
torch.save(model.eval()(torch.load({str(tmp_path / "ids")!r})).logits.detach(), {str(tmp_path / "out")!r})
"""
    torch.save(ids, tmp_path / "ids")
    python(code)
    torch.testing.assert_close(torch.load(tmp_path / "out"), ours(ids).logits, **CLOSE)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (structune.hydra("toeplitz", pool_size=9, target_modules=["query"]), "query: its blocks are toeplitz"),
        (structune.c3a(block_size=5, target_modules=["query"]), r"query: its blocks of 5×5 do not divide 32×32"),
    ],
)
def test_what_peft_c3a_cannot_say(config, said, bert) -> None:
    with pytest.raises(ValueError, match=said):
        convert.to_peft_c3a(get_peft_model(bert(), config))


def linear_model(config, randomise):
    torch.manual_seed(0)
    return randomise(get_peft_model(nn.Sequential(nn.Linear(12, 20)), config)).eval()


@pytest.mark.parametrize("source", [{}, {"pool_size": 50}, {"init_weights": False}], ids=["own", "pooled", "random"])
def test_low_rank_to_lora_is_exact(source, randomise) -> None:
    config = StructuneConfig(structure="low_rank", rank=2, num_splits=1, scale=0.7, target_modules=["0"], **source)
    ours = linear_model(config, randomise)
    x = torch.randn(5, 12)
    converted = convert.to_lora(ours)
    assert converted.errors == {"0": 0.0}
    assert converted.config.r == (4 if source == {"pool_size": 50} else 2)
    theirs = converted.load_into(nn.Sequential(copy.deepcopy(ours.base_model.model[0].base_layer))).eval()
    torch.testing.assert_close(theirs(x), ours(x), **CLOSE)
    assert (ours(x) - ours.base_model.model[0].base_layer(x)).abs().max() > 1e-2


def test_other_structures_to_lora_with_their_error(bert, gpt2, ids, randomise, tmp_path) -> None:
    ours = randomise(get_peft_model(gpt2(), structune.c3a(block_size=8, target_modules=["c_attn", "c_proj"]))).eval()
    full = convert.to_lora(ours, max_error=1e-6)
    full.save(tmp_path / "lora")
    again = PeftModel.from_pretrained(gpt2(), tmp_path / "lora").eval()
    torch.testing.assert_close(again(ids).logits, ours(ids).logits, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"rank=3 leaves an error of \d\d% of ΔW in .*, more than max_error=0.05"):
        convert.to_lora(ours, rank=3)
    forced = convert.to_lora(ours, rank=3, force=True)
    theirs = forced.load_into(gpt2())
    for name, layer in ours.base_model.model.named_modules():
        if isinstance(layer, StructuneLayer):
            truth = layer.get_delta_weight("default")
            found = theirs.base_model.model.get_submodule(name).get_delta_weight("default")
            assert forced.errors[name] == pytest.approx(float((found - truth).norm() / truth.norm()), rel=1e-3)
            values = torch.linalg.svdvals(truth.double())
            assert forced.errors[name] == pytest.approx(float(values[3:].norm() / values.norm()), rel=1e-3)
    worst = max(forced.errors, key=forced.errors.get)
    assert str(forced).splitlines()[1].endswith(worst)
    some = convert.to_lora(ours, max_error=0.5)
    assert max(some.errors.values()) <= 0.5 < max(forced.errors.values())
    assert some.config.rank_pattern or some.config.r > 3


def test_the_rank_that_is_found_is_the_smallest(randomise) -> None:
    """Two blocks of rank 1 in a grid: rank 2 or 3 of 12, whatever the SVD leaves at the bound."""
    config = StructuneConfig(structure="low_rank", rank=1, num_splits=2, target_modules=["0"], init_weights=False)
    ours = linear_model(config, randomise)
    for max_error in (1e-4, 0.3, 0.6, 0.95):
        rank = convert.to_lora(ours, max_error=max_error).config.r
        assert rank <= 4
        if rank > 1:
            with pytest.raises(ValueError, match=rf"rank={rank - 1} leaves an error"):
                convert.to_lora(ours, rank=rank - 1, max_error=max_error)
    assert rank == 1


@pytest.mark.parametrize("use_rslora", [False, True])
def test_from_lora_counts_its_scaling(use_rslora, randomise) -> None:
    config = LoraConfig(r=4, lora_alpha=6, use_rslora=use_rslora, target_modules=["0"], init_lora_weights=False)
    theirs = linear_model(config, randomise)
    ours = convert.from_lora(theirs, structure="low_rank", num_splits=1, rank=4).load_into(
        nn.Sequential(copy.deepcopy(theirs.base_model.model[0].base_layer))
    )
    x = torch.randn(5, 12)
    torch.testing.assert_close(ours.eval()(x), theirs(x), **CLOSE)


@pytest.mark.parametrize("structure", ["circulant", "toeplitz", "hankel"])
@pytest.mark.parametrize("source", [{"block_size": 8}, {"num_splits": 3, "pool_size": 25}], ids=["own", "pooled"])
def test_from_lora_projects(structure, source, bert, randomise) -> None:
    """The error is orthogonal to every direction of the family, which least squares means."""
    theirs = randomise(get_peft_model(bert(), LoraConfig(r=4, lora_alpha=6, target_modules=["query", "output.dense"])))
    converted = convert.from_lora(theirs, structure=structure, scale=0.5, **source)
    ours = converted.load_into(bert())
    checked = 0
    for name, layer in ours.base_model.model.named_modules():
        if isinstance(layer, StructuneLayer):
            target = theirs.base_model.model.get_submodule(name).get_delta_weight("default")
            found = layer.get_delta_weight("default")
            difference = (target - found).detach()
            assert converted.errors[name] == pytest.approx(float(difference.norm() / target.norm()), rel=1e-4)
            (slope,) = torch.autograd.grad(found, layer.delta("default").pool, difference)
            assert slope.abs().max() < 1e-3 * target.norm()
            assert 0.1 < converted.errors[name] < 1
            checked += 1
    assert checked == 6


def test_from_lora_solves_for_numbers_that_depend_on_one_another(randomise, monkeypatch) -> None:
    """Every entry is the sum of two numbers: SᵀS is not diagonal, and singular besides."""
    monkeypatch.setattr(registry, "_families", dict(registry._families))

    @structures.register
    @dataclass(frozen=True)
    class RowsAndColumns(structures.Structure):
        name = "rows_and_columns"

        def generators(self):
            return {"row": zeros(self.rows), "col": zeros(self.cols)}

        def entries(self, row, col):
            return row.unsqueeze(-1) + col.unsqueeze(-2)

    theirs = linear_model(LoraConfig(r=4, target_modules=["0"], init_lora_weights=False), randomise)
    target = theirs.base_model.model[0].get_delta_weight("default").detach()
    rows = target.shape[0]
    for options in (
        {"structure": "rows_and_columns", "num_splits": 1},
        {"structure": "rows_and_columns", "num_splits": 2, "pool_size": rows},
        {"structure": "toeplitz", "num_splits": 2, "pool_size": 7, "pool_map": "signed"},
        {"structure": "toeplitz", "num_splits": 2, "pool_size": 7, "pool_map": "projection"},
    ):
        converted = convert.from_lora(theirs, **options)
        base = copy.deepcopy(theirs.base_model.model[0].base_layer)
        (layer,) = [m for m in converted.load_into(nn.Sequential(base)).modules() if isinstance(m, StructuneLayer)]
        delta = layer.delta("default")
        (slope,) = torch.autograd.grad(delta.dense(), delta.pool, (target - delta.dense()).detach())
        assert slope.abs().max() < 1e-5 * target.norm()
        assert 0.1 < converted.errors["0"] < 1


def test_from_lora_to_several_low_rank_blocks(randomise) -> None:
    """Each block is the nearest to its part of the matrix; blocks that are cropped have no such nearest."""
    theirs = linear_model(LoraConfig(r=4, target_modules=["0"], init_lora_weights=False), randomise)
    target = theirs.base_model.model[0].get_delta_weight("default").detach()
    converted = convert.from_lora(theirs, structure="low_rank", num_splits=2, rank=1)
    parts = target.unflatten(1, (2, -1)).unflatten(0, (2, -1)).transpose(1, 2)
    left = torch.linalg.svdvals(parts)[..., 1:].square().sum().sqrt()
    assert converted.errors["0"] == pytest.approx(float(left / target.norm()), rel=1e-4)
    with pytest.raises(ValueError, match="nothing is projected onto low_rank blocks"):
        convert.from_lora(theirs, structure="low_rank", block_size=5)


def test_a_lora_that_is_structured_comes_back_exactly(randomise, tmp_path) -> None:
    ours = linear_model(structune.c3a(block_size=4, target_modules=["0"]), randomise)
    convert.to_lora(ours, max_error=1e-7).save(tmp_path / "lora")
    back = convert.from_lora(tmp_path / "lora", structure="circulant", block_size=4)
    assert back.errors["0"] < 1e-5
    torch.testing.assert_close(
        back.state_dict["base_model.model.0.structune_delta.pool"],
        ours.base_model.model[0].delta("default").pool.detach(),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("rank", [4, 6, 2])
def test_lora_to_low_rank(rank, bert, ids, randomise) -> None:
    config = LoraConfig(r=4, lora_alpha=6, use_rslora=True, target_modules=["query"], rank_pattern={"1.*query": 3})
    theirs = randomise(get_peft_model(bert(), config)).eval()
    converted = convert.from_lora(theirs, structure="low_rank", num_splits=1, rank=rank)
    ours = converted.load_into(bert()).eval()
    if rank >= 4:
        assert max(converted.errors.values()) < 1e-5
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-3, atol=1e-4)
    else:
        assert min(converted.errors.values()) > 0.05


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: convert.from_peft_c3a(m), "source holds an adapter of type"),
        (lambda m: convert.from_lora(m), "source holds an adapter of type"),
        (lambda m: convert.to_lora(m, rank=0), "rank=0 must be an integer of at least 1"),
        (lambda m: convert.to_lora(m, rank=13), "rank=13 is larger than a weight of 20×12 has: at most 12"),
        (lambda m: convert.to_lora(m, max_error=1.5), r"max_error=1.5 must be a number in \[0, 1\)"),
        (lambda m: convert.to_lora(m, adapter_name="x"), r"adapter_name='x': the model has \['default'\]"),
        (lambda m: convert.from_peft_c3a("nowhere"), "nowhere: there is no adapter_model.safetensors here"),
    ],
)
def test_wrong_arguments(call, said, randomise) -> None:
    with pytest.raises(ValueError, match=said):
        call(linear_model(structune.c3a(block_size=4, target_modules=["0"]), randomise))


def test_nothing_is_projected_onto_curved_families(bert, randomise) -> None:
    theirs = randomise(get_peft_model(bert(), LoraConfig(target_modules=["query"])))
    with pytest.raises(ValueError, match="nothing is projected onto cauchy blocks"):
        convert.from_lora(theirs, structure="cauchy", num_splits=2)
    dora = get_peft_model(bert(), LoraConfig(target_modules=["query"], use_dora=True))
    with pytest.raises(ValueError, match="use_dora=True: only plain LoRA"):
        convert.from_lora(dora, structure="circulant", block_size=4)


def test_an_empty_folder_is_filled(bert, randomise, tmp_path) -> None:
    convert.from_peft_c3a(peft_c3a(bert, randomise)).save(tmp_path)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in tmp_path.iterdir()}


def test_saving_is_whole_or_not_at_all(randomise, tmp_path) -> None:
    converted = convert.to_lora(linear_model(structune.c3a(block_size=4, target_modules=["0"]), randomise))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("kept")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name, kind in (("link", "link"), ("taken/file", "file")):
        with pytest.raises(FileExistsError, match=f"is a {kind}: name a new folder"):
            converted.save(tmp_path / name)
    (tmp_path / "link").unlink()
    (tmp_path / "empty").rmdir()
    with pytest.raises(FileExistsError, match="holds files already"):
        converted.save(tmp_path / "taken")
    converted.save(tmp_path / "new" / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "taken"]
    names = sorted(p.name for p in (tmp_path / "new" / "folder").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]


class TestRepair:
    def test_gradients_are_right_and_files_stay_pefts(self, bert, ids, randomise, tmp_path) -> None:
        theirs = peft_c3a(bert, randomise)
        before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
        expected = theirs(ids).logits
        assert structune.repair_peft_c3a(theirs) == 4
        assert structune.repair_peft_c3a(theirs) == 0
        torch.testing.assert_close(theirs(ids).logits, expected, **CLOSE)
        after = theirs.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        theirs.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "C3A"
        plain = PeftModel.from_pretrained(bert(), tmp_path)
        torch.testing.assert_close(plain(ids).logits, expected, **CLOSE)

    @pytest.mark.parametrize("repaired", [True, False])
    def test_gradcheck(self, repaired, randomise) -> None:
        """PEFT's own layer fails it: the test can fail."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 12)).double()
        model = randomise(get_peft_model(model, peft.C3AConfig(block_size=4, target_modules=["0"])), std=3.0)
        layer = model.base_model.model[0]
        kernel = layer.c3a_kernel["default"].double()
        layer.c3a_kernel["default"] = nn.Parameter(kernel)
        if repaired:
            structune.repair_peft_c3a(model)
            x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)

            def f(x, kernel):
                return torch.func.functional_call(layer, {"c3a_kernel.default": kernel}, x)

            assert torch.autograd.gradcheck(f, (x, kernel.detach().requires_grad_()))
        x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
        g = torch.randn(3, 12, dtype=torch.float64)
        (of_input,) = torch.autograd.grad(model(x), x, g)
        truth = g @ (layer.base_layer.weight + layer.get_delta_weight("default").double())
        assert torch.allclose(of_input, truth, rtol=1e-4, atol=1e-4) == repaired

    def test_switching_off_unmerges(self, bert, ids, randomise) -> None:
        model = peft_c3a(bert, randomise)
        structune.repair_peft_c3a(model)
        adapted = model(ids).logits
        model.merge_adapter()
        with model.disable_adapter():
            torch.testing.assert_close(model(ids).logits, bert()(ids).logits, **CLOSE)
        torch.testing.assert_close(model(ids).logits, adapted, **CLOSE)

    def test_adapters_add_up_merged_or_not(self, bert, ids, randomise) -> None:
        model = peft_c3a(bert, randomise)
        model.add_adapter("second", peft.C3AConfig(block_size=16, target_modules=["query"]))
        model.base_model.set_adapter(["default", "second"])
        randomise(model, std=3.0)
        structune.repair_peft_c3a(model)
        unmerged = model(ids).logits
        model.merge_adapter()
        torch.testing.assert_close(model(ids).logits, unmerged, rtol=1e-3, atol=1e-4)
        model.unmerge_adapter()
        with model.disable_adapter():
            torch.testing.assert_close(model(ids).logits, bert()(ids).logits, **CLOSE)


class TestLoading:
    @pytest.fixture
    def base(self, tmp_path) -> Path:
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        LlamaForCausalLM(LlamaConfig(vocab_size=40, **sizes)).save_pretrained(tmp_path / "base")
        return tmp_path / "base"

    def adapter(self, base, randomise, folder):
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base),
            structune.c3a(block_size=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        )
        randomise(model).eval().save_pretrained(folder)
        return model

    def test_one_call_loads_both(self, base, randomise, tmp_path) -> None:
        ids = torch.arange(2, 9)[None]
        model = self.adapter(base, randomise, tmp_path / "adapter")
        again = structune.from_pretrained(tmp_path / "adapter")
        assert type(again).__name__ == "PeftModelForCausalLM"
        assert not again.training
        torch.testing.assert_close(again(ids).logits, model(ids).logits, rtol=0, atol=0)

    def test_the_card_loads_by_copy_and_paste(self, base, randomise, tmp_path) -> None:
        self.adapter(base, randomise, tmp_path / "adapter")
        card = (tmp_path / "adapter" / "README.md").read_text()
        assert card.startswith("---\n")
        assert card.index("## Load this adapter") < card.index("Model Card for")
        (code,) = re.findall(r"```python\n(.*?)```", card.split("Model Card for")[0], re.DOTALL)
        shown = python(code + "\nprint(type(model).__name__)", folder=tmp_path / "adapter")
        assert shown.split() == ["PeftModelForCausalLM"]
        self.adapter(base, randomise, tmp_path / "adapter")  # saved again: the lines are there once
        assert (tmp_path / "adapter" / "README.md").read_text().count("import structune") == 1

    def test_every_card_has_the_tag(self, base, randomise, tmp_path) -> None:
        def tags(folder: Path) -> list[str]:
            return ModelCard.load(folder / "README.md").data.tags

        model = self.adapter(base, randomise, tmp_path / "peft")
        assert {"structune", "transformers"} < set(tags(tmp_path / "peft"))
        model.save_pretrained(tmp_path / "peft")
        assert tags(tmp_path / "peft").count("structune") == 1
        model.add_adapter("second", structune.c3a(block_size=4, target_modules=["v_proj"]))
        model.save_pretrained(tmp_path / "two")
        assert "structune" in tags(tmp_path / "two")
        assert tags(tmp_path / "two" / "second") == ["structune"]
        structune.save_adapter(model.get_base_model(), tmp_path / "bare")
        assert tags(tmp_path / "bare") == ["structune"]
        structune.convert.from_peft_c3a(
            get_peft_model(
                AutoModelForCausalLM.from_pretrained(base), C3AConfig(block_size=4, target_modules=["q_proj"])
            )
        ).save(tmp_path / "converted")
        assert tags(tmp_path / "converted") == ["structune"]
        native = AutoModelForCausalLM.from_pretrained(base)
        native.add_adapter(structune.c3a(block_size=4, target_modules=["q_proj"]))
        native.save_pretrained(tmp_path / "native")
        assert tags(tmp_path / "native") == ["structune"]
        model.create_or_update_model_card(str(tmp_path / "peft"))  # as Trainer does at the end
        assert "structune" in tags(tmp_path / "peft")

    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("---\nlicense: mit\n---\nText", ["structune"]),
            ("---\ntags:\n- a\n- b\nlicense: mit\n---\nText", ["structune", "a", "b"]),
            ("---\ntags:\n  - a\n---\nText", ["structune", "a"]),
            ("---\ntags:\n- structune\n---\nText", ["structune"]),
            ("---\ntags: [a]\n---\nText", ["a"]),
            ("---\n---\nText", ["structune"]),
            ("Text", ["structune"]),
        ],
    )
    def test_a_card_of_ones_own_keeps_what_it_says(self, written, expected, tmp_path) -> None:
        (tmp_path / "README.md").write_text(written)
        structune.c3a(block_size=4, target_modules=["q_proj"]).save_pretrained(str(tmp_path))
        card = ModelCard.load(tmp_path / "README.md")
        assert card.data.tags == expected
        assert card.data.license == ("mit" if "mit" in written else None)
        assert card.text.strip().endswith("Text")
        assert "import structune" in card.text

    def test_the_head_says_how_many_labels(self, bert, ids, randomise, tmp_path) -> None:
        headless = bert().bert
        headless.config.num_labels = 2
        headless.save_pretrained(tmp_path / "base")
        base = type(bert()).from_pretrained(tmp_path / "base", num_labels=3)
        config = structune.c3a(block_size=4, modules_to_save=["classifier"], task_type="SEQ_CLS")
        model = randomise(get_peft_model(base, config)).eval()
        model.save_pretrained(tmp_path / "adapter")
        again = structune.from_pretrained(tmp_path / "adapter")
        torch.testing.assert_close(again(ids).logits, model(ids).logits, **CLOSE)
        assert again(ids).logits.shape == (2, 3)

    def test_adapters_that_name_no_base_are_said(self, mlp, tmp_path) -> None:
        get_peft_model(mlp(), structune.c3a(block_size=4, target_modules=["lin0"])).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"has base_model_name_or_path=None and task_type=None"):
            structune.from_pretrained(tmp_path)
        assert "PeftModel.from_pretrained(base" in (tmp_path / "README.md").read_text()

    def test_merged_models_are_plain_transformers_models(self, base, randomise, tmp_path) -> None:
        """The way to formats and servers that know no adapters."""
        ids = torch.arange(2, 9)[None]
        model = self.adapter(base, randomise, tmp_path / "adapter")
        expected = model(ids).logits
        model.merge_and_unload(safe_merge=True).save_pretrained(tmp_path / "merged")
        code = f"""
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "merged")!r}).eval()
assert "structune" not in sys.modules
torch.save(model(torch.arange(2, 9)[None]).logits.detach(), {str(tmp_path / "out")!r})
"""
        python(code)
        torch.testing.assert_close(torch.load(tmp_path / "out"), expected, **CLOSE)
