"""Every script of examples/ runs as it stands, learns, and comes back from its files bit by bit.

What a trainer took to a GPU is compared on the CPU, where what is loaded again lies.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import structune
from structune.peft import StructuneLayer

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMM = Path(sys.prefix) / "timm"
IDS = torch.arange(2, 14).reshape(2, 6)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run an example in an empty folder; what it defined, by name."""

    def run(name: str) -> dict[str, Any]:
        monkeypatch.chdir(tmp_path)
        return runpy.run_path(str(EXAMPLES / f"{name}.py"))

    return run


def adapted(model: nn.Module) -> dict[str, Tensor]:
    """The trained numbers by name, without the wrappers' prefix."""
    found = {
        name.removeprefix("base_model.model."): parameter.detach().cpu()
        for name, parameter in model.named_parameters()
        if "structune_delta" in name
    }
    assert found
    assert all(numbers.any() for numbers in found.values())
    return found


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, numbers in left.items():
        assert torch.equal(numbers, right[name]), name


def test_the_page_lists_them_all() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(scripts) == 8
    assert all(f"({script})" in listed for script in scripts)


def test_pytorch_layer(run) -> None:
    ran = run("pytorch_layer")
    layer, x = ran["layer"], torch.randn(5, 48)
    assert ran["losses"][-1] < 0.15 * ran["losses"][0]
    assert torch.equal(ran["again"](x), layer(x))
    torch.testing.assert_close(ran["merged"](x), layer(x), atol=1e-5, rtol=1e-5)


def test_accelerate_loop(run) -> None:
    ran = run("accelerate_loop")
    assert ran["losses"][-1] < 0.8 * ran["losses"][0]
    assert ran["first"] == ran["second"]
    assert_equal(adapted(ran["trained"]), adapted(ran["again"]))
    assert torch.equal(ran["trained"].cpu()(IDS).logits, ran["again"].cpu()(IDS).logits)


def test_transformers_trainer(run) -> None:
    ran = run("transformers_trainer")
    assert ran["losses"][-1] < 0.8 * ran["losses"][0]
    assert ran["whole"].model.is_gradient_checkpointing
    assert ran["resumed"].state.global_step == 40
    assert_equal(adapted(ran["whole"].model), adapted(ran["resumed"].model))
    expected = ran["model"].cpu()(IDS).logits
    assert torch.equal(ran["bare"](IDS).logits, expected)
    assert torch.equal(ran["again"](IDS).logits, expected)
    ran["bare"].disable_adapters()
    assert not torch.equal(ran["bare"](IDS).logits, expected)
    ran["bare"].enable_adapters()
    ran["bare"].set_adapter("other")
    assert not torch.equal(ran["bare"](IDS).logits, expected)
    ran["bare"].delete_adapter("other")
    assert list(ran["bare"].peft_config) == ["tokens"]


def test_trl_sft(run) -> None:
    ran = run("trl_sft")
    assert ran["losses"][-1] < 0.95 * ran["losses"][0]
    assert ran["resumed"].state.global_step == 40
    assert_equal(adapted(ran["whole"].model), adapted(ran["resumed"].model))
    assert_equal(adapted(ran["model"]), adapted(ran["again"]))
    assert torch.equal(ran["model"].cpu()(IDS).logits, ran["again"].cpu()(IDS).logits)


def test_sentence_transformers_pairs(run) -> None:
    ran = run("sentence_transformers_pairs")
    assert ran["losses"][-1] < 0.8 * ran["losses"][0]
    assert_equal(adapted(ran["model"]), adapted(ran["again"]))
    sentences = ["w1 w2 w3", "w21 w22"]
    embedded = ran["again"].encode(sentences, convert_to_tensor=True)
    assert torch.equal(embedded, ran["model"].encode(sentences, convert_to_tensor=True))
    assert not torch.allclose(embedded, ran["base_model"]().encode(sentences, convert_to_tensor=True), atol=1e-3)


