"""Token classification: a tag for each word of a text, and the entities that tags mark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from structune.data.examples import Examples
from structune.data.section import DataSection
from structune.data.table import Table
from structune.doubt import say
from structune.errors import UserError
from structune.tasks.parts.classes.classes import are_class_names, check_labels
from structune.tasks.parts.classes.classification import class_options, described
from structune.tasks.parts.made_up import made_up_texts
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.text.texts import load_text_model
from structune.tasks.parts.words.cells import read_conll, refuse_other_lengths, word_lists
from structune.tasks.parts.words.tags import is_bio, kind_of, tags_in_order
from structune.tasks.task import IGNORED, Base, CardNames, Metric, Outputs, Targets, Task

if TYPE_CHECKING:
    from torch import Tensor, nn


class TokenData(DataSection):
    """Where words and their tags are: `words` and `label` name columns of lists, or of texts that are split at spaces.

    Files that end with .conll, .iob2 or .bio have a word and its tag in each line. A text longer than `max_length`
    tokens is cut at the end.
    """

    words: str = "tokens"
    label: str = "tags"
    max_length: Annotated[int, Field(ge=4)] = 128

    @model_validator(mode="after")
    def _no_embedded(self) -> TokenData:
        if self.embedded is not None:
            raise ValueError("the embedded data has no tags of words; give train, a file, or hub")
        return self

    def read(self, path: str | Path, field: str) -> Table | None:
        return read_conll(path, field, self.encoding, self.words, self.label)


class TokenClassification(Task):
    """A tag for each word; the targets are all tags (`classes`).

    Tags are BIO's: `B-place` and `I-place` mark an entity, `O` is none. The first token of a word stands for it.
    """

    name: Literal["token-classification"] = "token-classification"

    data_section: ClassVar[type[TokenData]] = TokenData
    hub_name: ClassVar[str] = "token-classification"
    peft_name: ClassVar[str | None] = "TOKEN_CLS"
    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    figures: ClassVar[tuple[str, ...]] = ("entities.png", "confusion.png")
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("f1", "entity F1", range=(0, 1)),
        Metric("precision", "precision", range=(0, 1)),
        Metric("recall", "recall", range=(0, 1)),
        Metric("token_accuracy", "accuracy of words", percent=True, range=(0, 1)),
    )

    def examples(self, table: Table, data: TokenData) -> Examples:
        seen = self.inputs(table, data)
        words, tags = seen.inputs["words"], word_lists(table, data.label, "label")
        refuse_other_lengths(table, words, tags, data.label)
        counts = Counter(kind for row in tags for kind in set(map(kind_of, row)) - {""})
        kinds = [set(map(kind_of, row)) - {""} for row in tags]
        rarest = [min(row, key=lambda kind: (counts[kind], kind), default="") for row in kinds]
        groups = table.column(data.group, "group") if data.group else [" ".join(row).lower() for row in words]
        return seen.labelled(tags, groups, rarest)

    def inputs(self, table: Table, data: TokenData) -> Examples:
        return Examples.unlabelled({"words": word_lists(table, data.words, "words")})

    def from_lines(self, lines: Sequence[str], data: TokenData) -> Table:
        return Table("what was given", {data.words: list(lines)}, list(range(1, len(lines) + 1)))

    def targets(self, examples: Examples, data: TokenData, source: str) -> Targets:
        counts = Counter(tag for row in examples.labels or [] for tag in row)
        where = f"data.label = {data.label!r}"
        if len(counts) == 1:
            raise UserError(
                f"{where}: every word of {source} has the tag {next(iter(counts))!r}; there is nothing to learn"
            )
        if len(counts) > max(20, counts.total() // 4):
            shown = ", ".join(repr(tag[:30]) for tag in sorted(counts)[:4])
            raise UserError(
                f"{where}: {len(counts)} different tags of {counts.total()} words of {source} ({shown}, ...); that "
                f"looks like another column than the tags. Set data.label to the column of tags."
            )
        if other := [tag for tag in tags_in_order(counts) if not is_bio(tag)]:
            shown = ", ".join(map(repr, other[:4])) + (", ..." if len(other) > 4 else "")
            say([f"{where}: {shown} are no tags of BIO (O, B-name, I-name): each such word counts as an entity"])
        return {"classes": tags_in_order(counts)}

    def are_targets(self, content: Any) -> bool:
        return are_class_names(content)

    def check(self, examples: Examples, targets: Targets, source: str) -> None:
        check_labels([tag for row in examples.labels or [] for tag in row], targets["classes"], source)

    def doubts(self, train: Examples, held_out: Examples, data: TokenData) -> Iterator[str]:
        known = {tuple(map(str.lower, row)) for row in train.inputs["words"]}
        count = sum(tuple(map(str.lower, row)) in known for row in held_out.inputs["words"])
        if count:
            yield (
                f"{count} of {len(held_out)} rows to evaluate on are among those to train on: the entity F1 will be "
                f"too high"
            )
        there = {tag for row in train.labels or [] for tag in row}
        lost = Counter(tag for row in held_out.labels or [] for tag in row if tag not in there)
        if lost:
            shown = ", ".join(f"{tag!r} ({number})" for tag, number in sorted(lost.items())[:5])
            yield f"no word to train on of the tag {shown} (counted in what is held out)"

    def about(self, targets: Targets) -> str:
        return f"{len(targets['classes'])} tags"

    def processor(self, section: ModelSection) -> Any:
        from structune.tasks.parts.words.tokens import load_word_tokenizer

        return load_word_tokenizer(section)

    def load(self, section: ModelSection, targets: Targets, seed: int) -> Base:
        from transformers import AutoModelForTokenClassification

        tokenizer = self.processor(section)
        return load_text_model(AutoModelForTokenClassification, section, seed, tokenizer, **class_options(targets))

    def encode(self, examples: Examples, base: Base, targets: Targets, data: TokenData) -> Sequence[Mapping[str, Any]]:
        from structune.tasks.parts.words.tokens import encode_words

        number = {name: index for index, name in enumerate(targets["classes"])}
        labels = None if examples.labels is None else [[number[tag] for tag in row] for row in examples.labels]
        return encode_words(examples.inputs["words"], base.processor, _longest(data, base), labels)

    def doubts_about_encoding(self, parts: Sequence[Examples], base: Base, data: TokenData) -> Iterator[str]:
        from structune.tasks.parts.words.tokens import encode_words

        limit = _longest(data, base)
        rows = [words for examples in parts for words in examples.inputs["words"]]
        cut = texts = unseen = total = 0
        for words, encoded in zip(rows, encode_words(rows, base.processor, limit, None), strict=True):
            last = max(encoded["words"])
            total += len(words)
            seen = sum(word >= 0 for word in encoded["words"])
            ended = len(words) - 1 - last if len(encoded["words"]) >= limit else 0
            cut, texts, unseen = cut + ended, texts + (ended > 0), unseen + len(words) - seen - ended
        if cut:
            yield (
                f"data.max_length = {data.max_length}: {texts:,} of {len(rows):,} texts are cut after {limit} tokens; "
                f"{cut:,} of {total:,} words are neither learned nor scored"
            )
        if unseen:
            yield f"the tokenizer makes nothing of {unseen:,} of {total:,} words: they are neither learned nor scored"

    def collator(self, base: Base, training: bool) -> Callable[[list[Mapping[str, Any]]], Any]:
        from structune.tasks.parts.words.tokens import WordBatches

        return WordBatches(base.processor)

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor | None, Outputs]:
        """The mean cross-entropy of words, in fp32; logits (texts, tokens, tags) and words (texts, tokens)."""
        from torch.nn.functional import cross_entropy

        seen = {key: value for key, value in batch.items() if key not in ("words", "labels")}
        logits = model(**seen).logits.float()
        if (labels := batch.get("labels")) is None:
            return None, (logits, batch["words"])
        total = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return total / (labels != IGNORED).sum().clamp_min(1), (logits, batch["words"])

    def weight(self, batch: Mapping[str, Any]) -> float:
        """The words."""
        return float((batch["labels"] != IGNORED).sum()) if "labels" in batch else super().weight(batch)

    def scores(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, float]:
        from structune.tasks.parts.words.entities import scores

        return scores(*_tags(outputs, labels, targets))

    def details(self, outputs: Outputs, labels: Any, targets: Targets) -> dict[str, Any]:
        from structune.tasks.parts.words.entities import per_entity

        return {"entities": per_entity(*_tags(outputs, labels, targets))}

    def draw(self, outputs: Outputs, labels: Any, targets: Targets, folder: Path) -> list[Path]:
        from structune.tasks.parts.classes.confusion import confusion
        from structune.tasks.parts.classes.confusion_figure import draw_confusion
        from structune.tasks.parts.labels.bars import draw_labels

        scores = self.scores(outputs, labels, targets)
        title = ", ".join(f"{metric.title} {metric.text(scores[metric.key])}" for metric in self.metrics[:3])
        entities, matrix = (folder / name for name in self.figures)
        learned = labels >= 0
        counts = confusion(outputs[0].argmax(-1)[learned], labels[learned], len(targets["classes"]))
        return [
            draw_labels(self.details(outputs, labels, targets)["entities"], title, entities),
            draw_confusion(counts, targets["classes"], matrix),
        ]

    def answers(self, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        """Entities by their words' numbers, and the tag of each word; None for words that the model did not see."""
        from structune.tasks.parts.classes.confusion import probabilities
        from structune.tasks.parts.words.entities import entities

        names = targets["classes"]
        answers = []
        for logits, words in zip(*outputs, strict=True):
            places = {int(word): place for place, word in enumerate(words) if word >= 0}
            shares = probabilities(logits)
            seen = sorted(places)
            tags = {word: names[int(logits[places[word]].argmax())] for word in seen}
            found = [
                {
                    "entity": name,
                    "first": seen[first],
                    "last": seen[last],
                    "probability": float(min(shares[places[word]].max() for word in seen[first : last + 1])),
                }
                for name, first, last in entities([tags[word] for word in seen])
            ]
            all_words = range(max(seen, default=-1) + 1)
            answers.append({"prediction": found, "predicted tags": [tags.get(word) for word in all_words]})
        return answers

    def answers_about(self, examples: Examples, outputs: Outputs, targets: Targets) -> list[dict[str, Any]]:
        """`answers` with the text of each entity, and a tag, or None, for every word of the example."""
        answers = []
        for words, answer in zip(examples.inputs["words"], self.answers(outputs, targets), strict=True):
            found = [
                {"text": " ".join(words[entity["first"] : entity["last"] + 1]), **entity}
                for entity in answer["prediction"]
            ]
            tags = answer["predicted tags"]
            answers.append({"prediction": found, "predicted tags": tags + [None] * (len(words) - len(tags))})
        return answers

    def made_up(self, count: int, data: TokenData) -> Examples:
        seen = Examples.unlabelled({"words": [text.split() for text in made_up_texts(count)]})
        tags = [["B-thing", *["O"] * (len(row) - 1)] for row in seen.inputs["words"]]
        return seen.labelled(tags, seen.groups, seen.strata)

    def save_small_model(self, section: ModelSection, folder: Path, widest: int) -> str:
        from structune.tasks.parts.small_model import save_small_text_model

        return save_small_text_model(section, folder, self.auto_class, "bert", widest)

    def describe(self, targets: Targets) -> str:
        return described("classification of words", targets).replace(" classes (", " tags (")

    def loading(self, names: CardNames, targets: Targets, data: TokenData, base: Base) -> str:
        spaced = ", add_prefix_space=True" if getattr(base.processor, "add_prefix_space", False) else ""
        return f"""import torch
from peft import PeftModel
from transformers import AutoModelForTokenClassification, AutoTokenizer

labels = {targets["classes"]!r}
tokenizer = AutoTokenizer.from_pretrained({names.base!r}{names.options}{spaced})
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
base = AutoModelForTokenClassification.from_pretrained(
    {names.base!r}{names.options}, num_labels=len(labels), id2label=dict(enumerate(labels)),
    label2id={{label: number for number, label in enumerate(labels)}}, pad_token_id=tokenizer.pad_token_id,
)
model = PeftModel.from_pretrained(base, "path/to/this/folder").eval()

words = ["some", "words"]
tokens = tokenizer(
    [words], is_split_into_words=True, truncation=True, max_length={_longest(data, base)}, return_tensors="pt"
)
with torch.inference_mode():
    tags = model(**tokens).logits[0].argmax(-1).tolist()
of = tokens.word_ids(0)  # the first token of a word stands for it
for place, word in enumerate(of):
    if word is not None and word not in of[:place]:
        print(words[word], labels[tags[place]])"""


def _longest(data: TokenData, base: Base) -> int:
    return min(data.max_length, int(base.processor.model_max_length))


def _tags(outputs: Outputs, labels: Any, targets: Targets) -> tuple[list[list[str]], list[list[str]]]:
    """The tags of the words of each text, answered and true."""
    names = targets["classes"]
    chosen = outputs[0].argmax(-1)
    answered = [[names[tag] for tag in row[true >= 0]] for row, true in zip(chosen, labels, strict=True)]
    return answered, [[names[tag] for tag in true[true >= 0]] for true in labels]
