"""A run's adapter merged into its model, in a folder that needs neither structune nor PEFT."""

from __future__ import annotations

from pathlib import Path

import peft
import torch
from torch import nn

from structune.errors import UserError
from structune.files import new_folder
from structune.finetune.evaluate import LoadedRun, load_run
from structune.finetune.run_folder.place import check_own_folder, check_writable
from structune.finetune.run_folder.run import refuse_inside_run
from structune.finetune.task_data import load_data
from structune.quiet import quiet

_TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}  # of the largest output; bf16 has three digits


def merge(folder: str | Path, out: str | Path) -> float:
    """Write the merged model and its processor to `out` and return the largest difference between outputs.

    The outputs on some held-out examples (`Task.compared_examples`) are compared before and after, relative to the
    largest of them; above 1e-3 (0.05 for weights in bf16) nothing is written. Quantised weights are written as what
    they stand for, in fp32.

    Raises:
        UserError: the run does not work, `out` holds something, or merging changes the outputs.
    """
    out = Path(out)
    where = f"--out {str(out)!r}"
    check_own_folder(out, where, {"the run": Path(folder)})
    refuse_inside_run(out, where)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{where}: holds something already; name a new folder")
    check_writable(out, where)
    loaded = load_run(folder, plain_weights=True)
    batch = _sample(loaded)
    before = _outputs(loaded, loaded.model, batch)
    model = loaded.model
    if isinstance(model, peft.PeftModel):
        try:
            model = model.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise UserError(f"run {str(folder)!r}: cannot be merged: {error}") from None
    after = _outputs(loaded, model, batch)
    difference = max(
        float((now - then).abs().max() / then.abs().max().clamp_min(1e-30))
        for now, then in zip(after, before, strict=True)
    )
    if not difference <= _TOLERANCE[loaded.recipe.model.dtype]:
        raise UserError(
            f"run {str(folder)!r}: merging changes the outputs by {difference:.1e} of the largest; nothing was written"
        )
    model = loaded.recipe.task.finish(model, loaded.targets, batch)
    with quiet(), new_folder(out) as temporary:
        loaded.recipe.task.save(model, loaded.base, loaded.targets, temporary)
    return difference


def _sample(loaded: LoadedRun) -> dict[str, torch.Tensor]:
    task, data = loaded.recipe.task, loaded.recipe.data
    examples = load_data(task, data).evaluation
    examples = examples.subset(range(min(task.compared_examples, len(examples))))
    encoded = task.encode(examples, loaded.base, loaded.targets, data)
    return task.collator(loaded.base, training=False)([encoded[row] for row in range(len(encoded))])


@torch.inference_mode()
def _outputs(loaded: LoadedRun, model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    outputs = loaded.recipe.task.compared(model.eval(), dict(batch))
    return outputs if isinstance(outputs, tuple) else (outputs,)
