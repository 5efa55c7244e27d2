"""A method is one file: those of the package are read off their folder, those of others declare themselves."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from structune.errors import UserError
from structune.figure_style import method_style
from structune.finetune.evaluate import evaluate
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.training import train
from structune.methods import registry
from structune.methods.method import Method, PartOfModel, PeftMethod

NORMS = '''
from typing import ClassVar, Literal

from structune.methods.method import LearningRates, PartOfModel


class Norms(PartOfModel):
    """The norms' factors."""

    name: Literal["norms"] = "norms"
    last_only: bool = False

    colour: ClassVar[str] = "#123456"

    def rates(self) -> LearningRates:
        return LearningRates(adapter=0.125)

    def trains(self, parameter: str) -> bool:
        return parameter.endswith("LayerNorm.weight") and (not self.last_only or "layer.1.output" in parameter)
'''


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Put a distribution on the path that declares a method."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def write(entry_point: str, source: str) -> None:
        info = tmp_path / "site" / "outside_norms-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-norms\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[structune.methods]\n{entry_point}\n")
        (tmp_path / "site" / "outside_norms.py").write_text(source)

    yield write
    sys.modules.pop("outside_norms", None)


OURS = {name: registry.get(name) for name in registry.METHODS.places}


def test_every_method_of_the_package_is_one_file_and_whole() -> None:
    for name, method in OURS.items():
        assert method.__module__.startswith("structune.methods.")
        assert issubclass(method, PeftMethod) != issubclass(method, PartOfModel)
        assert registry.get(name) is method
        for label, section in method.presets().items():
            assert isinstance(section, method) and section.label == label
            assert all(0 < rate <= 0.3 for rate in section.rates())
    assert len({method.__module__ for method in OURS.values()}) == len(OURS)


def test_a_method_of_another_package_goes_wherever_ours_go(
    declare: Callable[[str, str], None], recipe: Callable[..., Recipe]
) -> None:
    declare("norms = outside_norms:Norms", NORMS)
    whole = recipe("norms", "whole")
    assert whole.resolved().train.learning_rate == 0.125 and whole.method.label == "norms"
    run = train(whole)
    tensors = load_file(run.adapter / "adapter_model.safetensors")
    assert sum("LayerNorm.weight" in name for name in tensors) == 5
    assert run.metrics()["trainable_adapter"] == 5 * 32
    assert evaluate(run.folder).loss == pytest.approx(run.metrics()["eval_loss"], rel=1e-5)
    part = train(recipe({"name": "norms", "last_only": True}, "part"))
    assert part.metrics()["trainable_adapter"] == 32
    with pytest.raises(UserError, match=r"method\.last_onyl: unknown key \(did you mean 'last_only'\?\)"):
        recipe({"name": "norms", "last_onyl": True})


def test_one_that_cannot_be_had_is_told(declare: Callable[[str, str], None], recipe: Callable[..., Recipe]) -> None:
    declare("norms = outside_norms:Nroms", NORMS)
    assert recipe("c3a").method.label == "c3a"
    with pytest.raises(UserError, match=r"outside_norms:Nroms cannot be had .*mend that package"):
        recipe({"name": "norms"})
    with pytest.raises(UserError, match=r"outside_norms:Nroms cannot be had .*mend that package"):
        recipe("norms")


def test_registered_it_is_known_and_no_name_is_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.METHODS, "_registered", {})

    @registry.register
    class Nothing(PartOfModel):
        name: str = "nothing_much"
        colour = "#654321"

        def trains(self, parameter: str) -> bool:
            return False

    assert registry.preset("nothing-much") == Nothing()
    assert method_style("nothing-much") == ("#654321", "o")
    for name in ("lora", "nothing_much"):
        with pytest.raises(ValueError, match=f"method name '{name}' is taken"):
            registry.register(type("Other", (Method,), {"name": name, "__annotations__": {"name": str}}))


@pytest.mark.parametrize("name", ["peft", "structune"])
def test_what_needs_settings_is_no_preset(name: str) -> None:
    with pytest.raises(UserError, match=rf"method '{name}': unknown"):
        registry.preset(name)


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"method 'lorra': unknown \(did you mean 'lora'\?\)"):
        registry.preset("lorra")
    with pytest.raises(UserError, match=r"method\.name = 'bitfti': unknown \(did you mean 'bitfit'\?\)"):
        registry.get("bitfti")
