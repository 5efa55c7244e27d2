"""The model card of a saved adapter: what it is, how it did, how to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from structune.finetune.methods import PeftSection, UpdateSection
from structune.finetune.model import hub_name
from structune.finetune.recipe import Recipe, ResolvedRecipe


def model_card(recipe: ResolvedRecipe, metrics: dict[str, Any], longest: int) -> str:
    """Markdown for `adapter/README.md`: metadata, the loading lines, the numbers and the recipe.

    `longest` is the number of tokens at which texts were cut.
    """
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

{_loading(recipe, base, metrics["labels"], longest)}

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


def _loading(recipe: ResolvedRecipe, base: str, labels: list[str], longest: int) -> str:
    if not isinstance(recipe.method, PeftSection):
        return (
            "`adapter_model.safetensors` holds the trained tensors under the names they have in the base model.\n"
            "`structune evaluate RUN` and `structune merge RUN --out DIR` read it; the merged folder loads with\n"
            '`AutoModelForSequenceClassification.from_pretrained("DIR")`.'
        )
    registers = isinstance(recipe.method, UpdateSection)
    first = "import structune  # registers the method with PEFT\n" if registers else ""
    revision = "" if recipe.model.revision is None else f", revision={recipe.model.revision!r}"
    given, texts = 'texts = ["some text"]', "texts"
    if recipe.data.text_pair is not None:
        given, texts = f'{given}\nseconds = ["the text beside it"]', "texts, seconds"
    return f"""```python
{first}import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

labels = {labels!r}
tokenizer = AutoTokenizer.from_pretrained({base!r}{revision})
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
base = AutoModelForSequenceClassification.from_pretrained(
    {base!r}{revision}, num_labels=len(labels), id2label=dict(enumerate(labels)),
    label2id={{label: number for number, label in enumerate(labels)}}, pad_token_id=tokenizer.pad_token_id,
)
model = PeftModel.from_pretrained(base, "path/to/this/folder").eval()

{given}
tokens = tokenizer({texts}, padding=True, truncation=True, max_length={longest}, return_tensors="pt")
with torch.inference_mode():
    for number in model(**tokens).logits.argmax(-1).tolist():
        print(labels[number])
```"""


def _public(recipe: ResolvedRecipe) -> Recipe:
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
