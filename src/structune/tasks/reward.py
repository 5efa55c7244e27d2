"""Rewards: to write completions that a function gives more for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from structune.data.examples import Examples
from structune.data.table import Table
from structune.errors import UserError
from structune.files import write_text
from structune.tasks.parts.chats.card import chat_card
from structune.tasks.parts.chats.task import ChatTask
from structune.tasks.parts.made_up import made_up_texts
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.rewards.prompts import PromptData, labelled_prompts, prompts_of
from structune.tasks.parts.verifiers.choice import AnyVerifier
from structune.tasks.parts.verifiers.exact_match import ExactMatch
from structune.tasks.parts.verifiers.verifier import Verifier
from structune.tasks.task import Base, Beneath, CardNames, Metric, Outputs, Targets, Task

if TYPE_CHECKING:
    from torch import Tensor, nn
    from typing_extensions import Self  # in typing from Python 3.11 on

Positive = Annotated[int, Field(ge=1)]


class Reward(ChatTask):
    """Group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300) through TRL's `GRPOTrainer`.

    For each prompt `generations` completions are drawn, and each is worth its reward less the mean of its group,
    divided by the group's standard deviation unless `scale` is `none` (arXiv 2503.20783). `loss` says what a loss is a
    mean over, in TRL's words. `beta` holds the model to the one without its adapter. `train.batch_size` counts
    completions.

    Held-out prompts are completed with the likeliest tokens, or with `evaluation: sampled` ones, the same in each
    evaluation.
    """

    name: Literal["reward"] = "reward"
    verifier: AnyVerifier = ExactMatch()
    generations: Annotated[int, Field(ge=2)] = 8
    max_new_tokens: Positive = 256
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 0.0
    loss: Literal["dapo", "grpo", "dr_grpo", "bnpo"] = "dapo"
    scale: Literal["group", "batch", "none"] = "group"
    evaluation: Literal["greedy", "sampled"] = "greedy"

    data_section: ClassVar[type[PromptData]] = PromptData
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("reward", "mean reward"),
        Metric("finished", "completions that came to an end", percent=True, range=(0, 1)),
        Metric("tokens", "mean tokens of a completion", greater_is_better=False, range=(0, None), digits=1),
    )

    def with_files(self, change: Callable[[str], str]) -> Self:
        return super().with_files(change).model_copy(update={"verifier": self.verifier.with_files(change)})

    def check_training(self, train: Any, examples: int, processes: int) -> None:
        if train.batch_size * train.gradient_accumulation % self.generations:
            fix = -(-train.batch_size // self.generations) * self.generations
            raise UserError(
                f"train.batch_size = {train.batch_size}: counts completions, of which each prompt has "
                f"task.generations = {self.generations}; give a multiple of that, for example {fix}"
            )
        if train.group_by_length:
            raise UserError(
                f"train.group_by_length: the completions of a prompt stay together in task {self.name}; leave it out"
            )
        prompts = train.batch_size * train.gradient_accumulation // self.generations
        if examples < prompts:
            raise UserError(
                f"train.batch_size = {train.batch_size}: a step takes {prompts} prompts, and there are {examples} to "
                f"train on; give more prompts, or a smaller batch"
            )

    def examples(self, table: Table, data: PromptData) -> Examples:
        self.verifier.check()
        return labelled_prompts(table, data, self.verifier)

    def inputs(self, table: Table, data: PromptData) -> Examples:
        return prompts_of(table, data)

    def from_lines(self, lines: Sequence[str], data: PromptData) -> Table:
        return Table("what was given", {data.prompt: list(lines)}, list(range(1, len(lines) + 1)))

    def targets(self, examples: Examples, data: PromptData, source: str) -> Targets:
        """The verifier in words, with a hash of code that is the user's; it is tried here for the first time."""
        first = (examples.labels or [])[0]
        self.verifier.reward("", first["answer"], first["row"])
        code = self.verifier.code()
        return {"verifier": self.verifier.about(), **({"code": code} if code else {})}

    def are_targets(self, content: Any) -> bool:
        return isinstance(content, dict) and isinstance(content.get("verifier"), str)

    def about(self, targets: Targets) -> str:
        return f"rewarded by {targets['verifier']}"

    def keeps_base(self) -> bool:
        return self.beta > 0

    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        from structune.tasks.parts.dropout import switch_off_dropout

        base = super().load(section, targets, seed)
        switch_off_dropout(base.model)
        return base

    def encode(self, examples: Examples, base: Base, targets: Targets, data: PromptData) -> Sequence[Mapping[str, Any]]:
        from structune.tasks.parts.chats.tokens import longest
        from structune.tasks.parts.rewards.tokens import asked

        rows = [{"input_ids": ids[-longest(data, base) :]} for ids in asked(examples, base.processor)]
        if examples.labels is None:
            return rows
        return [{**row, "labels": json.dumps(label)} for row, label in zip(rows, examples.labels, strict=True)]

    def doubts_about_encoding(self, parts: Sequence[Examples], base: Base, data: PromptData) -> Iterator[str]:
        from structune.tasks.parts.chats.tokens import longest
        from structune.tasks.parts.rewards.tokens import asked

        most = longest(data, base)
        lengths = [len(ids) for part in parts for ids in asked(part, base.processor)]
        if cut := sum(length > most for length in lengths):
            yield (
                f"data.max_length = {data.max_length}: {cut:,} of {len(lengths):,} prompts are cut at the front after "
                f"{most:,} tokens; the longest has {max(lengths):,}"
            )

    def collator(self, base: Base, training: bool) -> Callable[[list[Mapping[str, Any]]], dict[str, Tensor]]:
        from structune.tasks.parts.generation.complete import padded_left
        from structune.tasks.parts.generation.texts import as_numbers

        def put_together(rows: list[Mapping[str, Any]]) -> dict[str, Tensor]:
            batch = padded_left([row["input_ids"] for row in rows], base.processor.pad_token_id)
            return batch | ({"labels": as_numbers([row["labels"] for row in rows])} if "labels" in rows[0] else {})

        return put_together

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor | None, Outputs]:
        """Minus the mean reward, and the completions: their texts, as bytes, tokens, and whether they came to an end.

        The gradient of the loss, where one is recorded, is the policy gradient (Williams 1992) at these completions.
        """
        import torch

        from structune.tasks.parts.generation.complete import complete, tokenizer_of
        from structune.tasks.parts.generation.texts import as_numbers, as_texts
        from structune.tasks.parts.rewards.policy import minus_mean_reward

        made = complete(model, tokenizer_of(model), batch, *self.answering())
        outputs = as_numbers(made.texts).to(made.ids.device), made.counted.sum(1), made.ended.long()
        if "labels" not in batch:
            return None, outputs
        rewards = [
            _reward(self.verifier, *each) for each in zip(made.texts, as_texts(batch["labels"].cpu()), strict=True)
        ]
        return minus_mean_reward(model, batch, made, torch.tensor(rewards, device=made.ids.device)), outputs

    def compared(self, model: nn.Module, batch: dict[str, Tensor]) -> Outputs:
        """The logits of the first token of completions."""
        prompts = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return model(**prompts, use_cache=False).logits[:, -1].float()

    def trainer(self, base: Base, data: PromptData) -> Beneath:
        from trl.trainer.grpo_config import GRPOConfig

        from structune.tasks.parts.rewards.trainer import PromptTrainer

        return Beneath(
            PromptTrainer,
            GRPOConfig,
            settings={
                "beta": 0.0,  # `PromptTrainer` is told
                "num_generations": self.generations,
                "num_generations_eval": 1,
                "max_completion_length": self.max_new_tokens,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "loss_type": self.loss,
                "scale_rewards": self.scale,
                "disable_dropout": False,
            },
            options={"processing_class": base.processor, "reward_funcs": [self._rewards()], "beta": self.beta},
            examples=_prompts_and_rows,
            own_loss=True,
            own_batches=True,
        )

    def _rewards(self) -> Callable[..., list[float]]:
        """The verifier as TRL calls it."""

        def reward(completions: list[str], labels: list[str], **_: Any) -> list[float]:
            return [_of_row(self.verifier, *each) for each in zip(completions, labels, strict=True)]

        return reward

    def scores(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, float]:
        _, tokens, ended = outputs
        rewards = self._rewards_of(outputs, labels)
        return {
            "reward": sum(rewards) / len(rewards),
            "finished": float(ended.mean()),
            "tokens": float(tokens.mean()),
        }

    def details(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, Any]:
        """How much rewards differ, and the first completions with theirs."""
        from structune.tasks.parts.generation.texts import as_texts

        rewards = self._rewards_of(outputs, labels)
        mean = sum(rewards) / len(rewards)
        deviation = (sum((reward - mean) ** 2 for reward in rewards) / len(rewards)) ** 0.5
        texts = as_texts(outputs[0][:_SHOWN])
        shown = {
            str(number): {"reward": reward, "completion": _short(text)}
            for number, (text, reward) in enumerate(zip(texts, rewards, strict=False), 1)
        }
        return {"deviation_of_rewards": deviation, "completions": shown}

    def answering(self) -> tuple[int, Any]:
        return self.max_new_tokens, self._drawing()

    def answers(self, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        from structune.tasks.parts.generation.texts import as_texts

        return [{"completion": text} for text in as_texts(outputs[0])]

    def write(self, examples: Examples, path: Path, data: PromptData) -> Path:
        """The rows as they were."""
        file = path.with_name(f"{path.name}.jsonl")
        write_text(file, "".join(json.dumps(label["row"]) + "\n" for label in examples.labels or []))
        return file

    def made_up(self, count: int, data: PromptData) -> Examples:
        prompts = made_up_texts(count)
        answer = next((text for text in ("7", "A", "#### 7") if not self.verifier.check_answer(text)), "7")
        labels = [{"answer": answer, "row": {data.prompt: text, data.answer: answer}} for text in prompts]
        seen = Examples.unlabelled({"prompt": [[{"role": "user", "content": text}] for text in prompts]})
        return seen.labelled(labels, prompts, ["prompt"] * count)

    def in_small(self, data: dict[str, Any]) -> tuple[Task, dict[str, Any]]:
        """Completions of two tokens as well."""
        return self.model_copy(update={"max_new_tokens": 2}), super().in_small(data)[1]

    def describe(self, targets: Targets) -> str:
        return f"completions rewarded by {targets['verifier']} (GRPO)"

    def loading(self, names: CardNames, targets: Targets, data: PromptData, base: Base) -> str:
        question = data.template.replace("{prompt}", "some question")
        return chat_card(names, base, self.chat_template, data.system, question, self.max_new_tokens)

    def _drawing(self) -> Any:
        from structune.tasks.parts.generation.complete import Drawing

        return Drawing(self.temperature, self.top_p) if self.evaluation == "sampled" else None

    def _rewards_of(self, outputs: Outputs, labels: Any) -> list[float]:
        from structune.tasks.parts.generation.texts import as_texts

        return [_reward(self.verifier, *each) for each in zip(as_texts(outputs[0]), as_texts(labels), strict=True)]


_SHOWN = 10


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 100 else f"{plain[:97]}..."


def _of_row(verifier: Verifier, completion: str, label: str) -> float:
    known = json.loads(label)
    return verifier.reward(completion, known["answer"], known["row"])


_reward = lru_cache(maxsize=4096)(_of_row)
"""`_of_row`, not asked twice for what was asked of late: loss, scores and details of one evaluation read the same."""


def _prompts_and_rows(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Encoded examples as TRL's trainer takes them."""
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [row["input_ids"] for row in rows], "labels": [row["labels"] for row in rows]})
