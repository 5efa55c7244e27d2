"""The lines of a model card that load an adapter of a model that writes, and let it answer."""

from __future__ import annotations

from structune.tasks.task import Base, CardNames


def chat_card(names: CardNames, base: Base, template: str | None, system: str | None, question: str, most: int) -> str:
    """Python lines that ask a question.

    Args:
        names: what things are called.
        base: the model with its tokenizer.
        template: the chat template that a recipe names; None: the tokenizer's own.
        system: the message before each question, if there is one.
        question: of the user.
        most: how many tokens are written at most.
    """
    own = "" if template is None else f"tokenizer.chat_template = {base.processor.chat_template!r}\n"
    first = "" if system is None else f'{{"role": "system", "content": {system!r}}}, '
    return f"""import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({names.base!r}{names.options})
{own}base = AutoModelForCausalLM.from_pretrained({names.base!r}{names.options})
model = PeftModel.from_pretrained(base, "path/to/this/folder").eval()

messages = [{first}{{"role": "user", "content": {question!r}}}]
tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
with torch.inference_mode():
    written = model.generate(**tokens, max_new_tokens={most}, do_sample=False)
print(tokenizer.decode(written[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))"""
