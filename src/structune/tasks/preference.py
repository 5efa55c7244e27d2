"""Preferences: to answer more like the better of two responses than like the worse one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from structune.data.examples import Examples
from structune.data.table import Table
from structune.tasks.parts.chats.card import chat_card
from structune.tasks.parts.chats.task import ChatTask
from structune.tasks.parts.made_up import made_up_texts
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.preferences.pairs import PairData, doubts_about_pairs, longer_chosen, pairs_of
from structune.tasks.task import Base, Beneath, CardNames, Metric, Outputs, Targets

if TYPE_CHECKING:
    from torch import Tensor, nn


class Preference(ChatTask):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) through TRL's `DPOTrainer`.

    The margin of a pair is β (log π(chosen)/π_ref(chosen) − log π(rejected)/π_ref(rejected)), where π_ref is the model
    without its adapter; the loss is −log σ(margin). `beta` holds the model to the reference: the larger, the closer.
    """

    name: Literal["preference"] = "preference"
    beta: Annotated[float, Field(gt=0)] = 0.1

    data_section: ClassVar[type[PairData]] = PairData
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("accuracy", "accuracy of the margin", percent=True, range=(0, 1)),
        Metric("margin", "mean margin"),
    )

    def examples(self, table: Table, data: PairData) -> Examples:
        seen = self.inputs(table, data)
        groups = [str(prompt) for prompt in seen.inputs["prompt"]]
        if data.group is not None:
            groups = table.column(data.group, "group")
        return seen.labelled(["chosen"] * len(seen), groups, ["pair"] * len(seen))

    def inputs(self, table: Table, data: PairData) -> Examples:
        return pairs_of(table, data)

    def made_up(self, count: int, data: PairData) -> Examples:
        texts = {role: made_up_texts(count, seed) for seed, role in enumerate(("prompt", "chosen", "rejected"))}
        speaks = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
        seen = Examples.unlabelled(
            {name: [[{"role": speaks[name], "content": text}] for text in texts[name]] for name in texts}
        )
        return seen.labelled(["chosen"] * count, texts["prompt"], ["pair"] * count)

    def doubts(self, train: Examples, held_out: Examples, data: PairData) -> Iterator[str]:
        yield from doubts_about_pairs(train, "to train on")
        yield from doubts_about_pairs(held_out, "held out")

    def doubts_about_file(self, examples: Examples, data: PairData) -> Iterator[str]:
        return doubts_about_pairs(examples, "to evaluate on")

    def baseline(self, held_out: Examples) -> Mapping[str, Any]:
        return {"words": "always the longer response", "value": longer_chosen(held_out)}

    def keeps_base(self) -> bool:
        return True

    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        from structune.tasks.parts.dropout import switch_off_dropout

        base = super().load(section, targets, seed)
        switch_off_dropout(base.model)
        return base

    def encode(self, examples: Examples, base: Base, targets: Targets, data: PairData) -> Sequence[Mapping[str, Any]]:
        from structune.tasks.parts.chats.tokens import longest
        from structune.tasks.parts.preferences.tokens import encode_pairs

        return encode_pairs(examples, base.processor, longest(data, base))

    def doubts_about_encoding(self, parts: Sequence[Examples], base: Base, data: PairData) -> Iterator[str]:
        from structune.tasks.parts.chats.tokens import longest
        from structune.tasks.parts.preferences.tokens import doubts_about_cuts

        return doubts_about_cuts(parts, base.processor, longest(data, base))

    def collator(self, base: Base, training: bool) -> Callable[[list[Mapping[str, Any]]], dict[str, Tensor]]:
        from structune.tasks.parts.preferences.tokens import Padding

        return Padding(base.processor.pad_token_id)

    def length(self, encoded: Mapping[str, Any]) -> int:
        return len(encoded["prompt_ids"]) + max(len(encoded["chosen_ids"]), len(encoded["rejected_ids"]))

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor | None, Outputs]:
        """DPO's loss, and the log-probabilities of the responses, by the model and by the reference: (pairs,) each."""
        from structune.tasks.parts.preferences.margins import dpo_loss, margins

        found = margins(model, batch)
        return (dpo_loss(found, self.beta) if "labels" in batch else None), tuple(found)

    def compared(self, model: nn.Module, batch: dict[str, Tensor]) -> Outputs:
        """The log-probabilities by the model alone: a merged one has no reference."""
        return self.step(model, batch)[1][:2]

    def weight(self, batch: Mapping[str, Tensor]) -> float:
        return len(batch["input_ids"]) // 2

    def trainer(self, base: Base, data: PairData) -> Beneath:
        from datasets import Dataset
        from trl.trainer.dpo_config import DPOConfig

        from structune.tasks.parts.preferences.trainer import PairTrainer

        return Beneath(
            PairTrainer,
            DPOConfig,
            settings={"beta": self.beta, "disable_dropout": False, "max_length": None},
            options={"processing_class": base.processor},
            examples=lambda rows: Dataset.from_dict({"row": range(len(rows))}),
            own_loss=True,
        )

    def scores(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, float]:
        margins = self._margins(outputs)
        right = (margins > 0).mean() + 0.5 * (margins == 0).mean()
        return {"accuracy": float(right), "margin": float(margins.mean())}

    def details(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, Any]:
        """Rewards in the sense of the paper, and how often the model itself finds the chosen response more likely."""
        chosen, rejected, chosen_before, rejected_before = (part.astype("float64") for part in outputs)
        return {
            "reward_of_chosen": float(self.beta * (chosen - chosen_before).mean()),
            "reward_of_rejected": float(self.beta * (rejected - rejected_before).mean()),
            "chosen_more_likely": float((chosen > rejected).mean()),
            "chosen_more_likely_before": float((chosen_before > rejected_before).mean()),
        }

    def answers(self, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        return [
            {"prefers": "chosen" if margin > 0 else "rejected" if margin < 0 else "neither", "margin": float(margin)}
            for margin in self._margins(outputs)
        ]

    def describe(self, targets: Targets) -> str:
        return f"preferences (DPO, β = {self.beta:g})"

    def loading(self, names: CardNames, targets: Targets, data: PairData, base: Base) -> str:
        return chat_card(names, base, self.chat_template, data.system, "some question", self.answering()[0])

    def _margins(self, outputs: Outputs) -> Any:
        from structune.tasks.parts.preferences.margins import Margins

        return Margins(*(part.astype("float64") for part in outputs)).scaled(self.beta)
