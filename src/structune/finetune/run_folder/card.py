"""The model card of a saved adapter: what it is, how it did, how to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from structune.finetune.markdown import markdown_table
from structune.finetune.recipe.recipe import Recipe, ResolvedRecipe
from structune.finetune.run_folder.reported import CHOSEN_BY, TEST, VALIDATION, reported
from structune.methods.method import PeftMethod
from structune.methods.update import UpdateMethod
from structune.tasks.parts.pretrained import hub_name
from structune.tasks.task import Base, CardNames, Targets


def model_card(recipe: ResolvedRecipe, metrics: dict[str, Any], targets: Targets, loaded: Base) -> str:
    """Markdown for `adapter/README.md`: metadata, the loading lines, the numbers and the recipe."""
    task = recipe.task
    base = hub_name(recipe.model)
    local = Path(base).is_dir()
    named = Path(base).name if local else base
    tags = [task.hub_name, "structune", metrics["method"]]
    library = "peft" if isinstance(recipe.method, PeftMethod) else "transformers"
    return f"""---
{"" if local else f"base_model: {base}" + chr(10)}library_name: {library}
pipeline_tag: {task.hub_name}
tags:
{chr(10).join(f"- {tag}" for tag in tags)}
---

# {recipe.name}: {metrics["method"]} on {named}

{named} fine-tuned with {metrics["method"]} for {task.describe(targets)}. Made with structune.

## Load it

{_loading(recipe, base, targets, loaded)}

## Numbers

| | |
|---|---|
{_scores(recipe, metrics)}
| evaluation loss | {metrics["eval_loss"]:.4f} |
| training examples | {metrics["train_examples"]:,} |
| steps | {_steps(metrics)} |
| trained numbers in the adapter | {metrics["trainable_adapter"]:,} |
| trained numbers in the head | {metrics["trainable_head"]:,} |
| size of the adapter without the head | {metrics["adapter_bytes"]:,} bytes |
| trained on | {metrics["device"]}, {metrics["dtype"]}, seed {metrics["seed"]} |
{"" if reported(metrics) is TEST else chr(10) + CHOSEN_BY + chr(10)}
{_found(recipe, targets, loaded)}## Recipe

```yaml
{_public(recipe).to_yaml().rstrip()}
```
"""


def _found(recipe: ResolvedRecipe, targets: Targets, loaded: Base) -> str:
    """What the task found out before training, a section for each table."""
    sections = []
    for title, rows in recipe.task.found(loaded.prepared, targets).items():
        header = ["", *next(iter(rows.values()))]
        lines = [
            [name, *(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values())]
            for name, row in rows.items()
        ]
        sections.append(f"## {title.capitalize()}\n\n{markdown_table(header, lines)}\n\n")
    return "".join(sections)


def _scores(recipe: ResolvedRecipe, metrics: dict[str, Any]) -> str:
    first, *others = recipe.task.metrics
    part = reported(metrics)
    rows = [(f"{first.title} on {part.examples(metrics):,} {part.words} examples", part.score(metrics, first))]
    rows += [(metric.title, part.score(metrics, metric)) for metric in others]
    if part is TEST:
        rows += [("loss on them", metrics["test_loss"])]
        chosen_by = f"{first.title} on {metrics['eval_examples']:,} examples that choices were made by"
        rows += [(chosen_by, VALIDATION.score(metrics, first))]
    return "\n".join(f"| {words} | {value:.4f} |" for words, value in rows)


def _steps(metrics: dict[str, Any]) -> str:
    chosen = f"; these are the weights of step {metrics['best_step']:,}, the best" if "best_step" in metrics else ""
    return f"{metrics['steps']:,}{', stopped early' if metrics.get('stopped_early') else ''}{chosen}"


def _loading(recipe: ResolvedRecipe, base: str, targets: Targets, loaded: Base) -> str:
    if not isinstance(recipe.method, PeftMethod):
        return (
            "`adapter_model.safetensors` holds the trained tensors under the names they have in the base model.\n"
            "`structune evaluate RUN` and `structune merge RUN --out DIR` read it; the merged folder loads with\n"
            f'`{recipe.task.auto_class}.from_pretrained("DIR")`.'
        )
    registers = isinstance(recipe.method, UpdateMethod)
    first = "import structune  # registers the method with PEFT\n" if registers else ""
    revision = "" if recipe.model.revision is None else f", revision={recipe.model.revision!r}"
    lines = recipe.task.loading(CardNames(base, revision), targets, recipe.data, loaded)
    return f"```python\n{first}{lines}\n```"


def _public(recipe: ResolvedRecipe) -> Recipe:
    """The recipe without folders of the machine it ran on."""
    name = Path(recipe.model.name).name if Path(recipe.model.name).is_dir() else recipe.model.name
    return recipe.model_copy(
        update={
            "output": None,
            "task": recipe.task.with_files(lambda file: Path(file).name),
            "data": recipe.data.with_files(lambda file: Path(file).name),
            "model": recipe.model.model_copy(update={"name": name}),
        }
    )