def test_diffusers_unet(run) -> None:
    ran = run("diffusers_unet")
    assert sum(ran["losses"][-10:]) < 0.85 * sum(ran["losses"][:10])
    pictures = [ran["plain"], ran["with_style"], ran["mixed"]]
    for first, second in [(0, 1), (0, 2), (1, 2)]:
        assert (pictures[first] - pictures[second]).abs().max() > 0.01
    assert torch.equal(ran["off"], ran["plain"])
    assert torch.equal(ran["reloaded"], ran["with_style"])
    torch.testing.assert_close(ran["fused"], ran["with_style"], atol=1e-4, rtol=0)
    unet = ran["again"].unet
    assert not any(isinstance(module, StructuneLayer) and module.structune_delta for module in unet.modules())
    # Both adapters at their weights are the sum of their updates at these weights.
    layer = next(m for m in ran["pipe"].unet.modules() if isinstance(m, StructuneLayer) and len(m.structune_delta) == 2)
    weights = {"style": 0.5, "subject": 0.8}
    x = torch.randn(3, layer.base_layer.in_features)
    update = sum(layer.structune_delta[name].dense() for name in weights)
    torch.testing.assert_close(layer(x) - layer.base_layer(x), x @ update.T, atol=1e-5, rtol=1e-5)
    for name, weight in weights.items():
        assert layer.structune_delta[name].scale == pytest.approx(weight)


def test_train_and_predict(run) -> None:
    ran = run("train_and_predict")
    assert ran["metrics"]["eval_accuracy"] > 0.9
    assert ran["answer"]["prediction"] == "bad" and ran["answer"]["probability bad"] > 0.8
    assert [(row["id"], row["prediction"]) for row in ran["rows"]] == [(7, "good"), (8, "bad")]
    assert ran["singly"] == ["good", "bad"]
    with open("answers.csv", newline="") as file:
        answers = list(csv.DictReader(file))
    assert len(answers) == ran["count"] == 120
    assert sum(row["verdict"] == row["prediction"] for row in answers) > 108
    assert ran["evaluation"].scores["accuracy"] == ran["metrics"]["eval_accuracy"]
    assert ran["difference"] < 1e-5
    merged = AutoModelForSequenceClassification.from_pretrained("merged")
    tokens = AutoTokenizer.from_pretrained("merged")("kind waiter", return_tensors="pt")
    with torch.no_grad():
        assert merged.config.id2label[int(merged(**tokens).logits.argmax())] == "good"
    assert sorted(ran["upload"].files) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]


def test_timm_vit(tmp_path) -> None:
    """In a process of its own: torchvision, which timm needs, must not be seen by the others."""
    if not TIMM.is_dir() and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed; `make test` installs it")
    check = f"""
import runpy, torch
try:
    import torchvision
except RuntimeError:  # its compiled part does not load beside a CPU build of torch; timm uses only what is in Python
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor boxes, Tensor scores, float threshold) -> Tensor")
ran = runpy.run_path({str(EXAMPLES / "timm_vit.py")!r})
model, again, merged = (ran[name] for name in ("model", "again", "merged"))
assert ran["losses"][-1] < 0.5 * ran["losses"][0], ran["losses"]
numbers = [p for name, p in model.named_parameters() if "structune_delta" in name]
assert len(numbers) == 8 and all(p.any() for p in numbers)
with torch.no_grad():
    expected, plain = model(ran["pictures"]), ran["base_model"]().eval()(ran["pictures"])
    assert torch.equal(again(ran["pictures"]), expected)
    assert (expected - plain).abs().max() > 0.1
    torch.testing.assert_close(merged(ran["pictures"]), expected, atol=1e-4, rtol=1e-4)
print("all as expected")
"""
    path = os.pathsep.join([str(Path(structune.__file__).parents[1]), str(TIMM)])
    ran = subprocess.run(
        [sys.executable, "-c", check],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("all as expected\n")
