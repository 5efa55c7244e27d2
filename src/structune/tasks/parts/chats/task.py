"""What all tasks share whose model goes on with a conversation."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from structune.paths import FilePath
from structune.tasks.parts.chats.messages import Message
from structune.tasks.parts.chats.templates import TEMPLATES, named_template
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.task import Base, Targets, Task

if TYPE_CHECKING:
    from torch import nn
    from typing_extensions import Self  # in typing from Python 3.11 on


class ChatTask(Task, ABC):
    """A model that writes, its chat template, and how it converses.

    `chat_template` is a file, or `chatml`, `alpaca` or `plain`; left out, it is the tokenizer's own.
    """

    chat_template: FilePath | None = None

    hub_name: ClassVar[str] = "text-generation"
    peft_name: ClassVar[str | None] = "CAUSAL_LM"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    starter_model: ClassVar[str] = "HuggingFaceTB/SmolLM2-135M-Instruct"
    starter_data: ClassVar[str] = "your-data.jsonl"

    def with_files(self, change: Callable[[str], str]) -> Self:
        if self.chat_template is None or self.chat_template in TEMPLATES:
            return self
        return self.model_copy(update={"chat_template": change(self.chat_template)})

    def trains_head(self) -> bool:
        return False

    def processor(self, section: ModelSection) -> Any:
        from structune.tasks.parts.text.texts import load_tokenizer

        tokenizer = load_tokenizer(section)
        if self.chat_template is not None:
            tokenizer.chat_template = named_template(self.chat_template)
        return tokenizer

    def save_small_model(self, section: ModelSection, folder: Path, widest: int) -> str:
        from structune.tasks.parts.small_model import save_small_text_model

        return save_small_text_model(section, folder, self.auto_class, "llama", widest)

    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        from structune.tasks.parts.chats.model import load_chat_model

        return load_chat_model(section, self.processor(section), seed)

    def answering(self) -> tuple[int, Any]:
        """How many tokens an answer has at most, and how they are drawn. Default: 256, the likeliest each time."""
        return 256, None

    def converse(
        self, model: nn.Module, base: Base, messages: list[Message], data: Any, tell: Callable[[str], None]
    ) -> str:
        from structune.data.examples import Examples
        from structune.tasks.parts.chats.answering import write_answer
        from structune.tasks.parts.chats.tokens import encode_chats, longest

        if data.system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": data.system}, *messages]
        (row,) = encode_chats(Examples.unlabelled({"prompt": [messages]}), base.processor, longest(data, base))
        return write_answer(model, base.processor, row["input_ids"].tolist(), *self.answering(), tell)
