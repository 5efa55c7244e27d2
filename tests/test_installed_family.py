"""A family of an installed distribution goes wherever ours go: PEFT, recipes, comparisons, inspection, benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

FAMILY = '''
from dataclasses import dataclass

import torch

from structune.structures import Structure, register
from structune.structures.generator import zeros


@register
@dataclass(frozen=True)
class Bands(Structure):
    """W[i, (i + k) mod N] = b[k, i] for k < width, 0 elsewhere."""

    width: int = 1

    name = "bands"
    learning_rate = 0.125
    num_splits = 2
    marker = "H"

    def check_sizes(self):
        if self.width > self.cols:
            raise ValueError(f"bands: width={self.width} is more than the {self.cols} columns of a block: lower it")

    def generators(self):
        return {"b": zeros(self.width, self.rows)}

    def entries(self, b):
        i, j, k = (torch.arange(n, device=b.device) for n in (self.rows, self.cols, self.width))
        place = (j - i[:, None]) % self.cols == k[:, None, None]
        return (b.unsqueeze(-1) * place).sum(dim=-3)
'''

USE = """
import json, sys
from pathlib import Path

from structune import structures
from structune.finetune.recipe.recipe import Recipe

recipe, suite = map(Path, sys.argv[1:])
resolved = Recipe.load(recipe).resolved()
early = ["outside_bands.family" in sys.modules, "torch" in sys.modules]

import peft, torch
from torch import nn
import structune

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 12), nn.Tanh(), nn.Linear(12, 4))

config = structune.hydra("bands", pool_size=9, num_splits=2, width=3, target_modules=["0", "2"])
config.width_pattern = {"2": 2}
model = peft.get_peft_model(make(), config)
optimizer, x = torch.optim.AdamW(model.parameters(), lr=structures.get("bands").learning_rate), torch.randn(5, 10)
before = model(x)
for _ in range(3):
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()
model.save_pretrained("saved")
again = peft.PeftModel.from_pretrained(make(), "saved")

from rich.console import Console
from structune.bench.run import bench
from structune.comparison.compare import compare
from structune.inspection.inspect import inspect_path

quiet = Console(quiet=True)
measured = json.loads(bench(suite, out=Path("bench"), device="cpu", console=quiet).read_text())
row = compare(recipe, ["hydra-bands"], Path("out"), console=quiet).rows[0]
layers = inspect_path(next(Path("out").rglob("adapter_config.json")).parent, console=quiet)
try:
    structune.StructuredDelta(8, 8, structure="bands", num_splits=4, width=3)
except ValueError as error:
    refused = str(error)
print(json.dumps({
    "early": early,
    "learning_rate": resolved.train.learning_rate,
    "label": resolved.method.label,
    "same": torch.equal(again(x), model(x)),
    "moved": float((model(x) - before).detach().abs().max()),
    "numbers": sum(p.numel() for n, p in model.named_parameters() if "structune_" in n),
    "measured": [(r["method"], r["kind"], r["trainable"]) for r in measured["cases"][0]["rows"]],
    "accuracy": row.runs[0]["eval_accuracy"],
    "layers": len(layers),
    "refused": refused,
}))
"""


def test_it_is_used_from_end_to_end(recipe_file: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "outside_bands").mkdir(parents=True)
    (site / "outside_bands" / "__init__.py").touch()
    (site / "outside_bands" / "family.py").write_text(FAMILY)
    info = site / "outside_bands-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-bands\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[structune.families]\nbands = outside_bands.family:Bands\n")
    content = yaml.safe_load(recipe_file.read_text())
    content["method"] = {"name": "hydra", "structure": "bands", "pool_size": 40, "width": 2}
    recipe_file.write_text(yaml.safe_dump(content))
    suite = tmp_path / "suite.yaml"
    options = {"structure": "bands", "num_splits": 2, "width": 3}
    suite.write_text(
        yaml.safe_dump(
            {
                "title": "Bands",
                "workload": "layer",
                "rounds": 1,
                "warmup": 1,
                "least_ms": 0,
                "define": {"bands-k2": {"peft": "STRUCTUNE", "options": options}},
                "methods": ["bands-k2"],
                "cases": [{"weight": [12, 8], "tokens": 4}],
            }
        )
    )
    path = os.pathsep.join((str(site), *sys.path))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USE, str(recipe_file), str(suite)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["early"] == [False, False]
    assert (found["label"], found["learning_rate"]) == ("hydra-bands", 0.125)
    assert found["same"]
    assert found["moved"] > 0.05
    assert found["numbers"] == 18
    assert found["measured"] == [["frozen", "frozen", 0], ["bands-k2", "structune-bands", 4 * 3 * 6]]
    assert 0 <= found["accuracy"] <= 1
    assert found["layers"] == 4
    assert found["refused"].startswith("bands: width=3 is more than the 2 columns of a block")
