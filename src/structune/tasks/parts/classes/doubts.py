"""What in examples of classes trains, but is hardly meant: each kind told once, with counts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from structune.data.empty_words import is_empty_word, visible
from structune.data.examples import Examples
from structune.data.numbers import as_numbers

_LIST = re.compile(r"\[.*\]|\{.*\}", re.DOTALL)
_FEW = 10  # examples of a class
_MANY = 20  # classes, if they are numbers
_MOST = 0.8  # of the held-out examples in one class


def majority(labels: Sequence[str]) -> tuple[str, float]:
    """The commonest label and its share: the accuracy of always answering it."""
    label, count = min(Counter(labels).items(), key=lambda item: (-item[1], item[0]))
    return label, count / len(labels)


def doubts_about(train: Examples, evaluation: Examples, text: str, label: str) -> Iterator[str]:
    """Everything doubtful about the examples of a run; `text` and `label` are the columns' names."""
    train_labels, evaluation_labels = _labels(train), _labels(evaluation)
    both = Counter(train_labels) + Counter(evaluation_labels)
    texts = [*train.inputs["text"], *evaluation.inputs["text"]]
    yield from _spelled_alike(both, f"data.label = {label!r}")
    yield from _empty_words(texts, f"data.text = {text!r}")
    yield from _whole_numbers(both, f"data.label = {label!r}")
    yield from _empty_words([*train_labels, *evaluation_labels], f"data.label = {label!r}")
    yield from _no_texts(texts, f"data.text = {text!r}")
    yield from _contradictions(train, evaluation, "text")
    yield from _leak(train, evaluation, "text")
    yield from _imbalance(train_labels, evaluation_labels)


def doubts_about_names(train: Sequence[str], evaluation: Sequence[str], where: str) -> Iterator[str]:
    """What is doubtful about the names of labels of which examples have any number."""
    counts = Counter(train)
    yield from _spelled_alike(counts + Counter(evaluation), where)
    yield from _empty_words([*train, *evaluation], where)
    if few := [name for name in sorted(counts) if counts[name] < min(_FEW, max(counts.values()) / 10)]:
        yield f"very few examples to train on of {_counted(few, counts)}"
    if untrained := sorted(set(evaluation) - set(counts)):
        yield f"no example to train on of {_counted(untrained, Counter(evaluation))} (counted in what is held out)"
    if absent := sorted(set(counts) - set(evaluation)):
        yield f"nothing to evaluate on of {_counted(absent, counts)} (counted in training)"


def doubts_about_texts_of(train: Examples, evaluation: Examples, text: str) -> Iterator[str]:
    """What is doubtful about the texts of a run, whatever is learned from them; `text` is the column's name."""
    texts = [*train.inputs["text"], *evaluation.inputs["text"]]
    yield from _empty_words(texts, f"data.text = {text!r}")
    yield from _no_texts(texts, f"data.text = {text!r}")
    yield from _leak(train, evaluation, "text", "score")


def doubts_about_texts_alone(examples: Examples, text: str) -> Iterator[str]:
    """The same about texts to evaluate on."""
    yield from _empty_words(examples.inputs["text"], f"data.text = {text!r}")
    yield from _no_texts(examples.inputs["text"], f"data.text = {text!r}")


def doubts_about_classes(train: Examples, evaluation: Examples, label: str, what: str) -> Iterator[str]:
    """The same of examples that are no texts but, in one word, `what`: `image`."""
    train_labels, evaluation_labels = _labels(train), _labels(evaluation)
    both = Counter(train_labels) + Counter(evaluation_labels)
    yield from _spelled_alike(both, f"data.label = {label!r}")
    yield from _empty_words([*train_labels, *evaluation_labels], f"data.label = {label!r}")
    yield from _contradictions(train, evaluation, what)
    yield from _leak(train, evaluation, what)
    yield from _imbalance(train_labels, evaluation_labels)


def doubts_about_shares(examples: Examples) -> Iterator[str]:
    """What is doubtful about the labels of examples to evaluate on, whatever the examples are."""
    yield from _majority(_labels(examples))


def doubts_about_texts(examples: Examples, text: str) -> Iterator[str]:
    """What is doubtful about examples to evaluate on."""
    yield from _empty_words(examples.inputs["text"], f"data.text = {text!r}")
    yield from _no_texts(examples.inputs["text"], f"data.text = {text!r}")
    yield from _majority(_labels(examples))


