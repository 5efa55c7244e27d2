"""A run's adapter merged into its model: a plain transformers folder that needs neither structune nor PEFT."""

from __future__ import annotations

from pathlib import Path

import peft
import torch
from torch import nn

from structune.errors import UserError
from structune.files import new_folder
from structune.finetune.data import load_data
from structune.finetune.evaluate import LoadedRun, load_run
from structune.finetune.place import check_own_folder, check_writable
from structune.finetune.quiet import quiet
from structune.finetune.run import refuse_inside_run

_SAMPLE = 64  # held-out examples on which merged and unmerged logits are compared
_TOLERANCE = 1e-3  # of the largest logit, fp32


def merge(folder: str | Path, out: str | Path) -> float:
    """Write the merged model and its tokenizer to `out` and return the largest difference between logits.

    The logits of up to 64 held-out examples are compared before and after, relative to the largest of them; above 1e-3
    nothing is written.

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
    loaded = load_run(folder)
    texts = _sample(loaded)
    before = _logits(loaded.model, texts)
    model = loaded.model
    if isinstance(model, peft.PeftModel):
        try:
            model = model.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise UserError(f"run {str(folder)!r}: cannot be merged: {error}") from None
    difference = float((_logits(model, texts) - before).abs().max() / before.abs().max())
    if not difference <= _TOLERANCE:
        raise UserError(
            f"run {str(folder)!r}: merging changes the outputs by {difference:.1e} of the largest; nothing was written"
        )
    with quiet(), new_folder(out) as temporary:
        model.save_pretrained(str(temporary))  # type: ignore[operator]
        loaded.base.tokenizer.save_pretrained(str(temporary))
    return difference


def _sample(loaded: LoadedRun) -> dict[str, torch.Tensor]:
    examples = load_data(loaded.recipe.data).evaluation
    examples = examples.subset(range(min(_SAMPLE, len(examples))))
    tokens: dict[str, torch.Tensor] = loaded.base.tokenizer(
        examples.texts,
        examples.pairs,
        truncation=True,
        padding=True,
        max_length=min(loaded.recipe.data.max_length, loaded.base.tokenizer.model_max_length),
        return_tensors="pt",
    )
    return tokens


@torch.inference_mode()
def _logits(model: nn.Module, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    logits: torch.Tensor = model.eval()(**tokens).logits
    return logits
