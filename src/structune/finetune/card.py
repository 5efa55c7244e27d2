"""The model card of a saved adapter: what it is, how it did, how to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from structune.finetune.methods import C3A, Hydra, PeftSection, Structune
from structune.finetune.model import hub_name
from structune.finetune.recipe import Recipe

__all__ = ["model_card"]


def model_card(recipe: Recipe, metrics: dict[str, Any]) -> str:
    """Markdown for ``adapter/README.md``: metadata, the loading lines, the numbers and the recipe."""
    base = hub_name(recipe.model)
    local = Path(base).is_dir()
    named = Path(base).name if local else base
    tags = ["text-classification", "structune", metrics["method"]]
    library = "peft" if isinstance(recipe.method, PeftSection) else "transformers"
    return f"""---
{"" if local else f"base_model: {base}" + chr(10)}library_name: {library}
pipeline_tag: text-classification
tags:
{chr(10).join(f"- {tag}" for tag in tags)}
---

# {recipe.name}: {metrics["method"]} on {named}

{named} fine-tuned with {metrics["method"]} for text classification into {len(metrics["labels"])} classes
({", ".join(f"`{label}`" for label in metrics["labels"][:20])}). Made with structune.

## Load it

{_loading(recipe, base, metrics["labels"])}

## Numbers

| | |
|---|---|
| accuracy on {metrics["eval_examples"]:,} held-out examples | {metrics["eval_accuracy"]:.4f} |
| macro F1 | {metrics["eval_f1"]:.4f} |
| Matthews correlation | {metrics["eval_matthews"]:.4f} |
| evaluation loss | {metrics["eval_loss"]:.4f} |
| training examples | {metrics["train_examples"]:,} |
| steps | {metrics["steps"]:,} |
| trained numbers in the adapter | {metrics["trainable_adapter"]:,} |
| trained numbers in the head | {metrics["trainable_head"]:,} |
| size of the adapter without the head | {metrics["adapter_bytes"]:,} bytes |
| trained on | {metrics["device"]}, {metrics["dtype"]}, seed {metrics["seed"]} |

## Recipe

```yaml
{_public(recipe).to_yaml().rstrip()}
```
"""


def _loading(recipe: Recipe, base: str, labels: list[str]) -> str:
    if not isinstance(recipe.method, PeftSection):
        return (
            "`adapter_model.safetensors` holds the trained tensors under the names they have in the base model.\n"
            "`structune evaluate RUN` and `structune merge RUN --out DIR` read it; the merged folder loads with\n"
            '`AutoModelForSequenceClassification.from_pretrained("DIR")`.'
        )
    registers = isinstance(recipe.method, C3A | Hydra | Structune)
    first = "import structune  # registers the method with PEFT\n" if registers else ""
    return f"""```python
{first}from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base = AutoModelForSequenceClassification.from_pretrained("{base}", num_labels={len(labels)})
model = PeftModel.from_pretrained(base, "path/to/this/folder").eval()
tokenizer = AutoTokenizer.from_pretrained("{base}")
labels = {labels!r}

tokens = tokenizer(["some text"], return_tensors="pt")
print(labels[model(**tokens).logits.argmax(-1).item()])
```"""


def _public(recipe: Recipe) -> Recipe:
    """The recipe without folders of the machine it ran on."""
    files = {key: Path(file).name for key in ("train", "evaluation") if (file := getattr(recipe.data, key))}
    name = Path(recipe.model.name).name if Path(recipe.model.name).is_dir() else recipe.model.name
    return recipe.model_copy(
        update={
            "output": None,
            "data": recipe.data.model_copy(update=files),
            "model": recipe.model.model_copy(update={"name": name}),
        }
    )
