"""A family from outside: the package of docs/adding-a-family.md, made in an empty folder, installed and used.

Each test runs in processes of its own, which find the package as pip leaves it and know nothing of these tests.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from structune.testing import StructureConformance

from .. import forked
from ..forked import command

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-family.md"

FILE = re.compile(r"^`(?P<name>[\w.-]+)`:\n\n```\w+\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
"""A file of the page: its name in a line of its own before the block."""


@dataclass(frozen=True)
class Package:
    """The folder with the files of the page, and the one where it is installed."""

    project: Path
    site: Path

    def run(self, *command: str) -> str:
        """What a command prints, run in the project's folder.

        Raises:
            AssertionError: it failed.
        """
        path = os.pathsep.join(filter(None, [str(self.site), os.environ.get("PYTHONPATH", "")]))
        surroundings = os.environ | {"PYTHONPATH": path, "COLUMNS": "200"}
        result = subprocess.run(
            [sys.executable, *command], cwd=self.project, env=surroundings, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def run_forked(self, program: str) -> str:
        """The same of a program that may find torch and transformers imported: their import takes seconds."""
        return forked.python(program, folder=self.project, path=(str(self.site),))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The page's files, and the package as an installer leaves it: modules and metadata with the entry points."""
    made = Package(tmp_path_factory.mktemp("skew-circulant"), tmp_path_factory.mktemp("site-packages"))
    files = {match["name"]: match["content"] for match in FILE.finditer(PAGE.read_text(encoding="utf-8"))}
    assert set(files) == {"pyproject.toml", "skew_circulant.py", "test_skew_circulant.py", "suite.yaml"}
    for name, content in files.items():
        (made.project / name).write_text(content, encoding="utf-8")
    (made.site / "skew_circulant.py").write_text(files["skew_circulant.py"], encoding="utf-8")
    metadata = made.site / "skew_circulant-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: skew-circulant\nVersion: 1.0\n", encoding="utf-8")
    declared = re.search(r'^\[project.entry-points."(.*?)"\]\n(\w+) = "(.*?)"$', files["pyproject.toml"], re.MULTILINE)
    assert declared is not None
    group, name, place = declared.groups()
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {place}\n", encoding="utf-8")
    return made


def test_the_suite_needs_only_the_name() -> None:
    tests = [getattr(StructureConformance, name) for name in dir(StructureConformance) if name.startswith("test_")]
    assert len(tests) >= 45
    assert all("family" in inspect.signature(test).parameters for test in tests)


KNOWN = """
import sys
from structune import structures

assert "skew_circulant" in structures.names()
assert "skew_circulant" not in sys.modules
assert "torch" not in sys.modules
family = structures.get("skew_circulant")
assert family.__module__ == "skew_circulant"
assert structures.get("skew_circulant") is family
print(structures.names()[-1])
"""


def test_its_name_is_known_before_it_is_imported(package: Package) -> None:
    assert package.run("-c", KNOWN) == "skew_circulant\n"


def test_it_passes_the_suite(package: Package) -> None:
    """With nothing but the page's test file of a few lines."""
    printed = package.run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist")
    assert re.search(r"^[1-9]\d{2} passed", printed, re.MULTILINE), printed


PEFT = """
import torch
from peft import PeftModel, get_peft_model
from torch import nn

import structune

def base():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 14), nn.Tanh(), nn.Linear(14, 6))

config = structune.hydra(structure="skew_circulant", pool_size=9, num_splits=2, target_modules=["0", "2"])
model, x = get_peft_model(base(), config), torch.randn(5, 10)
assert torch.equal(model(x), base()(x))
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
before = model(x).square().mean()
for _ in range(20):
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
assert loss < before
model.save_pretrained("adapter")
loaded = PeftModel.from_pretrained(base(), "adapter")
assert torch.equal(loaded(x), model(x))
merged = loaded.merge_and_unload()
torch.testing.assert_close(merged(x), model(x), rtol=1e-4, atol=1e-5)
"""


def test_it_is_used_with_peft(package: Package) -> None:
    package.run_forked(PEFT)
    config = json.loads((package.project / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["structure"] == "skew_circulant"


MODEL = """
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "a", "film"]
tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16)
fast.save_pretrained("model")
torch.manual_seed(0)
BertModel(BertConfig(
    vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
    max_position_embeddings=16,
)).save_pretrained("model")
with open("films.csv", "w") as file:
    file.write("text,label\\n" + "".join(f"a good film {n},good\\na bad film {n},bad\\n" for n in range(20)))
"""

RECIPE = """
model: {name: ./model}
data: {train: films.csv, evaluation_examples: 10}
method: {name: hydra, structure: skew_circulant, num_splits: 2, pool_size: 20}
train: {max_steps: 2, batch_size: 8, log_steps: 1, device: cpu}
output: runs/skew
"""


def test_it_is_used_by_commands(package: Package) -> None:
    """A recipe, the look at an adapter, and the page's suite at a small size; comparisons are in tests/comparison."""
    package.run_forked(MODEL)
    (package.project / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    package.run_forked(command("train", "tiny.yaml"))
    config = json.loads((package.project / "runs/skew/adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert (config["structure"], config["pool_size"]) == ("skew_circulant", 20)
    assert "skew_circulant" in package.run_forked(command("inspect", "runs/skew"))
    suite = package.project / "suite.yaml"
    suite.write_text(suite.read_text(encoding="utf-8").replace("[768, 768]", "[16, 16]"), encoding="utf-8")
    measured = package.run_forked(
        command("bench", "suite.yaml", "--rounds", "2", "--device", "cpu", "--out", "measured")
    )
    assert "skew-circulant-k4" in measured
