"""What a family says when its arguments are wrong, and the registry."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from structune import structures
from structune.structures import Structure, registry
from structune.structures.families.toeplitz import Toeplitz
from structune.testing import make_structure, sample_generators

FAMILIES = (
    "low_rank", "circulant", "toeplitz", "hankel", "vandermonde", "cauchy",
    "toeplitz_like", "hankel_like", "vandermonde_like", "cauchy_like",
    "kronecker", "monarch", "circulant_diagonal", "block_diagonal",
)  # fmt: skip


def test_the_families_of_the_package() -> None:
    assert structures.names() == tuple(sorted(FAMILIES))
    assert [structures.get(name).name for name in FAMILIES] == list(FAMILIES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toplitz", "structure='toplitz' is unknown: did you mean 'toeplitz'?"),
        ("", "structure='' is unknown: known are block_diagonal, cauchy"),
        (None, "structure=None is unknown"),
    ],
)
def test_unknown_family(name: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        structures.get(name)


def test_a_name_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_families", dict(registry._families))

    class Other(Toeplitz):
        name = "toeplitz"

    with pytest.raises(ValueError, match="'toeplitz' is taken by Toeplitz"):
        structures.register(Other)
    assert structures.register(Toeplitz) is Toeplitz
    assert structures.get("toeplitz") is Toeplitz


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "4", None])
@pytest.mark.parametrize("field", ["rows", "cols"])
def test_sizes(name: str, field: str, wrong: Any) -> None:
    sizes = {"rows": 3, "cols": 4, field: wrong}
    with pytest.raises(ValueError, match=f"{name}: {field}={wrong!r} must be an integer of at least 1"):
        structures.get(name)(**sizes)


@pytest.mark.parametrize("wrong", [0, -2, 1.0, False])
def test_rank(wrong: Any) -> None:
    family: Any = structures.get("cauchy_like")
    with pytest.raises(ValueError, match=f"cauchy_like: rank={wrong!r} must be an integer of at least 1"):
        family(3, 4, rank=wrong)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("low_rank", {"G": (5, 3), "H": (3, 4)}),
        ("circulant", {"c": (5,)}),
        ("toeplitz", {"t": (8,)}),
        ("hankel", {"h": (8,)}),
        ("vandermonde", {"v": (5,)}),
        ("cauchy", {"u": (5,), "v": (4,)}),
        ("toeplitz_like", {"G": (3, 5), "H": (3, 5)}),
        ("hankel_like", {"G": (3, 5), "H": (3, 5)}),
        ("vandermonde_like", {"v": (5,), "G": (3, 5), "H": (3, 4)}),
        ("cauchy_like", {"u": (5,), "v": (4,), "G": (3, 5), "H": (3, 4)}),
    ],
)
def test_generator_shapes(name: str, shapes: dict[str, tuple[int, ...]]) -> None:
    structure = make_structure(name, 5, 4, rank=3)
    assert list(structure.shapes.items()) == list(shapes.items())
    assert structure.numel == sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_wrong_generators(name: str) -> None:
    structure = make_structure(name, 5, 4)
    generators = sample_generators(structure, 2)
    first = next(iter(generators))
    with pytest.raises(ValueError, match=rf"{name}: generators \[.*\] given, \[.*'{first}'.*\] expected"):
        structure.dense(**{key: value for key, value in generators.items() if key != first})
    with pytest.raises(ValueError, match=rf"{name}: generators \[.*'other'.*\] given"):
        structure.dense(**generators, other=torch.ones(1))
    with pytest.raises(ValueError, match=f"{name}: generator {first} has shape"):
        structure.dense(**generators | {first: generators[first][..., 1:]})
    with pytest.raises(ValueError, match=rf"{name}: generator {first} has shape \(\)"):
        structure.dense(**generators | {first: torch.ones(())})


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_entries_in_the_generators_dtype(name: str, dtype: torch.dtype) -> None:
    structure = make_structure(name, 5, 4)
    generators = sample_generators(structure, dtype=dtype)
    W = structure.dense(**generators)
    assert W.dtype == dtype
    exact = structure.dense(**{key: value.double() for key, value in generators.items()})
    assert (W - exact).norm() < 20 * torch.finfo(dtype).eps * exact.norm()


def test_a_family_holds_sizes_only() -> None:
    """Equal sizes are equal blocks, usable as keys; nothing can be changed afterwards."""
    structure: Any = Toeplitz(3, 4)
    assert structure == Toeplitz(3, 4)
    assert hash(structure) == hash(Toeplitz(3, 4))
    assert structure != Toeplitz(4, 3)
    with pytest.raises(AttributeError):
        structure.rows = 5
    assert not [value for value in vars(structure).values() if isinstance(value, torch.Tensor)]
    with pytest.raises(TypeError):
        Structure(3, 4)  # type: ignore[abstract]