def _spelled_alike(counts: Counter[str], where: str) -> Iterator[str]:
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        plain = "".join(unicodedata.normalize("NFKC", visible(label)).casefold().split())
        spellings[f"{float(plain)}" if _is_number(plain) else plain].append(label)
    for key, alike in spellings.items():
        if len(alike) > 1:
            hidden = any(visible(label) != label for label in alike)
            seen = "differ only in characters that cannot be seen" if hidden else "differ only in case or spaces"
            what = "are one number" if _is_number(key) and not hidden else seen
            yield f"{where}: {_counted(alike, counts)} {what}, and are trained as {len(alike)} classes"


def _whole_numbers(counts: Counter[str], where: str) -> Iterator[str]:
    numbers = as_numbers(counts)
    if len(counts) > _MANY and numbers and all(number.is_integer() for number in numbers.values()):
        least, most = min(counts, key=numbers.__getitem__), max(counts, key=numbers.__getitem__)
        yield f"{where}: {len(counts)} classes, all whole numbers from {least} to {most}: not scores?"


def _empty_words(values: Sequence[str], where: str) -> Iterator[str]:
    found = Counter(value.strip() for value in values if is_empty_word(value))
    if found:
        shown = _counted(sorted(found, key=lambda word: (-found[word], word)), found)
        yield f"{where}: {found.total()} of {len(values)} rows hold only a word for nothing: {shown}"


def _no_texts(texts: Sequence[str], where: str) -> Iterator[str]:
    if all(_is_number(text) for text in texts):
        yield f"{where}: every one of {len(texts)} texts is a number, as in an index column (the first: {texts[0]!r})"
    elif all(_LIST.fullmatch(text.strip()) for text in texts):
        yield f"{where}: every one of {len(texts)} texts is a list, trained as written (the first: {texts[0][:40]!r})"
    elif short := sum(len(text.strip()) < 2 for text in texts):
        yield f"{where}: {short} of {len(texts)} texts have one character only"


def _contradictions(train: Examples, evaluation: Examples, what: str) -> Iterator[str]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    first: dict[str, str] = {}
    for examples in (train, evaluation):
        for (row, label), key in zip(examples.rows(), _normal(examples), strict=True):
            found[key][label] += 1
            first.setdefault(key, key if isinstance(row[0], str) else str(row[0]))
    twice = [key for key, labels in found.items() if len(labels) > 1]
    if twice:
        labels = ", ".join(map(repr, sorted(found[twice[0]])[:4]))
        rows = sum(found[key].total() for key in twice)
        yield (
            f"{len(twice)} {f'{what}s occur' if len(twice) > 1 else f'{what} occurs'} with different labels, in {rows} "
            f"rows (the first: {first[twice[0]][:40]!r} with {labels})"
        )


def _leak(train: Examples, evaluation: Examples, what: str, score: str = "accuracy") -> Iterator[str]:
    known = set(_normal(train))
    count = sum(key in known for key in _normal(evaluation))
    if count == len(evaluation):
        yield (
            f"all {count} rows to evaluate on are among those to train on: the {score} says nothing about new {what}s"
        )
    elif count:
        yield (
            f"{count} of {len(evaluation)} rows to evaluate on ({count / len(evaluation):.1%}) are among those to "
            f"train on: the {score} will be too high"
        )


def _imbalance(train: Sequence[str], evaluation: Sequence[str]) -> Iterator[str]:
    counts = Counter(train)
    few = [name for name in sorted(counts) if counts[name] < min(_FEW, max(counts.values()) / 10)]
    if few:
        yield f"very few examples to train on of {_counted(few, counts)}; the largest class has {max(counts.values())}"
    yield from _majority(evaluation)
    yield from doubts_about_absent(train, evaluation, "to evaluate on")


def doubts_about_absent(train: Sequence[str], held_out: Sequence[str], where: str) -> Iterator[str]:
    """The classes of which nothing is held out `where`."""
    counts = Counter(train)
    if absent := sorted(set(counts) - set(held_out)):
        yield f"nothing {where} of {_counted(absent, counts)} (counted in training)"


def _majority(labels: Sequence[str]) -> Iterator[str]:
    label, share = majority(labels)
    if share >= _MOST:
        yield f"always answering {label!r} is right for {share:.1%} of the held-out examples: look at macro F1 too"


def _labels(examples: Examples) -> list[str]:
    return examples.labels or []


def _normal(examples: Examples) -> list[str]:
    """What is equal for examples that are the same: texts but for case and spaces, anything else by its digest."""
    return [" / ".join(map(_plain, row)) for row, _ in examples.rows()]


def _plain(part: Any) -> str:
    return " ".join(part.lower().split()) if isinstance(part, str) else str(part.digest)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return not is_empty_word(text)


def _counted(names: Sequence[str], counts: Counter[str]) -> str:
    shown = ", ".join(f"{name[:40]!r} ({counts[name]})" for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
