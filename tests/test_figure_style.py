"""Colours and markers of figures stay with their methods."""

from __future__ import annotations

from structune.figure_style import method_style
from structune.methods.registry import preset_names


def test_every_preset_looks_different() -> None:
    looks = {name: method_style(name) for name in preset_names()}
    assert len(set(looks.values())) == len(looks)
    assert len({looks[name][0] for name in ("c3a", "hydra-toeplitz", "lora", "head")}) == 4
