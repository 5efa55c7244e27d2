"""A task in one file, as another package would bring it: how many words a sentence has, by a model of its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from structune.data.examples import Examples
from structune.data.section import DataSection
from structune.data.table import Table
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.task import Base, CardNames, Metric, Outputs, Targets, Task


class Sentences(DataSection):
    sentence: str = "sentence"
    longest: int = 40


class WordCount(Task):
    """The targets are the mean number of words and their largest distance from it."""

    name: Literal["word-count"] = "word-count"
    width: int = 16

    data_section: ClassVar[type[DataSection]] = Sentences
    hub_name: ClassVar[str] = "tabular-regression"
    auto_class: ClassVar[str] = "torch.load"
    has_config: ClassVar[bool] = False
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rmse", "root mean square error", greater_is_better=False, range=(0, None)),
        Metric("within", "within one word", percent=True, range=(0, 1)),
    )

    def examples(self, table: Table, data: Any) -> Examples:
        seen = self.inputs(table, data)
        sentences = seen.inputs["sentence"]
        counts = [float(len(sentence.split())) for sentence in sentences]
        return seen.labelled(counts, sentences, [str(count > 4) for count in counts])

    def inputs(self, table: Table, data: Any) -> Examples:
        return Examples.unlabelled({"sentence": table.column(data.sentence, "sentence")})

    def from_lines(self, lines: Sequence[str], data: Any) -> Table:
        return Table("what was given", {data.sentence: list(lines)}, list(range(1, len(lines) + 1)))

    def targets(self, examples: Examples, data: Any, source: str) -> Targets:
        counts = examples.labels or []
        mean = sum(counts) / len(counts)
        return {"mean": mean, "scale": max(abs(count - mean) for count in counts)}

    def are_targets(self, content: Any) -> bool:
        return isinstance(content, dict) and content.keys() == {"mean", "scale"}

    def processor(self, section: ModelSection) -> Any:
        return len

    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        import torch

        torch.manual_seed(seed)
        return Base(self._model(), len, ["last"])

    def skeleton(self, section: ModelSection) -> Any:
        import torch

        with torch.device("meta"):
            return self._model()

    def adapted(self, base: Base) -> Sequence[str]:
        return ["first", "second"]

    def encode(self, examples: Examples, base: Base, targets: Targets, data: Any) -> Sequence[Mapping[str, Any]]:
        rows = [list(text.encode()[: data.longest]) for text in examples.inputs["sentence"]]
        if examples.labels is None:
            return [{"letters": row} for row in rows]
        labels = [(count - targets["mean"]) / targets["scale"] for count in examples.labels]
        return [{"letters": row, "labels": label} for row, label in zip(rows, labels, strict=True)]

    def collator(self, base: Base, training: bool) -> Callable[[list[Mapping[str, Any]]], Any]:
        import torch

        def put_together(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
            most = max(len(row["letters"]) for row in rows)
            batch = {"letters": torch.tensor([row["letters"] + [0] * (most - len(row["letters"])) for row in rows])}
            return batch | ({"labels": torch.tensor([row["labels"] for row in rows])} if "labels" in rows[0] else {})

        return put_together

    def length(self, encoded: Mapping[str, Any]) -> int:
        return len(encoded["letters"])

    def step(self, model: Any, batch: dict[str, Any]) -> tuple[Any, Outputs]:
        number, hidden = model(batch["letters"])
        loss = None if "labels" not in batch else (number - batch["labels"]).square().mean()
        return loss, (number, hidden)

    def callbacks(self, base: Base) -> list[Any]:
        from transformers import TrainerCallback

        class Stop(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if str(state.global_step) == os.environ.get("WORD_COUNT_STOPS_AFTER"):
                    os.kill(os.getpid(), signal.SIGTERM)

        return [Stop()]

    def scores(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, float]:
        errors = abs(outputs[0] - labels) * targets["scale"]
        return {"rmse": float((errors**2).mean() ** 0.5), "within": float((errors <= 1).mean())}

    def answers(self, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        return [{"words": float(number) * targets["scale"] + targets["mean"]} for number in outputs[0]]

    def save(self, model: Any, base: Base, targets: Targets, folder: Path) -> None:
        import torch

        torch.save(model.state_dict(), folder / "model.pt")
        (folder / "targets.json").write_text(json.dumps(dict(targets)))

    def describe(self, targets: Targets) -> str:
        return f"counting words, {targets['mean']:.1f} of them on average"

    def loading(self, names: CardNames, targets: Targets, data: Any, base: Base) -> str:
        return "from outside_words.task import WordCount"

    def _model(self) -> Any:
        import torch
        from torch import nn

        class Reader(nn.Module):
            def __init__(self, width: int) -> None:
                super().__init__()
                self.letters = nn.Embedding(256, width, padding_idx=0)
                self.first = nn.Linear(width, width)
                self.second = nn.Linear(width, width)
                self.drop = nn.Dropout(0.1)
                self.last = nn.Linear(width, 1)

            def forward(self, letters: Any) -> tuple[Any, Any]:
                hidden = torch.tanh(self.first(self.letters(letters).sum(1)))
                hidden = self.drop(torch.tanh(self.second(hidden)))
                return self.last(hidden).squeeze(-1), hidden

        return Reader(self.width)
