"""Families of installed distributions: known by name, imported when asked for, in nobody's way where they are wrong."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import structune
from structune import structures
from structune.errors import UserError
from structune.methods import registry as methods
from structune.methods.hydra import Hydra
from structune.structures import registry

SOURCE = '''
from dataclasses import dataclass

from structune.structures import Structure, register
from structune.structures.generator import zeros


{decorator}
@dataclass(frozen=True)
class Diagonal(Structure):
    """W = diag(d), cropped."""

    name = "{name}"
    learning_rate = 0.125
    num_splits = 3

    def generators(self):
        return {{"d": zeros(min(self.rows, self.cols))}}

    def entries(self, d):
        import torch

        return torch.nn.functional.pad(torch.diag_embed(d), (0, self.cols - d.shape[-1], 0, self.rows - d.shape[-1]))
'''


def diagonal(name: str, decorator: str = "") -> str:
    return SOURCE.format(name=name, decorator=decorator)


Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution of a module on the path, as an installer does, and forget what was known of installed ones."""
    monkeypatch.syspath_prepend(tmp_path)
    places = {name: registry.Place(place) for name, place in registry.PLACES.items()}
    monkeypatch.setattr(registry, "_families", places)
    monkeypatch.setattr(registry, "_looked", False)
    modules: list[str] = []

    def write(distribution: str, entry_points: str, source: str = "", module: str | None = None) -> Path:
        info = tmp_path / f"{distribution}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[structune.families]\n{entry_points}\n")
        (tmp_path / f"{module or distribution}.py").write_text(source)
        modules.append(module or distribution)
        importlib.invalidate_caches()
        registry._looked = False
        return info

    yield write
    for name in modules:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("decorator", ["@register", ""])
def test_a_family_is_known_by_name_and_imported_when_asked_for(install: Install, decorator: str) -> None:
    install("outside_diagonal", "diagonal = outside_diagonal:Diagonal", diagonal("diagonal", decorator))
    assert structures.names()[-1] == "diagonal"
    assert structures.declared("diagonal", "learning_rate") == 0.125
    assert methods.preset("hydra-diagonal") == Hydra(structure="diagonal", num_splits=3)
    assert methods.preset("hydra-diagonal").rates().adapter == 0.125
    with pytest.raises(UserError, match=r"known: adalora, .*, hydra-diagonal"):
        methods.preset("hydra-diagonale")
    assert "outside_diagonal" not in sys.modules
    family = structures.get("diagonal")
    assert family is sys.modules["outside_diagonal"].Diagonal
    assert family in list(structures.usable())
    delta = structune.StructuredDelta(6, 8, structure="diagonal", num_splits=2)
    assert delta.num_trainable == 4 * 3


def test_a_class_may_be_passed_on_from_where_it_is_defined(install: Install, tmp_path: Path) -> None:
    package = tmp_path / "passing_on"
    package.mkdir()
    (package / "__init__.py").write_text("from passing_on.inside import Diagonal\n")
    (package / "inside.py").write_text(diagonal("passed_on", "@register"))
    install("passing-on", "passed_on = passing_on:Diagonal [extra]", module="unused")
    assert structures.get("passed_on").__module__ == "passing_on.inside"


