"""Chat templates by name: those that are no model's own. A recipe may name a file instead."""

from __future__ import annotations

from pathlib import Path

from structune.errors import UserError
from structune.section import closest

CHATML = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

ALPACA = """Below is an instruction that describes a task. Write a response that appropriately completes the request.
{% for message in messages %}{% if message['role'] == 'assistant' %}

### Response:
{{ message['content'] }}{{ eos_token }}{% elif message['role'] == 'user' %}

### Instruction:
{{ message['content'] }}{% else %}
{{ message['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}

### Response:
{% endif %}"""

PLAIN = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)

TEMPLATES = {"chatml": CHATML, "alpaca": ALPACA, "plain": PLAIN}
"""`chatml` marks turns as OpenAI did first, `alpaca` is that of Stanford Alpaca, `plain` puts nothing between turns."""


def named_template(given: str) -> str:
    """The template of that name, or in that file.

    Raises:
        UserError: there is neither.
    """
    if given in TEMPLATES:
        return TEMPLATES[given]
    try:
        return Path(given).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        known = list(TEMPLATES)
        raise UserError(
            f"task.chat_template = {given!r}: is no file that can be read ({error}), and no template is called so"
            f"{closest(Path(given).name, known)}; known: {', '.join(known)}"
        ) from None
