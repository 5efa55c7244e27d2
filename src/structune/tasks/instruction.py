"""Instruction tuning: to answer as the responses of conversations do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from structune.data.examples import Examples
from structune.data.table import Table
from structune.doubt import say
from structune.errors import UserError
from structune.section import Section
from structune.tasks.parts.chats.card import chat_card
from structune.tasks.parts.chats.messages import content_of
from structune.tasks.parts.chats.rows import (
    ChatData,
    conversations,
    doubts_about_turns,
    learned,
    line_table,
    unlabelled,
    write_conversations,
)
from structune.tasks.parts.chats.task import ChatTask
from structune.tasks.parts.made_up import made_up_texts
from structune.tasks.parts.verifiers.extraction import Rule, extract, same
from structune.tasks.task import Base, Beneath, CardNames, Metric, Outputs, Targets, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

Positive = Annotated[int, Field(ge=1)]

_SCORES = (
    Metric("loss_per_token", "loss per token", greater_is_better=False, range=(0, None)),
    Metric("perplexity", "perplexity", greater_is_better=False, range=(1, None), digits=2),
    Metric("token_accuracy", "accuracy of tokens", percent=True, range=(0, 1)),
)
_EXACT = Metric("exact_match", "exact match", percent=True, range=(0, 1))


class GenerationSection(Section):
    """How answers are written: at most `max_new_tokens`, the likeliest token each time where `temperature` is 0.

    Else tokens are drawn at that temperature, out of the likeliest that have `top_p` of the probability. `batch_size`
    prompts are answered together.
    """

    max_new_tokens: Positive = 256
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch_size: Positive = 16


class Instruction(ChatTask):
    """Supervised fine-tuning on conversations through TRL's `SFTTrainer`: only responses are learned.

    `chat_template` is a file, or `chatml`, `alpaca` or `plain`; left out, it is the tokenizer's own. `packing` puts
    several short conversations into a row of a batch, which do not see each other; `train.batch_size` counts rows then.

    `exact_match` has held-out prompts answered, and scores what a rule finds in the answers: `whole`, `number` (the
    last one), `gsm8k` (the number behind `####`), `choice` (a capital letter), or a regular expression with one group.
    `samples` of the examples are answered by an evaluation, with and without the adapter.
    """

    name: Literal["instruction"] = "instruction"
    packing: bool = False
    exact_match: Rule | None = None
    generation: GenerationSection = GenerationSection()
    samples: Annotated[int, Field(ge=0)] = 10

    data_section: ClassVar[type[ChatData]] = ChatData

    @property
    def metrics(self) -> tuple[Metric, ...]:  # type: ignore[override]  # one of them only where a recipe asks for it
        return _SCORES if self.exact_match is None else (*_SCORES, _EXACT)

    # Data.

    def examples(self, table: Table, data: ChatData) -> Examples:
        found = learned(conversations(table, data, answered=True), table, data)
        if self.exact_match is not None and any(isinstance(response, str) for response in found.labels or []):
            raise UserError(
                f"task.exact_match = {self.exact_match!r}: texts as they are have no prompt that could be answered; "
                f"leave it out"
            )
        return found

    def inputs(self, table: Table, data: ChatData) -> Examples:
        return unlabelled(conversations(table, data, answered=False))

    def from_lines(self, lines: Sequence[str], data: ChatData) -> Table:
        return line_table(lines, data)

    def write(self, examples: Examples, path: Path, data: ChatData) -> Path:
        return write_conversations(examples, path, data)

    def made_up(self, count: int, data: ChatData) -> Examples:
        asked, answers = made_up_texts(count), made_up_texts(count, seed=1)
        if data.form == "text":
            return Examples.unlabelled({"prompt": [[] for _ in asked]}).labelled(asked, asked, ["all"] * count)
        prompts = [[{"role": "user", "content": text}] for text in asked]
        said = [{"role": "assistant", "content": text} for text in answers]
        return Examples.unlabelled({"prompt": prompts}).labelled(said, asked, ["all"] * count)

    def in_small(self, data: dict[str, Any]) -> tuple[Task, dict[str, Any]]:
        """Answers of two tokens as well."""
        short = self.generation.model_copy(update={"max_new_tokens": 2})
        task = self.model_copy(update={"generation": short, "samples": min(self.samples, 1)})
        return task, super().in_small(data)[1]

    def doubts(self, train: Examples, held_out: Examples, data: ChatData) -> Iterator[str]:
        yield from doubts_about_turns(train, "data.text")
        if count := len(set(held_out.groups) & set(train.groups)):
            yield (
                f"{count:,} of {len(held_out):,} prompts to evaluate on are among those to train on: the loss per "
                f"token will be too good"
            )

    # Model and batches.

    def encode(self, examples: Examples, base: Base, targets: Targets, data: ChatData) -> Sequence[Mapping[str, Any]]:
        from structune.tasks.parts.chats.tokens import encode_chats, longest

        return encode_chats(examples, base.processor, longest(data, base))

    def pack(self, encoded: Sequence[Mapping[str, Any]], base: Base, data: ChatData) -> Sequence[Mapping[str, Any]]:
        if not self.packing:
            return encoded
        from structune.tasks.parts.chats.packing import pack, refuse_mixing
        from structune.tasks.parts.chats.tokens import longest

        refuse_mixing(base.model)
        return pack(encoded, longest(data, base))

    def doubts_about_encoding(self, parts: Sequence[Examples], base: Base, data: ChatData) -> Iterator[str]:
        from structune.tasks.parts.chats.tokens import doubts_about_tokens, longest

        return doubts_about_tokens(parts, base.processor, longest(data, base))

    def collator(self, base: Base, training: bool) -> Callable[[list[Mapping[str, Any]]], dict[str, Tensor]]:
        from structune.tasks.parts.chats.batches import ChatBatches

        return ChatBatches(base.processor.pad_token_id, asks=self.exact_match is not None and not training)

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor | None, Outputs]:
        """Minus the mean log-probability of the tokens that are learned, and what is known of each example.

        That is Σ log p, how many tokens, how many of them are the likeliest, and as bytes what the model answers, where
        that is asked for, and what it should. Without labels there is nothing: `respond` answers.
        """
        from structune.tasks.parts.chats.model import log_likelihoods
        from structune.tasks.parts.generation.complete import complete, tokenizer_of
        from structune.tasks.parts.generation.texts import as_numbers

        rows = len(batch["input_ids"])
        if "labels" not in batch:
            return None, ()
        likelihoods, counts, right = log_likelihoods(model, batch)
        written, expected = [""] * rows, [""] * rows
        if "prompt" in batch:
            tokenizer = tokenizer_of(model)
            prompts = {"input_ids": batch["prompt"], "attention_mask": batch["prompt_mask"]}
            written = complete(model, tokenizer, prompts, self.generation.max_new_tokens, self._drawing()).texts
            expected = [tokenizer.decode(ids[ids >= 0], skip_special_tokens=True) for ids in batch["expected"]]
        texts = [as_numbers(each).to(counts.device) for each in (written, expected)]
        loss = -likelihoods.sum() / counts.sum().clamp_min(1)
        return loss, (likelihoods.detach(), counts, right, *texts)

    def compared(self, model: nn.Module, batch: dict[str, Tensor]) -> Outputs:
        """The log-likelihoods of responses."""
        from structune.tasks.parts.chats.model import log_likelihoods

        return log_likelihoods(model, batch)[0]

    def weight(self, batch: Mapping[str, Tensor]) -> float:
        """The tokens that are learned."""
        return float((batch["labels"][:, 1:] >= 0).sum()) if "labels" in batch else super().weight(batch)

    def trainer(self, base: Base, data: ChatData) -> Beneath:
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        return Beneath(
            SFTTrainer,
            SFTConfig,
            settings={"dataset_kwargs": {"skip_prepare_dataset": True}},
            options={"processing_class": base.processor},
            examples=_shown_to_trl,
            own_loss=True,
        )

    # Outputs.

    def scores(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, float]:
        likelihoods, counts, right, *texts = outputs
        tokens = max(float(counts.sum()), 1.0)
        loss = -float(likelihoods.astype("float64").sum()) / tokens
        scores = {
            "loss_per_token": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "token_accuracy": float(right.sum()) / tokens,
        }
        if self.exact_match is not None:
            found = [self._is_right(*each) for each in zip(*map(_texts, texts), strict=True)]
            scores["exact_match"] = sum(found) / len(found)
        return scores

    def _is_right(self, written: str, expected: str) -> bool:
        assert self.exact_match is not None  # who asks has looked
        answer = extract(self.exact_match, written)
        return answer is not None and same(answer, extract(self.exact_match, expected) or expected)

    def answers(self, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        """The loss per token of each example."""
        return [
            {"loss_per_token": -float(total) / max(int(count), 1)}
            for total, count in zip(outputs[0], outputs[1], strict=True)
        ]

    def respond(
        self, model: nn.Module, base: Base, examples: Examples, targets: Targets, data: ChatData
    ) -> Iterator[dict[str, Any]]:
        say(self.doubts_about_encoding([examples], base, data))
        return ({"answer": text} for text in self._write(model, base, examples, data))

    def samples_of(
        self, model: nn.Module, base: Base, examples: Examples, targets: Targets, data: ChatData
    ) -> dict[str, Any]:
        """The first examples with what the model answers, and what it would answer without its adapter."""
        chosen = examples.subset(range(min(self.samples, len(examples))))
        if not len(chosen) or any(isinstance(response, str) for response in chosen.labels or []):
            return {}
        asked = Examples(chosen.inputs, None, chosen.groups, chosen.strata)
        after = list(self._write(model, base, asked, data))
        before: list[str] | None = None
        if hasattr(model, "disable_adapter"):
            with model.disable_adapter():  # type: ignore[operator]  # of PEFT's
                before = list(self._write(model, base, asked, data))
        rows = {}
        for number, (prompt, response) in enumerate(zip(chosen.inputs["prompt"], chosen.labels or [], strict=True)):
            row = {"prompt": content_of(prompt[-1]) if prompt else "", "expected": content_of(response)}
            rows[str(number + 1)] = (
                row | ({} if before is None else {"before": before[number]}) | {"after": after[number]}
            )
        return {"samples": rows}

    def answering(self) -> tuple[int, Any]:
        return self.generation.max_new_tokens, self._drawing()

    def _write(self, model: nn.Module, base: Base, examples: Examples, data: ChatData) -> Iterator[str]:
        from structune.tasks.parts.chats.answering import write_answers
        from structune.tasks.parts.chats.tokens import longest

        how = self.generation
        return write_answers(
            model, base.processor, examples, longest(data, base), how.max_new_tokens, how.batch_size, self._drawing()
        )

    def _drawing(self) -> Any:
        from structune.tasks.parts.generation.complete import Drawing

        how = self.generation
        return None if how.temperature == 0 else Drawing(how.temperature, how.top_p)

    # Card.

    def describe(self, targets: Targets) -> str:
        return "following instructions"

    def loading(self, names: CardNames, targets: Targets, data: ChatData, base: Base) -> str:
        return chat_card(names, base, self.chat_template, data.system, "some question", self.generation.max_new_tokens)


def _texts(numbers: Any) -> list[str]:
    from structune.tasks.parts.generation.texts import as_texts

    return as_texts(numbers)


def _shown_to_trl(encoded: Sequence[Mapping[str, Any]]) -> Any:
    """One example, which its trainer looks at; it is given them all in batches."""
    from datasets import Dataset

    return Dataset.from_list([{name: encoded[0][name].tolist() for name in ("input_ids", "labels")}])
