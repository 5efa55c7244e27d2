"""Predicting: the same answers as evaluating gives, in the order of the rows, from everything that is read."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from typer.testing import CliRunner, Result

from structune import cli
from structune.data.table import Table
from structune.errors import UserError
from structune.finetune.evaluate import LoadedRun, evaluate, load_run
from structune.finetune.predict import Predictor, Stream, predict, write_predictions
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.training import train

WORDS = {"positive": ["good", "great", "fine", "lovely"], "negative": ["bad", "awful", "poor", "dull"]}
FILLER = ["the", "film", "was", "a", "story", "with", "actors"]


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Of a few to many words, the telling ones among others, with their labels."""
    rng = random.Random(seed)
    rows = []
    for label in (rng.choice(["positive", "negative"]) for _ in range(count)):
        words = [*rng.choices(WORDS[label], k=3), *rng.choices(FILLER, k=rng.randint(0, 9))]
        rng.shuffle(words)
        rows.append((" ".join(words), label))
    return rows


ROWS = sentences(23, seed=5)
TEXTS = [text for text, _ in ROWS]


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has learned something, so that its answers differ."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "reviews.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in sentences(80)))
    rates = {"learning_rate": 0.02, "head_learning_rate": 0.02}
    settings: dict[str, Any] = {"max_steps": 40, "batch_size": 8, "device": "cpu", "eval_batch_size": 4, **rates}
    recipe = {
        "output": str(folder / "run"), "model": {"name": str(tiny_model)}, "method": "lora", "train": settings,
        "data": {"train": str(folder / "reviews.csv"), "evaluation_examples": 20},
    }  # fmt: skip
    return train(Recipe.parse(recipe))


@pytest.fixture(scope="module")
def expected(run: Run) -> list[dict[str, Any]]:
    """Of `TEXTS`, one at a time, by the model alone."""
    loaded: LoadedRun = load_run(run.folder)
    names, answers = loaded.targets["classes"], []
    for text in TEXTS:
        with torch.inference_mode():
            logits = loaded.model(**loaded.base.processor([text], return_tensors="pt")).logits[0]
        shares = torch.softmax(logits, -1).tolist()
        answers.append({"prediction": names[int(logits.argmax())]} | dict(zip(names, shares, strict=True)))
    assert {answer["prediction"] for answer in answers} == {"negative", "positive"}
    return answers


