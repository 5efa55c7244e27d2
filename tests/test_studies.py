"""The scripts of studies, in small: that they run, and leave what the next one wants."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from peft import get_peft_model
from PIL import Image
from transformers import BertConfig, BertModel

STUDIES = Path(__file__).parents[1] / "studies"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_small_denoiser_is_trained_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from structune.tasks.parts.diffusion.pipeline import Pipeline
    from structune.tasks.parts.model_section import ModelSection

    small = script("small_denoiser")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    rows = {
        f"{kind}_{part}": value
        for part in ("train", "test")
        for kind, value in (("x", pixels), ("y", np.arange(20) % 10))
    }
    np.savez(tmp_path / "cifar10.npz", **rows)
    command = ["", str(tmp_path / "cifar10.npz"), str(tmp_path / "out"), "--batch", "2", "--device", "cpu"]
    weights = []
    for steps in ("1", "2"):
        monkeypatch.setattr(sys, "argv", [*command, "--steps", steps, "--samples", "1", "--sampling-steps", "1"])
        small.main()
        weights.append(torch.load(tmp_path / "out" / "training.pt", weights_only=True))
    assert [state["step"] for state in weights] == [1, 2]
    assert any(
        not torch.equal(one, other) for one, other in zip(weights[0]["averaged"], weights[1]["averaged"], strict=True)
    )
    unseen = sorted(
        path.relative_to(tmp_path / "out" / "unseen") for path in (tmp_path / "out").rglob("unseen/*/*/*.png")
    )
    assert {str(path.parent) for path in unseen} == {
        f"{part}/a {name}" for part in ("train", "test") for name in small.UNSEEN
    }
    ship = np.asarray(Image.open(tmp_path / "out" / "unseen" / "test" / "a ship" / "0001.png"))
    assert ship.shape == (16, 16, 3)
    assert ship[3, 5, 1] == round(pixels[18, 6:8, 10:12, 1].mean())
    pictures, labels = small.seen(rows, 1)
    assert labels.tolist() == [n for n in range(10) if small.CLASSES[n] not in small.UNSEEN]
    assert torch.equal(pictures, torch.from_numpy(small.halved(pixels[labels.numpy()])).permute(0, 3, 1, 2))

    pipeline = Pipeline(ModelSection(name=str(tmp_path / "out" / "pipeline")))
    assert pipeline.image_size(None) == 16
    averaged = {
        name: state
        for (name, _), state in zip(pipeline.load_model().named_parameters(), weights[1]["averaged"], strict=True)
    }
    for name, parameter in pipeline.load_model().named_parameters():
        assert torch.equal(parameter, averaged[name].half().float())
    vae = pipeline.load_vae()
    clean = torch.from_numpy(pixels[:4]).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(clean).latent_dist.mode()
        assert (latents - clean).abs().max() < 1 / 1024
        assert (vae.decode(latents).sample - clean).abs().max() < 1 / 1024


def test_the_figure_of_samples_has_a_row_for_each_method_that_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen = script("unseen_classes")
    plan, results = unseen.Study.load(unseen.STUDY), unseen.Results(tmp_path / "results")
    labels = ["C3A b=8", "HyDRA-toeplitz 29", "LoRA r=8"]
    for number, label in enumerate(labels):
        wanted = unseen.Wanted("horses and ships", label, plan.settings()[label], unseen.Point(plan.rates[0]), 0)
        said = {"task": wanted.task, "method": label, "rate": plan.rates[0], "seed": 0, "trainable_adapter": 10**number}
        results.file(wanted).parent.mkdir(parents=True, exist_ok=True)
        results.file(wanted).write_text(
            json.dumps({**said, "validation": {"denoising_loss": 0.1}, "test": {"denoising_loss": 0.1}})
        )
        if number:
            unseen.row_of(wanted, results).parent.mkdir(exist_ok=True)
            Image.new("RGB", (256, 16), "red").save(unseen.row_of(wanted, results))
    (results.folder / "before.json").write_text('{"denoising_loss": 0.2}')
    Image.new("RGB", (256, 16), "blue").save(results.folder / "samples" / "before.png")
    heights = []
    for options in ([], ["--only", "LoRA"]):
        figure = str(tmp_path / "figure.webp")
        monkeypatch.setattr(sys, "argv", ["", "--out", str(results.folder), "--figure", figure, *options])
        unseen.main()
        with Image.open(figure) as drawn:
            column = np.asarray(drawn.convert("RGB"))[:, -30].astype(int)
        rows = (column[:, 0] - column[:, 2] > 100).sum(), (column[:, 2] - column[:, 0] > 100).sum()
        heights.append(round(rows[0] / rows[1]))  # of red over blue
    assert heights == [2, 1]


@pytest.mark.parametrize("width", [384, 1536])
def test_wider_attention_computes_what_the_own_does(width: int) -> None:
    rates = script("width_rates")
    config = BertConfig(
        vocab_size=50, hidden_size=384, num_hidden_layers=3, num_attention_heads=12, intermediate_size=64
    )
    torch.manual_seed(0)
    bert = BertModel(config).eval().requires_grad_(False)
    for parameter in bert.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    words, there = torch.randint(1, 50, (4, 9)), torch.ones(4, 9)
    there[2, 5:] = 0
    states = bert(words, attention_mask=there, output_hidden_states=True).hidden_states
    wide = rates.Wide(list(bert.encoder.layer[-2:]), width, 3)
    assert wide.attentions[0].value.weight.shape == (width, width)
    found = wide.states(states[1], there)
    assert (states[3] - states[1]).abs().max() > 0.5
    torch.testing.assert_close(found[there.bool()], states[3][there.bool()], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        wide.attentions[0].up(states[1]).square().mean(), states[1].square().mean(), atol=1e-5, rtol=1e-4
    )
    for (_, _, config), numbers in zip(rates.methods(width), (16 * width, width**2 // 64, width), strict=True):
        model = get_peft_model(rates.Wide(list(bert.encoder.layer[-2:]), width, 3), config)
        trained = {name: part for name, part in model.named_parameters() if part.requires_grad and "head" not in name}
        assert sum(part.numel() for part in trained.values()) == 2 * 2 * numbers  # layers, query and value
        assert all(".attentions." in name for name in trained)


def test_runs_in_bf16_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates, seen = script("width_rates"), []
    monkeypatch.setattr(rates, "Features", lambda *_: None)
    monkeypatch.setattr(rates.AutoModel, "from_pretrained", lambda _: torch.nn.Identity())
    monkeypatch.setattr(rates, "embedded_folder", lambda: "")

    def run(*arguments: object) -> dict[str, float]:
        seen.append(arguments[-1])
        return {"accuracy": 0.5, "loss": 0.7, "numbers": 3}

    monkeypatch.setattr(rates, "run", run)
    file = tmp_path / "rates.json"
    rates.measure(file, ["a"], [384], [0.1, 0.2], [0], "bf16")
    assert seen == [True] * 6
    rates.measure(file, ["a"], [384, 576], [0.1], [0], "bf16")
    assert len(seen) == 6 + 3
    with pytest.raises(SystemExit, match="holds runs in bf16; name another file for --precision fp32"):
        rates.measure(file, ["a"], [384], [0.1], [0], "fp32")
    rates.draw(file, tmp_path / "rates.png")
    assert (tmp_path / "rates.png").stat().st_size > 10_000
