"""What `structune inspect` shows and draws."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn

import structune
from structune.errors import UserError
from structune.inspection.inspect import inspect_path

Save = Callable[..., tuple[Path, nn.Module]]
PNG = b"\x89PNG\r\n\x1a\n"


def test_table_and_figure(save_adapter: Save, screen: Console) -> None:
    folder, model = save_adapter(structune.c3a(block_size=8, target_modules=["query", "value"], task_type="SEQ_CLS"))
    layers = inspect_path(folder, console=screen)
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "4 layers of bert.encoder.layer.*" in text
    assert "structure circulant, grid 4×4 blocks of 8×8, product " in text
    row = next(line.split() for line in text.splitlines() if line.startswith("1.attention.self.value"))
    delta = model.get_submodule("base_model.model.bert.encoder.layer.1.attention.self.value").get_delta_weight(
        "default"
    )
    values = torch.linalg.svdvals(delta.detach().double())
    stored = load_file(folder / "adapter_model.safetensors")
    sizes = [tensor.nbytes for key, tensor in stored.items() if ".value.structune_" in key and ".layer.1." in key]
    assert row[1:4] == ["128", "0", f"{sum(sizes) / 1e3:.1f}"]
    assert 4 * 128 < sum(sizes) < 4 * 160  # numbers, and what identifies them
    assert float(row[4]) == pytest.approx(float(values.norm()), rel=5e-3)
    assert float(row[5]) == pytest.approx(float(values[0]), rel=5e-3)
    assert float(row[6]) == pytest.approx(layers[3].spectrum.effective_rank, abs=0.05)
    assert int(row[7]) == layers[3].spectrum.rank_for_energy(0.9)
    assert [line.split()[:4] for line in text.splitlines() if line.startswith("4 ")][-1] == [
        "4", "512", "0", f"{4 * sum(sizes) / 1e3:.1f}",
    ]  # fmt: skip
    assert f"{(folder / 'adapter_model.safetensors').stat().st_size / 1e3:.1f} kB on disk" in text
    assert (folder / "inspect.png").read_bytes().startswith(PNG)


def test_what_differs_between_layers_is_a_column(save_adapter: Save, screen: Console) -> None:
    config = structune.c3a(block_size=8, target_modules=["query", "value"], structure_pattern={"value": "hankel"})
    folder, _ = save_adapter(config)
    screen.width = 120
    inspect_path(folder, console=screen)
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "structure circulant" not in text
    rows = {line.split()[0]: line.split()[1] for line in text.splitlines() if ".attention.self." in line}
    assert set(rows.items()) >= {("0.attention.self.query", "circulant"), ("0.attention.self.value", "hankel")}


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_names_and_numbers_are_whole_at_any_width(save_adapter: Save, width: int, terminal: bool) -> None:
    config = structune.c3a(block_size=8, target_modules=["query", "value"], structure_pattern={"value": "hankel"})
    folder, _ = save_adapter(config)
    screen = Console(file=io.StringIO(), width=width, force_terminal=terminal, no_color=True, highlight=False)
    layers = inspect_path(folder, console=screen)
    text = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", screen.file.getvalue())  # type: ignore[attr-defined]
    assert "…" not in text
    for layer in layers:
        name = layer.update.module.removeprefix("bert.encoder.layer.")
        row = text.split(f"{name} " if f"{name} " in text else f"{name}\n")[1].split(".attention")[0]
        numbers = [layer.update.structure, f"{layer.update.trainable:,}", f"{layer.spectrum.frobenius:#.3g}"]
        assert all(number in row for number in numbers)
    if terminal:
        assert max(map(len, text.splitlines()[:-2])) <= width


def test_lora_has_at_most_its_rank(save_adapter: Save, screen: Console) -> None:
    folder, _ = save_adapter(peft.LoraConfig(r=3, target_modules=["query"], task_type="SEQ_CLS"))
    layers = inspect_path(folder, console=screen)
    assert all(2 < layer.spectrum.effective_rank <= 3 for layer in layers)
    assert "structure lora, grid rank 3 of 32×32" in screen.file.getvalue()  # type: ignore[attr-defined]


def test_untrained_adapter_is_zero(save_adapter: Save, screen: Console) -> None:
    folder, _ = save_adapter(structune.c3a(block_size=8, target_modules=["query"]))
    path = folder / "adapter_model.safetensors"
    save_file({key: tensor * (0 if "pool" in key else 1) for key, tensor in load_file(path).items()}, path)
    assert [layer.spectrum.effective_rank for layer in inspect_path(folder, console=screen)] == [0.0, 0.0]
    assert (folder / "inspect.png").read_bytes().startswith(PNG)


def test_broken_numbers_are_told(save_adapter: Save, screen: Console) -> None:
    folder, _ = save_adapter(structune.c3a(block_size=8, target_modules=["query"]))
    path = folder / "adapter_model.safetensors"
    save_file({key: tensor * (float("nan") if "pool" in key else 1) for key, tensor in load_file(path).items()}, path)
    with pytest.raises(UserError, match=r"layer\.0\.attention\.self\.query\.structune_delta\.pool holds NaN"):
        inspect_path(folder, console=screen)


def test_figure_goes_where_it_is_asked_to(save_adapter: Save, screen: Console, tmp_path: Path) -> None:
    folder, _ = save_adapter(structune.c3a(block_size=8, target_modules=["query"]))
    inspect_path(folder, out=tmp_path / "new" / "place", console=screen)
    assert (tmp_path / "new" / "place" / "inspect.png").read_bytes().startswith(PNG)
    assert not (folder / "inspect.png").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"inspect\.png: cannot be written"):
        inspect_path(folder, out=tmp_path / "file", console=screen)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="neither a run"):
        inspect_path(folder, console=screen)
