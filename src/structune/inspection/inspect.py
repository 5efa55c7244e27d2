"""An adapter layer by layer: its numbers, its size on disk, and the spectrum of every update."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from structune.errors import UserError
from structune.finetune.run_folder.run import Run
from structune.finetune.tables import print_table, records
from structune.inspection.adapter import Adapter, Update, read_adapter
from structune.inspection.spectra_figure import draw_spectra
from structune.inspection.spectrum import Spectrum

ENERGY = 0.9
FIGURE = "inspect.png"


@dataclass(frozen=True)
class Layer:
    """One adapted layer: its update and the update's spectrum."""

    update: Update
    spectrum: Spectrum


def inspect_path(
    path: str | Path, out: str | Path | None = None, base: str | None = None, console: Console | None = None
) -> list[Layer]:
    """Show a run's adapter, or an adapter folder, as a table, and draw its spectra to `inspect.png`.

    Only the adapter's JSON and safetensors files and the base model's configuration are read.

    Args:
        path: a finished run or an adapter folder, of structune or of LoRA.
        out: folder for the figure; beside the adapter by default.
        base: the base model, where it is not the one that the run or the adapter names.
        console: where the table is shown.

    Returns:
        What was shown, in the model's order.

    Raises:
        UserError: no adapter that can be read is there, or the base model's configuration cannot be had.
    """
    console = console or Console()
    adapter = read_adapter(path, base)
    layers = [
        Layer(update, _spectrum(update))
        for update in track(adapter.updates, "singular values", console=console, transient=True)
    ]
    print_table(console, _table(layers))
    console.print(_size(adapter), highlight=False)
    figure = Path(out or path) / FIGURE
    draw_spectra(
        [layer.update.module for layer in layers], [layer.spectrum for layer in layers], _title(path, layers), figure
    )
    console.print(f"spectra drawn in {escape(str(figure))}", highlight=False, soft_wrap=True)
    _show_found(path, Path(out or path), console)
    return layers


def _show_found(path: str | Path, out: Path, console: Console) -> None:
    """What a run's task found out before training, such as which pretrained output answers for which class."""
    run = Run(Path(path))
    if run.state() != "finished":
        return
    task, prepared, targets = run.recipe().task, run.prepared(), run.targets()
    for title, rows in task.found(prepared, targets).items():
        print_table(console, records(title, rows))
    for drawn in task.draw_found(prepared, targets, out):
        console.print(f"drawn: {escape(str(drawn))}", highlight=False, soft_wrap=True)


def _spectrum(update: Update) -> Spectrum:
    try:
        return Spectrum.of(update.dense())
    except ValueError as error:
        raise UserError(f"layer {update.module}: {error}: the adapter's numbers are broken; train it again") from None


def _table(layers: list[Layer]) -> Table:
    """A row a layer; what is the same in every layer is said once, above."""
    updates = [layer.update for layer in layers]
    prefix = _common_prefix([update.module for update in updates])
    facts = {
        "structure": [update.structure for update in updates],
        "grid": [update.grid for update in updates],
        "product": [update.algorithm for update in updates],
    }
    varying = {name: values for name, values in facts.items() if len(set(values)) > 1}
    same = [f"{name} {values[0]}" for name, values in facts.items() if name not in varying]
    table = Table(
        title="\n".join([f"[bold]{len(layers)} layers[/] of {escape(prefix)}*", *([", ".join(same)] if same else [])]),
        caption="eff. rank: exp of the entropy of σ / Σσ; 90 %: rank that keeps 90 % of ‖ΔW‖²",
        box=None, header_style="bold", title_justify="left", title_style="", caption_justify="left", pad_edge=False,
        show_footer=True, footer_style="bold",
    )  # fmt: skip
    table.add_column("layer", f"{len(layers)}")
    for name in varying:
        table.add_column(name)
    for header, total in {
        "trained": f"{sum(update.trainable for update in updates):,}",
        "frozen": f"{sum(update.frozen for update in updates):,}",
        "kB": f"{sum(update.num_bytes for update in updates) / 1e3:,.1f}",
        "‖ΔW‖_F": "",
        "‖ΔW‖₂": "",
        "eff. rank": "",
        "90 %": "",
    }.items():
        table.add_column(header, total, justify="right", no_wrap=True)
    for number, (update, spectrum) in enumerate((layer.update, layer.spectrum) for layer in layers):
        table.add_row(
            escape(update.module.removeprefix(prefix)),
            *(values[number] for values in varying.values()),
            f"{update.trainable:,}",
            f"{update.frozen:,}",
            f"{update.num_bytes / 1e3:,.1f}",
            f"{spectrum.frobenius:#.3g}",
            f"{spectrum.spectral:#.3g}",
            f"{spectrum.effective_rank:.1f}",
            str(spectrum.rank_for_energy(ENERGY)),
        )
    return table


def _size(adapter: Adapter) -> str:
    """Where the bytes of the file are."""
    updates = sum(update.num_bytes for update in adapter.updates)
    names = adapter.file_bytes - updates - adapter.other_bytes
    return (
        f"{adapter.file_bytes / 1e3:,.1f} kB on disk: updates {updates / 1e3:,.1f}, "
        f"head and biases {adapter.other_bytes / 1e3:,.1f}, names {names / 1e3:,.1f}"
    )


def _title(path: str | Path, layers: list[Layer]) -> str:
    name = Path(path).resolve().name
    kinds = dict.fromkeys((layer.update.structure, layer.update.grid) for layer in layers)
    if len(kinds) > 2:
        return f"{name}: {', '.join(dict.fromkeys(structure for structure, _ in kinds))}"
    return f"{name}: {'; '.join(', '.join(part for part in kind if part != name) for kind in kinds)}"


def _common_prefix(names: list[str]) -> str:
    """The leading parts, each with its dot, that all dotted names share; never a whole name."""
    parts = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return "".join(f"{same[0]}." for same in takewhile(lambda part: len(set(part)) == 1, parts))
