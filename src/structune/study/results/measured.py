"""What the folder of a finished run says of it, for the file of its result."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from structune.finetune.recipe.recipe import ResolvedRecipe
from structune.finetune.run_folder.run import Run

TOOK = ("run_seconds", "test_seconds")
"""Of a run from its beginning to its score on the validation part, and of its score on the test part."""


def measured(recipe: ResolvedRecipe, run: Run) -> dict[str, Any]:
    """What the folder of a finished run says of it: scores on the validation part, sizes, time, memory, day, curves."""
    metrics, history = run.metrics(), run.history()
    scores = [*(metric.key for metric in recipe.task.metrics), "loss"]
    content: dict[str, Any] = {"validation": {key: metrics[f"eval_{key}"] for key in scores}}
    scored = {entry["step"]: entry for entry in history if "eval_loss" in entry}  # of one step the last
    if recipe.train.evaluate_first:
        first = next(iter(scored.values()))
        content["untrained"] = {key: first[f"eval_{key}"] for key in scores}
    kept = ("trainable_adapter", "trainable_head", "adapter_bytes", "steps", "train_examples", "eval_examples")
    taken = ("seconds_per_step", "peak_memory_bytes", "peak_memory_kind", "device")
    content |= {key: metrics[key] for key in (*kept, *taken) if key in metrics}
    content |= {"train_seconds": round(metrics["train_seconds"], 1), "versions": run.machine()}
    ended = datetime.fromtimestamp(run.metrics_file.stat().st_mtime, timezone.utc)
    content["date"] = ended.date().isoformat()
    content["curve"] = [[entry["step"], entry["loss"]] for entry in history if "loss" in entry]
    content["validation_curve"] = {"step": list(scored)} | {
        key: [entry[f"eval_{key}"] for entry in scored.values()] for key in scores
    }
    return content
