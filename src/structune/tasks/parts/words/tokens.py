"""From words to a model's tokens, and which token stands for which word: the first of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from structune.errors import UserError
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.parts.text.texts import load_tokenizer
from structune.tasks.task import IGNORED

_NO_WORD = -1


def load_word_tokenizer(section: ModelSection) -> Any:
    """A model's tokenizer that knows which word a token is of, and reads words as if a space stood before each.

    Raises:
        UserError: there is none, or it does not tell words.
    """
    tokenizer = load_tokenizer(section)
    if not tokenizer.is_fast:
        raise UserError(
            f"model.name = {section.name!r}: its tokenizer ({type(tokenizer).__name__}) does not say which word a "
            f"token is of; choose a model with a fast tokenizer (a tokenizer.json among its files)"
        )
    splitting = tokenizer.backend_tokenizer.pre_tokenizer
    if splitting is not None and b"ByteLevel" in splitting.__getstate__():  # GPT-2's, RoBERTa's
        return load_tokenizer(section, add_prefix_space=True)
    return tokenizer


def encode_words(
    words: Sequence[Sequence[str]], tokenizer: Any, limit: int, labels: Sequence[Sequence[int]] | None
) -> list[dict[str, Any]]:
    """Token ids and masks of each text, with `words` and `labels` for each token.

    Args:
        words: of each text.
        tokenizer: a fast one.
        limit: at how many tokens texts are cut.
        labels: a number for each word, or nothing.

    Returns:
        `words` has the number of the word at the first token of each, else -1; `labels` the word's label there, else
        -100.
    """
    tokens = tokenizer([list(text) for text in words], is_split_into_words=True, truncation=True, max_length=limit)
    rows = []
    for row in range(len(words)):
        firsts = _firsts(tokens.word_ids(row))
        encoded = {key: values[row] for key, values in tokens.items()} | {"words": firsts}
        if labels is not None:
            # Only the first token of a word is learned.
            encoded["labels"] = [IGNORED if word < 0 else labels[row][word] for word in firsts]
        rows.append(encoded)
    return rows


def _firsts(words: Sequence[int | None]) -> list[int]:
    firsts, before = [], None
    for word in words:
        firsts.append(_NO_WORD if word is None or word == before else word)
        before = word if word is not None else before
    return firsts


class WordBatches:
    """Pads tokens as the tokenizer does, and `words` and `labels` beside them."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, examples: list[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        own = {"words": _NO_WORD, "labels": IGNORED}
        plain = [{key: value for key, value in example.items() if key not in own} for example in examples]
        batch = dict(self.tokenizer.pad(plain, return_tensors="pt"))
        width = batch["input_ids"].shape[1]
        for key, filling in own.items():
            if key in examples[0]:
                batch[key] = torch.tensor([self._filled(list(example[key]), width, filling) for example in examples])
        return batch

    def _filled(self, values: list[int], width: int, filling: int) -> list[int]:
        more = [filling] * (width - len(values))
        return more + values if self.tokenizer.padding_side == "left" else values + more