@pytest.mark.parametrize(
    ("entry_point", "source", "message"),
    [
        (
            "gone = not_there.at_all:Gone",
            "",
            r"structure='gone' is not_there.at_all:Gone of broken 1.2, which cannot be imported \(ModuleNotFoundError: "
            r"No module named 'not_there'\): mend or uninstall it",
        ),
        ("gone = broken:Gone", "1 / 0", r"which cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("gone = broken:Gone", "def", r"which cannot be imported \(SyntaxError: "),
        ("gone = broken:Gone", "", r"which cannot be imported \(AttributeError: .*'Gone'\)"),
        ("gone = broken", "", "which is no class derived from structune.structures.Structure"),
        ("gone = :::", "", r"which cannot be imported \(ValueError: invalid format"),
        ("gone = broken:Gone", "class Gone:\n    name = 'gone'", "which is no class derived from"),
        (
            "gone = broken:Gone",
            "from structune.structures import Structure\nclass Gone(Structure):\n    name = 'gone'",
            "which does not define entries and generators",
        ),
        (
            "gone = broken:Diagonal",
            diagonal("other"),
            "which calls itself 'other', not as its entry point does",
        ),
        (
            "gone = broken:Diagonal",
            diagonal("gone").replace("    name =", "    width: int\n    name ="),
            r"which is not whole \(Diagonal.width needs a default",
        ),
        (
            "Go-ne = broken:Diagonal",
            diagonal("Go-ne"),
            r"structure='Go-ne' is no name: take small letters, digits and _",
        ),
    ],
)
def test_a_broken_family_says_so_and_is_in_nobodys_way(
    install: Install, entry_point: str, source: str, message: str
) -> None:
    name = entry_point.partition(" ")[0]
    install("broken", entry_point, source)
    assert name in structures.names()
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            structures.get(name)
    with pytest.raises(ValueError, match=f"structure='{name}' is"):
        structures.declared(name, "learning_rate")
    if name == "gone":
        with pytest.raises(UserError, match="method: structure='gone' is"):
            methods.preset("hydra-gone")
    assert {family.name for family in structures.usable()} == set(registry.PLACES)
    assert structune.StructuneConfig(structure="toeplitz", num_splits=2, rank=None).structure == "toeplitz"
    with pytest.raises(TypeError, match="unexpected keyword argument 'breadth'"):  # every family is asked for it
        structune.StructuneConfig(structure="toeplitz", num_splits=2, breadth=3)  # type: ignore[call-arg]
    assert methods.preset("hydra-toeplitz").name == "hydra"


def test_a_file_that_no_installer_wrote_is_told_of(install: Install) -> None:
    install("broken", "no entry point at all")
    with pytest.warns(UserWarning, match=r"broken 1.2: its entry_points.txt cannot be read .* no family of it"):
        assert set(structures.names()) == set(registry.PLACES)


def test_two_distributions_with_one_name(install: Install) -> None:
    install("one", "diagonal = one:Diagonal", diagonal("diagonal"))
    install("two", "diagonal = two:Diagonal\nother = two:Diagonal", diagonal("other"))
    message = (
        r"structure='diagonal' is what families of two distributions are called, .*(one|two) 1.2 and .*(one|two) 1.2"
    )
    for ask in (structures.get, structures.check, lambda name: structures.declared(name, "marker")):
        with pytest.raises(ValueError, match=message):
            ask("diagonal")
    assert structures.get("other").name == "other"


def test_a_distribution_with_a_name_of_ours(install: Install) -> None:
    """Neither is taken for the other; who imports the class itself, or a family made of it, is not concerned."""
    install("other_toeplitz", "toeplitz = other_toeplitz:Diagonal", diagonal("toeplitz", "@register"))
    message = "structure='toeplitz' is what families of two distributions are called, structune and other_toeplitz 1.2"
    with pytest.raises(ValueError, match=message):
        structune.StructuneConfig(structure="toeplitz", num_splits=1)
    with pytest.raises(ValueError, match=message):
        importlib.import_module("other_toeplitz")
    assert structures.get("circulant").name == "circulant"
    assert structures.Toeplitz(2, 3).rows == 2


def test_a_distribution_that_stands_on_the_path_twice_is_one(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = install("twice", "diagonal = twice:Diagonal", diagonal("diagonal"))
    again = tmp_path / "again"
    (again / info.name).mkdir(parents=True)
    for file in info.iterdir():
        (again / info.name / file.name).write_text(file.read_text().replace(":Diagonal", ":Older"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(again)])
    registry._looked = False
    assert structures.get("diagonal").__name__ == "Diagonal"


def test_registering_what_another_package_declares(install: Install) -> None:
    install("theirs", "diagonal = theirs:Diagonal", diagonal("diagonal"))
    mine = type("Mine", (structures.Toeplitz,), {"name": "diagonal"})
    with pytest.raises(ValueError, match="structure name 'diagonal' is taken by Diagonal"):
        structures.register(mine)
    with pytest.raises(ValueError, match="structure name 'My-Own' is no name"):
        structures.register(type("Mine", (structures.Toeplitz,), {"name": "My-Own"}))
