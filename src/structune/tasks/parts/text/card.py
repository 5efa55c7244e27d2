"""The lines of a model card that load an adapter of a text task and use it."""

from __future__ import annotations

from structune.tasks.parts.text.texts import TextData, longest
from structune.tasks.task import Base, CardNames


def text_card(names: CardNames, data: TextData, base: Base, known: str, options: str, use: str, head: str = "") -> str:
    """Python lines for a model that gives `logits` for texts.

    Args:
        names: what things are called.
        data: the columns, and where texts are cut.
        base: the model with its tokenizer.
        known: lines that say what the model's numbers mean, such as the names of its labels.
        options: arguments of `from_pretrained` that make the head; none where the pretrained one is kept.
        use: lines that print what `logits` say, indented by four spaces.
        head: lines that change the head of `base`, if any.
    """
    most = longest(data, base.processor)
    given, texts = 'texts = ["some text"]', "texts"
    if data.text_pair is not None:
        given, texts = f'{given}\nseconds = ["the text beside it"]', "texts, seconds"
    arguments = f"{options}, " if options else ""
    return f"""import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

{known}
tokenizer = AutoTokenizer.from_pretrained({names.base!r}{names.options})
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
base = AutoModelForSequenceClassification.from_pretrained(
    {names.base!r}{names.options}, {arguments}pad_token_id=tokenizer.pad_token_id,
)
{head}model = PeftModel.from_pretrained(base, "path/to/this/folder").eval()

{given}
tokens = tokenizer({texts}, padding=True, truncation=True, max_length={most}, return_tensors="pt")
with torch.inference_mode():
{use}"""


CLASS_OPTIONS = """num_labels=len(labels), id2label=dict(enumerate(labels)),
    label2id={label: number for number, label in enumerate(labels)}"""
"""Arguments for a head with an output for each label."""