def check(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [row["prediction"] for row in rows] == [answer["prediction"] for answer in expected]
    for name in ("negative", "positive"):
        found = [float(row[f"probability {name}"]) for row in rows]
        assert found == pytest.approx([answer[name] for answer in expected], abs=1e-5)


@pytest.mark.parametrize("rows", [5, 512])
def test_answers_are_the_models_in_the_order_of_the_rows(run: Run, expected: list[dict[str, Any]], rows: int) -> None:
    """Texts of several lengths, which are sorted to be worked on, in pieces and in one."""
    assert sorted(TEXTS, key=len) != TEXTS
    found = Predictor(run.folder)(TEXTS, rows)
    assert [row["text"] for row in found] == TEXTS
    check(found, expected)


def test_answers_agree_with_evaluation(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "labelled.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    right = [row["prediction"] == row["label"] for row in predict(run.folder, path)]
    assert evaluate(run.folder, path).scores["accuracy"] == pytest.approx(sum(right) / len(right))
    assert not all(right) or len(right) == 23


def structune(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli.app, ["predict", *arguments], input=stdin)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_columns_are_kept_from_file_to_file(
    run: Run, expected: list[dict[str, Any]], tmp_path: Path, ending: str
) -> None:
    """Also those that nobody reads, with their types where the kinds of files have types."""
    given, out = tmp_path / "new.jsonl", tmp_path / "answers" / f"out.{ending}"
    lines = [{"number": n, "text": text, "more": {"tags": ["a", "ü"]}} for n, text in enumerate(TEXTS)]
    given.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert write_predictions(run.folder, str(given), out) == 23
    if ending == "csv":
        rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
        assert [(row["number"], json.loads(row["more"])) for row in rows[:2]] == [
            ("0", lines[0]["more"]),
            ("1", lines[1]["more"]),
        ]
    elif ending == "jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    else:
        rows = pyarrow.parquet.read_table(out).to_pylist()
    if ending != "csv":
        assert [{name: row[name] for name in ("number", "text", "more")} for row in rows] == lines
        assert isinstance(rows[0]["probability positive"], float)
    check(rows, expected)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_file_that_is_there_stays_and_a_broken_one_never_appears(run: Run, tmp_path: Path) -> None:
    given, out = tmp_path / "new.csv", tmp_path / "out.csv"
    given.write_text('text\nfine\n" "\n')
    out.write_text("mine")
    with pytest.raises(UserError, match="is there already; use --overwrite"):
        write_predictions(run.folder, str(given), out)
    with pytest.raises(UserError, match=r"1 of 2 rows of .*new\.csv have nothing there \(line 3\)"):
        write_predictions(run.folder, str(given), out, overwrite=True)
    assert out.read_text() == "mine"
    with pytest.raises(UserError, match=r"cannot tell the kind of file .* known: \.csv, \.jsonl, \.parquet"):
        write_predictions(run.folder, str(given), tmp_path / "out.xlsx")
    with pytest.raises(UserError, match="nothing there"):
        write_predictions(run.folder, str(given), tmp_path / "other.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "out.csv"]


def test_memory_does_not_grow_with_the_number_of_rows(run: Run) -> None:
    """Rows are made as they are asked for: of 40 pieces at most two are there at a time."""
    alive = peak = 0

    class Piece(Table):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def pieces() -> Iterator[Table]:
        nonlocal alive, peak
        for number in range(40):
            alive += 1
            peak = max(peak, alive)
            yield Piece("made", {"text": TEXTS[:3]}, [3 * number + row for row in range(3)])

    predictor = Predictor(run.folder)
    assert sum(len(rows) for rows in predictor.rows(pieces())) == 120
    assert 1 <= peak <= 2


def test_standard_input_is_read_as_it_comes(run: Run) -> None:
    """The first piece is answered before the next line is asked for."""

    def lines() -> Iterator[bytes]:
        for text in TEXTS[:4]:
            yield text.encode() + b"\n"
        raise AssertionError("read on")

    predictor = Predictor(run.folder)
    answered = predictor.rows(predictor.tables(Stream(lines()), 4))  # type: ignore[arg-type]  # iterated only
    assert [row["text"] for row in next(answered)] == TEXTS[:4]


def test_lines_and_json_lines_on_standard_input(run: Run, expected: list[dict[str, Any]]) -> None:
    plain = structune(str(run.folder), "-", stdin="\n".join(TEXTS))
    assert plain.exit_code == 0
    rows = list(csv.DictReader(io.StringIO(plain.stdout)))
    assert list(rows[0]) == ["text", "prediction", "probability negative", "probability positive"]
    check(rows, expected)
    objects = "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(TEXTS))
    rows = list(csv.DictReader(io.StringIO(structune(str(run.folder), "-", stdin=objects).stdout)))
    assert [row["id"] for row in rows] == [str(n) for n in range(23)]
    check(rows, expected)


def test_one_text_is_a_small_table(run: Run, expected: list[dict[str, Any]]) -> None:
    result = structune(str(run.folder), TEXTS[0])
    words = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    assert ["prediction", expected[0]["prediction"]] in [[word.strip() for word in line] for line in words]
    assert f"{expected[0]['positive']:.3f}" in result.stdout
    assert structune(str(run.adapter), TEXTS[0]).stdout == result.stdout  # the run is beside its adapter


@pytest.mark.parametrize(
    ("given", "stdin", "said"),
    [
        ("nowhere.csv", None, "'nowhere.csv': no such file"),
        ("notes.txt", None, "'notes.txt': no file of a kind that is read (.csv,"),
        ("other.csv", None, "other.csv has no such column (did you mean 'texts'?); it has 'texts'"),
        ("again.csv", None, "has a column 'prediction', which is the name of an answer"),
        ("-", b"", "standard input: nothing came"),
        ("-", b"fine\n\npoor\n", "standard input, line 2: nothing there"),
        ("-", b"fine\n\xff\n", "standard input, line 2: not UTF-8 (byte 0xff)"),
        ("-", b'{"text": "a"}\nplain\n', "standard input, line 2: not JSON (Expecting value)"),
        ("-", b'{"text": "a"}\n{"txt": "b"}\n', "standard input, line 2: the keys ['txt'] differ from"),
    ],
)
def test_mistakes_are_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, stdin: bytes | None, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("fine\n")
    Path("other.csv").write_text("texts\nfine\n")
    Path("again.csv").write_text("text,prediction\nfine,good\n")
    result = structune(str(run.folder), given, stdin=stdin)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_another_column_can_be_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("review,text\nthe film was superb,7\n")
    rows = Predictor(run.folder, ["data.text=review"])(str(path))
    assert rows[0]["probability positive"] == predict(run.folder, "the film was superb")[0]["probability positive"]
    with pytest.raises(UserError, match="'train.epochs=3': what is not in data"):
        Predictor(run.folder, ["train.epochs=3"])


def test_an_adapter_without_its_run_is_told_what_is_missing(run: Run, tmp_path: Path) -> None:
    alone = tmp_path / "adapter"
    alone.mkdir()
    (alone / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"an adapter without its run\. Beside it are missing recipe\.yaml .* metrics"):
        predict(alone, "fine")


def test_outputs_that_are_no_numbers_are_no_answers(run: Run) -> None:
    predictor = Predictor(run.folder)
    with torch.no_grad():
        next(p for n, p in predictor.loaded.model.named_parameters() if "classifier.modules_to_save" in n).fill_(
            float("nan")
        )
    with pytest.raises(UserError, match="are not finite, so they say nothing"):
        predictor(TEXTS[:2])


def test_rows_as_mappings(run: Run, expected: list[dict[str, Any]]) -> None:
    rows = predict(run.folder, [{"text": text, "id": n} for n, text in enumerate(TEXTS)])
    assert [row["id"] for row in rows] == list(range(23))
    check(rows, expected)
    with pytest.raises(UserError, match=r"row 2 of what is given is no mapping with the keys \['text'\]"):
        predict(run.folder, [{"text": "a"}, {"other": "b"}])
    with pytest.raises(UserError, match="no rows are given"):
        predict(run.folder, [])
