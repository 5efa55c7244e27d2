"""`import structune` is light, and PEFT knows the method in whatever order the two are imported."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import structune
from structune.lazy import plain_attribute

from . import forked

HEAVY = ("torch", "peft", "transformers", "numpy", "datasets", "matplotlib", "pydantic", "typer", "rich", "yaml")


def python(program: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_heavy_before_it_is_used() -> None:
    program = f"""
import sys, structune
from structune import structures
heavy = lambda: sorted(set(sys.modules) & {set(HEAVY)!r})
print(heavy(), structune.__version__, len(structures.names()), set(structune.__all__) <= set(dir(structune)))
structures.Toeplitz
print(heavy())
"""
    first, second = python(program).splitlines()
    assert first == f"[] {structune.__version__} 14 True"
    assert "torch" in second
    assert "peft" not in second


def test_every_name_is_there_and_stays_the_same() -> None:
    for name in (*structune.__all__, "delta", "grid", "options", "peft"):
        assert getattr(structune, name) is getattr(structune, name)
    assert structune.c3a.__module__ == "structune.peft.presets"
    assert structune.structures.Toeplitz is structune.structures.get("toeplitz")
    assert structune.structures.Structure.__module__ == "structune.structures.base"


@pytest.mark.parametrize("module", [structune, structune.structures])
def test_no_other_names(module: Any) -> None:
    with pytest.raises(AttributeError, match=rf"module '{module.__name__}' has no attribute 'c3b'"):
        _ = module.c3b
    assert not hasattr(module, "__path_of_nothing__")


def make() -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForSequenceClassification(BertConfig(**sizes, vocab_size=20, initializer_range=0.5)).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """An adapter with its base model beside it, the adapted model pickled, and its output."""
    folder = tmp_path_factory.mktemp("saved")
    make().save_pretrained(folder / "base")
    model = peft.get_peft_model(
        make(), structune.c3a(block_size=8, target_modules=["value"], init_weights=False, task_type="SEQ_CLS")
    )
    model.peft_config["default"].base_model_name_or_path = str(folder / "base")
    model.save_pretrained(folder / "adapter")
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    ids = torch.arange(6)[None]
    adapted, plain = model(input_ids=ids).logits, make()(input_ids=ids).logits
    assert (adapted - plain).abs().max() > 1e-3  # else every wrong way below would do
    return folder, adapted


OUTPUT = """
import torch
with torch.no_grad():
    print(model.eval()(input_ids=torch.arange(6)[None]).logits.flatten().tolist())
"""
PEFT = """
from transformers import AutoModelForSequenceClassification
model = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained("base"), "adapter")
"""


@pytest.mark.parametrize(
    "program",
    [
        f"import structune; from peft import PeftModel; {PEFT}",
        f"from peft import PeftModel; import structune; {PEFT}",
        f"from structune.peft.convert.lora import to_lora; from peft import PeftModel; {PEFT}",
        "import structune; from transformers import AutoModelForSequenceClassification as Auto\n"
        "model = Auto.from_pretrained('adapter')",
        "import pickle; model = pickle.load(open('model.pkl', 'rb'))",  # as a worker process does
    ],
    ids=["structune first", "PEFT first", "a part of structune first", "transformers", "pickle"],
)
def test_every_order_finds_the_method(program: str, saved: tuple[Path, torch.Tensor]) -> None:
    folder, adapted = saved
    if "transformers" in program and "PeftModel" not in program:  # which comes second there
        text = python(f"import os; os.chdir({str(folder)!r})\n{program}\n{OUTPUT}")
    else:
        text = forked.python(program + OUTPUT, folder=folder)
    found = torch.tensor(json.loads(text.splitlines()[-1])).reshape(adapted.shape)
    torch.testing.assert_close(found, adapted)


@pytest.mark.parametrize("first", ["structune", "transformers"])
def test_the_first_load_of_transformers_is_all_or_nothing(first: str, saved: tuple[Path, torch.Tensor]) -> None:
    """transformers imports PEFT inside load_adapter, when what we put around it must be there already."""
    folder, _ = saved
    second = {"structune": "transformers", "transformers": "structune"}[first]
    program = f"""
import json, pathlib, shutil, sys, {first}, {second}
from safetensors.torch import load_file, save_file
model = transformers.AutoModelForSequenceClassification.from_pretrained({str(folder / "base")!r})
assert "peft" not in sys.modules
cut = pathlib.Path({str(folder / f"cut-{first}")!r})
shutil.copytree({str(folder / "adapter")!r}, cut)
tensors = load_file(cut / "adapter_model.safetensors")
save_file({{key: t for key, t in tensors.items() if "classifier.weight" not in key}}, cut / "adapter_model.safetensors")
before = [name for name, _ in model.named_modules()]
try:
    model.load_adapter(str(cut))
except ValueError as error:
    print(str(error)[:20], before == [name for name, _ in model.named_modules()])
"""
    assert python(program).splitlines()[-1] == "the checkpoint lacks True"


DECLARED = """
from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import module_that_is_not_there

if TYPE_CHECKING:
    from structune.structures import Structure as Base


class Plain(Base):
    learning_rate: ClassVar[float] = 3e-4
    marker = other = "8"


class Heir(Plain):
    marker = "H"


class Silent(Base):
    pass
"""


@pytest.mark.parametrize(
    ("place", "attribute", "value"),
    [
        ("Plain", "learning_rate", 3e-4),
        ("Plain", "marker", "8"),
        ("Heir", "marker", "H"),
        ("Heir", "learning_rate", 3e-4),
        ("Heir", "num_splits", 4),  # Structure's own, which `structures` passes on from `base`
        ("Silent", "learning_rate", 2e-3),
    ],
)
def test_plain_attributes_are_read_and_not_imported(
    place: str, attribute: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "declared_families.py").write_text(DECLARED)
    monkeypatch.syspath_prepend(tmp_path)
    assert plain_attribute(f"declared_families:{place}", attribute) == value
    assert "declared_families" not in sys.modules


WORKED_OUT = """
class First:
    learning_rate = 1e-3

class Second:
    learning_rate = 2e-3

class Sum:
    learning_rate = First.learning_rate + Second.learning_rate

class Both(First, Second):
    pass

Made = type("Made", (Second,), {})
"""


@pytest.mark.parametrize(("place", "value"), [("Sum", 3e-3), ("Both", 1e-3), ("Made", 2e-3)])
def test_what_is_not_plain_is_imported(
    place: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"worked_out_{place}.py").write_text(WORKED_OUT)
    monkeypatch.syspath_prepend(tmp_path)
    assert plain_attribute(f"worked_out_{place}:{place}", "learning_rate") == value
    with pytest.raises(AttributeError, match="marker"):
        plain_attribute(f"worked_out_{place}:{place}", "marker")


def test_families_say_the_same_before_and_after_they_are_imported() -> None:
    program = """
import sys
from structune import structures
attributes = ("learning_rate", "num_splits", "marker")
before = [(name, a, structures.declared(name, a)) for name in structures.names() for a in attributes]
print("torch" in sys.modules)
print(all(value == getattr(structures.get(name), a) for name, a, value in before))
print(len({value for _, a, value in before if a == "marker"}))
"""
    torch_there, *rest = python(program).split()
    assert torch_there == "False"
    assert rest == ["True", str(len(structune.structures.names()))]
