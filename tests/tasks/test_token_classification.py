"""Tags of words: aligned with tokens, learned at the first token of each word, answered as entities with their text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForTokenClassification, AutoTokenizer, RobertaConfig, RobertaModel

from structune.data.table import Table
from structune.doubt import DataWarning
from structune.errors import UserError
from structune.finetune.evaluate import load_run
from structune.finetune.merge import merge
from structune.finetune.predict import predict
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.task_data import load_data
from structune.tasks.parts.model_section import ModelSection
from structune.tasks.task import Base
from structune.tasks.token_classification import TokenClassification, TokenData

from .whole_run import recipe_of, straight_and_resumed

TASK = TokenClassification()
TAGS = {"good": "B-praise", "great": "I-praise", "bad": "B-blame", "awful": "I-blame"}


def rows(count: int = 100) -> list[tuple[list[str], list[str]]]:
    """Words of which some are entities, of one or two words; each row is another."""
    rng = random.Random(0)
    found: dict[tuple[str, ...], list[str]] = {}
    while len(found) < count:
        words: list[str] = []
        for _ in range(rng.randint(2, 5)):
            words += rng.choice([["good", "great"], ["good"], ["bad", "awful"], ["bad"], ["film"], ["the", "story"]])
        found[tuple(words)] = [TAGS.get(word, "O") for word in words]
    return [(list(words), tags) for words, tags in found.items()]


def write(path: Path, content: list[tuple[list[str], list[str]]]) -> Path:
    path.write_text("".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in content))
    return path


def make(model: Path, file: Path, folder: Path, **data: Any) -> Recipe:
    section = {"train": str(file), "evaluation_examples": 25, **data}
    rates = {"learning_rate": 0.03, "head_learning_rate": 0.03}
    return recipe_of("token-classification", section, model, folder, max_steps=40, group_by_length=True, **rates)


def test_from_words_to_a_merged_model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "words.jsonl", rows())
    run, result = straight_and_resumed(lambda name: make(tiny_model, file, tmp_path / name), monkeypatch)
    assert run.targets() == {"classes": ["O", "B-blame", "I-blame", "B-praise", "I-praise"]}
    assert result.scores["f1"] > 0.8
    assert result.details["entities"].keys() == {"blame", "praise"}
    assert [path.name for path in result.figures] == ["entities.png", "confusion.png"]

    said = predict(run.folder, [{"tokens": ["the", "film", "bad", "awful"]}, {"tokens": ["good"]}])
    (blame,) = said[0]["prediction"]
    assert (blame["text"], blame["entity"], blame["first"], blame["last"]) == ("bad awful", "blame", 2, 3)
    assert 0.2 < blame["probability"] <= 1
    assert said[0]["predicted tags"] == ["O", "O", "B-blame", "I-blame"]
    assert said[1]["predicted tags"] == ["B-praise"]
    conll = tmp_path / "new.conll"
    conll.write_text("the\tO\nfilm\tO\nbad\tO\nawful\tO\n\ngood\tO\n")
    assert [row["predicted tags"] for row in predict(run.folder, conll)] == [row["predicted tags"] for row in said]
    assert [row["predicted tags"] for row in predict(run.folder, ["the film bad awful", "good"])] == [
        row["predicted tags"] for row in said
    ]

    merge(run.folder, tmp_path / "merged")
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "merged").eval()
    assert model.config.id2label[2] == "I-blame"
    tokens = AutoTokenizer.from_pretrained(tmp_path / "merged")(["the film bad awful"], return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(model(**tokens).logits, load_run(run.folder).model(**tokens).logits)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny RoBERTa whose tokenizer knows few words, so that others are several tokens."""
    folder = tmp_path_factory.mktemp("roberta")
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(
        ["the film the film the story"], vocab_size=280, special_tokens=special, min_frequency=1
    )
    trained.save_model(str(folder))
    config = RobertaConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=40,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    return folder


