"""Completions: texts as numbers, draws from the model's own probabilities, the same in any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from structune.tasks.parts.generation.complete import Drawing, _Gumbel, complete, padded_left
from structune.tasks.parts.generation.texts import as_numbers, as_texts


@given(st.lists(st.text(), min_size=1))
def test_texts_come_back(texts: list[str]) -> None:
    numbers = as_numbers(texts)
    assert as_texts(numbers) == texts
    assert as_texts(numbers.numpy()) == texts


def test_draws_have_the_probabilities_of_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, float("-inf")])
    count = 4000
    noise = _Gumbel(0, [[number] for number in range(count)])
    drawn = noise(torch.zeros(count, 1), logits.expand(count, -1)).argmax(1)
    found = torch.bincount(drawn, minlength=5)
    assert found[4] == 0
    expected = logits[:4].double().softmax(0) * count
    assert stats.chisquare(found[:4].double().numpy(), expected.numpy()).pvalue > 0.01
    again = _Gumbel(0, [[number] for number in range(count)])
    assert torch.equal(again(torch.zeros(count, 1), logits.expand(count, -1)).argmax(1), drawn)
    other = _Gumbel(1, [[number] for number in range(count)])
    assert not torch.equal(other(torch.zeros(count, 1), logits.expand(count, -1)).argmax(1), drawn)


@pytest.fixture
def writer(tiny_writer: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(tiny_writer).eval(), AutoTokenizer.from_pretrained(tiny_writer)


PROMPTS = ["a film 1", "the story and music 22", "b", "good 3?", "is it"]


@pytest.mark.parametrize("drawing", [None, Drawing(1.3, 0.9, seed=4)], ids=["greedy", "drawn"])
def test_a_prompt_has_the_same_completion_in_any_batch(writer: tuple[Any, Any], drawing: Drawing | None) -> None:
    model, tokenizer = writer
    ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]

    def texts(order: list[int]) -> dict[int, str]:
        prompts = padded_left([ids[row] for row in order], tokenizer.pad_token_id)
        return dict(zip(order, complete(model, tokenizer, prompts, 9, drawing).texts, strict=True))

    together = texts([0, 1, 2, 3, 4])
    assert len(set(together.values())) > 3
    assert together == texts([4, 2, 0, 1, 3]) == {**texts([1]), **texts([3, 0]), **texts([2, 4])}


def test_the_likeliest_tokens_up_to_the_end(writer: tuple[Any, Any]) -> None:
    """One prompt and one token at a time, by the largest logit; what comes after the end is nothing."""
    model, tokenizer = writer
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] += 0.5 * model.lm_head.weight.mean(0) + 0.25
    ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    made = complete(model.train(), tokenizer, padded_left(ids, tokenizer.pad_token_id), 9)
    assert model.training
    for row, prompt in enumerate(ids):
        written: list[int] = []
        while len(written) < 9 and tokenizer.eos_token_id not in written:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + written])).logits[0, -1]
            written.append(int(logits.argmax()))
        assert made.ids[row][made.counted[row].bool()].tolist() == written
        assert bool(made.ended[row]) == (tokenizer.eos_token_id in written)
        assert made.texts[row] == tokenizer.decode(written, skip_special_tokens=True)
    assert 0 < int(made.ended.sum()) < 5, "move the end's logit: some end, some do not"
