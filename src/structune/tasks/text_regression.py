"""Text regression: a number for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from structune.data.examples import Examples
from structune.data.table import Table
from structune.doubt import say
from structune.errors import UserError
from structune.tasks.parts.classes.doubts import doubts_about_texts_alone, doubts_about_texts_of
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.numbers.cells import numbers_in, quantile_names
from structune.tasks.parts.text.card import text_card
from structune.tasks.parts.text.task import TextTask
from structune.tasks.parts.text.texts import (
    LabelledTextData,
    encode_texts,
    load_text_model,
    made_up_inputs,
    refuse_headless,
    text_groups,
)
from structune.tasks.task import Base, CardNames, Metric, Outputs, Targets

if TYPE_CHECKING:
    from torch import Tensor, nn

_EMBEDDED = "rating"  # the embedded data's column of numbers


class TextRegression(TextTask):
    """A number for each text or pair of texts.

    The targets are mean and standard deviation of the training data's numbers: the model learns (y − mean) / deviation
    with the squared error, so that learning rates mean the same for any scale, and says y in the data's own units.
    """

    name: Literal["text-regression"] = "text-regression"

    data_section: ClassVar[type[LabelledTextData]] = LabelledTextData
    figures: ClassVar[tuple[str, ...]] = ("scatter.png",)
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("pearson", "Pearson correlation", range=(-1, 1)),
        Metric("spearman", "Spearman correlation", range=(-1, 1)),
        Metric("rmse", "RMSE", greater_is_better=False, range=(0, None)),
    )

    def examples(self, table: Table, data: LabelledTextData) -> Examples:
        seen = self.inputs(table, data)
        numbers = numbers_in(table, data.label if data.embedded is None else _EMBEDDED, "label")
        refuse_headless(table, data)
        return seen.labelled(numbers, text_groups(table, data, seen.inputs), quantile_names(numbers))

    def targets(self, examples: Examples, data: LabelledTextData, source: str) -> Targets:
        numbers = examples.labels or []
        mean = math.fsum(numbers) / len(numbers)
        deviation = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))
        if not deviation:
            raise UserError(
                f"data.label = {data.label!r}: every row of {source} has the number {numbers[0]:g}; there is nothing "
                f"to learn. Set data.label to another column."
            )
        return {"mean": mean, "deviation": deviation}

    def are_targets(self, content: Any) -> bool:
        if not isinstance(content, dict) or not isinstance(content.get("mean"), float):
            return False
        deviation = content.get("deviation")
        return isinstance(deviation, float) and deviation > 0

    def doubts(self, train: Examples, held_out: Examples, data: LabelledTextData) -> Iterator[str]:
        yield from doubts_about_texts_of(train, held_out, data.text)
        values = sorted(set(train.labels or []) | set(held_out.labels or []))
        if len(values) == 2:
            yield (
                f"data.label = {data.label!r}: only the numbers {values[0]:g} and {values[1]:g} occur; for classes "
                f"there is `task: text-classification`"
            )

    def doubts_about_file(self, examples: Examples, data: LabelledTextData) -> Iterator[str]:
        return doubts_about_texts_alone(examples, data.text)

    def about(self, targets: Targets) -> str:
        return f"numbers of mean {targets['mean']:.4g} and deviation {targets['deviation']:.4g}"

    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        from transformers import AutoModelForSequenceClassification

        return load_text_model(
            AutoModelForSequenceClassification, section, seed, num_labels=1, problem_type="regression"
        )

    def encode(
        self, examples: Examples, base: Base, targets: Targets, data: LabelledTextData
    ) -> Sequence[Mapping[str, Any]]:
        mean, deviation = targets["mean"], targets["deviation"]
        labels = None if examples.labels is None else [(number - mean) / deviation for number in examples.labels]
        return encode_texts(examples, base, data, labels)

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor | None, Outputs]:
        """The mean squared error of standardised numbers, in fp32, and these numbers (examples,)."""
        from torch.nn.functional import mse_loss

        outputs = model(**{key: value for key, value in batch.items() if key != "labels"}).logits.squeeze(-1).float()
        return (mse_loss(outputs, batch["labels"].float()) if "labels" in batch else None), outputs

    def scores(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, float]:
        from structune.tasks.parts.numbers.scores import scores

        return scores(_own_units(outputs, targets), _own_units(labels, targets))

    def details(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, Any]:
        spread = float(_own_units(labels, targets).std())
        return {"rmse_of_always_answering_the_mean": spread}

    def draw(self, outputs: Outputs, labels: Any, targets: Targets, folder: Path) -> list[Path]:
        from structune.tasks.parts.numbers.scatter import draw_scatter

        scores = self.scores(outputs, labels, targets)
        title = f"{len(labels):,} examples, " + ", ".join(
            f"{metric.title.removesuffix(' correlation')} {metric.text(scores[metric.key])}" for metric in self.metrics
        )
        predicted, true = _own_units(outputs, targets), _own_units(labels, targets)
        return [draw_scatter(predicted, true, title, folder / self.figures[0])]

    def answers(self, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        return [{"prediction": float(number)} for number in _own_units(outputs, targets)]

    def finish(self, model: Any, targets: Targets, batch: dict[str, Tensor]) -> Any:
        """The model with mean and deviation in its head, so that its logits are numbers in the data's own units."""
        from structune.tasks.parts.numbers.own_units import fold_units

        if not fold_units(model, targets["mean"], targets["deviation"], lambda: self.step(model, batch)[1]):
            model.config.update({"target_mean": targets["mean"], "target_deviation": targets["deviation"]})
            say(
                [
                    f"the head of {type(model).__name__} has no last layer with a bias to hold mean and deviation of "
                    f"the data: the merged model says standardised numbers y, and y * {targets['deviation']:.6g} + "
                    f"{targets['mean']:.6g} is what they mean; both stand in its config.json"
                ]
            )
        return model

    def made_up(self, count: int, data: LabelledTextData) -> Examples:
        seen = made_up_inputs(count, data)
        return seen.labelled([number % 6 / 2 for number in range(count)], seen.groups, seen.strata)

    def describe(self, targets: Targets) -> str:
        return f"text regression (numbers of mean {targets['mean']:.4g} and deviation {targets['deviation']:.4g})"

    def loading(self, names: CardNames, targets: Targets, data: LabelledTextData, base: Base) -> str:
        known = f"mean, deviation = {targets['mean']!r}, {targets['deviation']!r}  # its numbers are standardised"
        use = """    for number in model(**tokens).logits[:, 0].tolist():
        print(number * deviation + mean)"""
        return text_card(names, data, base, known, "num_labels=1", use)


def _own_units(standardised: Any, targets: Targets) -> Any:
    """Standardised numbers as the data have them, in double precision."""
    return standardised.astype("float64") * targets["deviation"] + targets["mean"]