def test_words_of_several_tokens_are_labelled_at_the_first(roberta: Path) -> None:
    tokenizer = TASK.processor(ModelSection(name=str(roberta)))
    words = ["the", "xyz", "film", "q"]
    examples = TASK.examples(Table("x", {"tokens": [words], "tags": [["O", "B-a", "O", "I-a"]]}, [1]), data())
    (row,) = TASK.encode(examples, Base(None, tokenizer), {"classes": ["O", "B-a", "I-a"]}, data(max_length=12))
    plain = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words]
    assert row["input_ids"][1:-1] == [number for part in plain for number in part]
    assert len(plain[1]) > 1
    expected: list[int] = [-100]
    for part, label in zip(plain, [0, 1, 0, 2], strict=True):
        expected += [label] + [-100] * (len(part) - 1)
    assert row["labels"] == [*expected, -100]
    assert [word for word in row["words"] if word >= 0] == [0, 1, 2, 3]
    assert [word >= 0 for word in row["words"]] == [label >= 0 for label in row["labels"]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_are_padded_on_the_side_of_the_tokenizer(roberta: Path, side: str) -> None:
    tokenizer = TASK.processor(ModelSection(name=str(roberta)))
    tokenizer.padding_side = side
    base = Base(None, tokenizer)
    table = Table("x", {"tokens": [["film"], ["the", "film", "xyz"]], "tags": [["B-a"], ["O", "B-a", "O"]]}, [1, 2])
    encoded = TASK.encode(TASK.examples(table, data()), base, {"classes": ["O", "B-a"]}, data())
    batch = TASK.collator(base, training=True)(list(encoded))
    assert batch["labels"].shape == batch["words"].shape == batch["input_ids"].shape
    for row, length in zip(range(2), map(len, (example["input_ids"] for example in encoded)), strict=True):
        real = slice(-length, None) if side == "left" else slice(0, length)
        assert batch["labels"][row, real].tolist() == encoded[row]["labels"]
        assert batch["words"][row, real].tolist() == encoded[row]["words"]
        assert batch["attention_mask"][row, real].all() and batch["attention_mask"][row].sum() == length
    assert (batch["labels"][0] >= 0).sum() == 1


def test_the_loss_is_the_mean_over_words() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 0.0], [1.0, 4.0]], [[0.0, 1.0], [9.0, 9.0], [9.0, 9.0]]])
    labels = torch.tensor([[0, -100, 1], [0, -100, -100]])

    class Fixed(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> Any:
            return type("Output", (), {"logits": logits})

    batch = {"input_ids": labels, "labels": labels, "words": torch.where(labels >= 0, 0, -1)}
    loss, outputs = TASK.step(Fixed(), batch)
    log = torch.log_softmax(logits, -1)
    assert loss is not None
    torch.testing.assert_close(loss, -(log[0, 0, 0] + log[0, 2, 1] + log[1, 0, 0]) / 3)
    assert outputs[1] is batch["words"]
    loss, _ = TASK.step(Fixed(), batch | {"labels": torch.full_like(labels, -100)})
    assert loss is not None and loss.item() == 0


def test_what_is_cut_is_told_and_answered_with_nothing(tiny_model: Path, tmp_path: Path) -> None:
    base = Base(None, TASK.processor(ModelSection(name=str(tiny_model))))
    examples = TASK.inputs(Table("x", {"tokens": [["film"] * 20, ["film"], ["film", "\u200d"]]}, [1, 2, 3]), data())
    doubts = list(TASK.doubts_about_encoding([examples], base, data(max_length=10)))
    assert "1 of 3 texts are cut after 10 tokens; 12 of 23 words are neither learned nor scored" in doubts[0]
    assert "makes nothing of 1 of 23 words" in doubts[1]
    (row,) = TASK.encode(examples.subset([0]), base, {"classes": ["O"]}, data(max_length=10))
    outputs = (torch.zeros(1, len(row["words"]), 1).numpy(), torch.tensor([row["words"]]).numpy())
    (answer,) = TASK.answers_about(examples.subset([0]), outputs, {"classes": ["O"]})
    assert answer["predicted tags"] == ["O"] * 8 + [None] * 12


def data(**options: Any) -> TokenData:
    return TokenData(train="x.jsonl", **options)


@pytest.mark.parametrize(
    "cell", [["New", "York"], '["New", "York"]', "['New', 'York']", "New York", " New \t York "], ids=str
)
def test_words_as_people_write_them(cell: Any) -> None:
    examples = TASK.examples(Table("x", {"tokens": [cell], "tags": ["B-place I-place"]}, [1]), data())
    assert examples.inputs["words"] == [["New", "York"]]
    assert examples.labels == [["B-place", "I-place"]]
    assert examples.strata == ["place"]


def test_rows_that_do_not_go_together_are_named() -> None:
    table = Table("x.csv", {"tokens": ["a b", "c d"], "tags": ["O O", "O"]}, [2, 3])
    with pytest.raises(UserError, match=r"1 of 2 rows of x.csv have not as many tags as words: 1 for 2 \(line 3\)"):
        TASK.examples(table, data())
    with pytest.raises(UserError, match=r"data.words = 'tokens': 1 of 2 rows of x.csv hold no list of words"):
        TASK.inputs(Table("x.csv", {"tokens": [["a"], [{"b": 1}]]}, [2, 3]), data())


def test_tags_that_are_none_or_all_alike(tmp_path: Path) -> None:
    content = [([f"word{n}", "film"], ["NOUN" if n % 2 else "VERB", "O"]) for n in range(40)]
    with pytest.warns(DataWarning, match="'NOUN', 'VERB' are no tags of BIO .*: each such word counts as an entity"):
        load_data(TASK, TokenData(train=str(write(tmp_path / "x.jsonl", content))))
    same = write(tmp_path / "y.jsonl", [([f"word{n}"], ["O"]) for n in range(40)])
    with pytest.raises(UserError, match="every word of .* has the tag 'O'; there is nothing to learn"):
        load_data(TASK, TokenData(train=str(same)))
    words = write(tmp_path / "z.jsonl", [([f"word{n}"], [f"word{n}"]) for n in range(40)])
    with pytest.raises(UserError, match="40 different tags of 40 words"):
        load_data(TASK, TokenData(train=str(words)))


@pytest.mark.parametrize("separator", ["\t", " "])
def test_conll_files(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "x.conll"
    lines = ["-DOCSTART- -X- O", "", "# id 7 8", "New NNP B-place", "York NNP I-place", "", "", "# SYM O", "ok UH O"]
    path.write_text("\n".join(line.replace(" ", separator) if line[:4] != "# id" else line for line in lines))
    table = TokenData(train=str(path)).read(path, "train")
    assert table is not None
    assert table.columns == {"tokens": [["New", "York"], ["#", "ok"]], "tags": [["B-place", "I-place"], ["O", "O"]]}
    assert table.lines == [4, 8]
    path.write_text("New B-place\nYork I-place\nok\n")
    with pytest.raises(UserError, match="line 3: 1 fields where most lines have 2"):
        TokenData(train=str(path)).read(path, "train")
    assert TokenData(train="x.csv").read("x.csv", "train") is None


def test_a_slow_tokenizer_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedTokenizerFast

    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False, raising=False)
    with pytest.raises(UserError, match="does not say which word a token is of; choose a model with a fast tokenizer"):
        TASK.processor(ModelSection(name=str(tiny_model)))
