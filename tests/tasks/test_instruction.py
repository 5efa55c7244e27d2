"""Instruction tuning as a whole: what is learned, scored, written, said and merged."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from structune import cli
from structune.errors import UserError
from structune.finetune.chat import Chat
from structune.finetune.evaluate import evaluate, load_run
from structune.finetune.merge import merge
from structune.finetune.predict import Predictor
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.recipe.shipped import recipe_names
from structune.finetune.run_folder.run import Run
from structune.finetune.task_data import load_data
from structune.finetune.trainer.trainer import RecipeTrainer
from structune.finetune.training import make_ready, train
from structune.tasks.task import IGNORED

from .chats import questions

Make = Callable[..., Recipe]
RULE = {"exact_match": "gsm8k", "generation": {"max_new_tokens": 12, "batch_size": 3}, "samples": 4}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    pairs = [{"prompt": question, "completion": answer} for question, answer in questions(40)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


@pytest.fixture(scope="module")
def make(tiny_llama: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("runs")

    def recipe(name: str = "run", **given: Any) -> Recipe:
        sections = {key: given.pop(key, {}) for key in ("task", "model", "data")}
        method = given.pop("method", {"name": "c3a", "block_size": 8})
        return Recipe.parse(
            {
                "output": str(folder / name),
                "task": {"name": "instruction", "samples": 0} | sections["task"],
                "model": {"name": str(tiny_llama)} | sections["model"],
                "data": {"train": str(rows), "evaluation_examples": 10} | sections["data"],
                "method": method,
                "train": {"max_steps": 2, "batch_size": 6, "eval_batch_size": 4, "device": "cpu"} | given,
            }
        )

    return recipe


@pytest.fixture(scope="module")
def learned(make: Make) -> Run:
    """A run that learned its answers, mostly."""
    method = {"name": "lora", "rank": 16, "target_modules": "all-linear"}
    return train(make("learned", task=RULE, method=method, max_steps=60, batch_size=10, learning_rate=0.02))


def test_the_loss_of_trl_is_that_of_the_task(make: Make, tmp_path: Path) -> None:
    """In a batch of rows and one of packed rows; and it is the model's own cross-entropy of the labels."""
    for packing in (False, True):
        ready = make_ready(
            make(task={"packing": packing}), resume=False, overwrite=True, console=None, recipe_file=None
        )
        task = ready.settings.task
        trainer = RecipeTrainer.standing_on(
            task.trainer(ready.base, ready.settings.data), ready.model, ready.base, ready.settings, {}, tmp_path,
            ready.encoded.train,
        )  # fmt: skip
        assert [kind.__name__ for kind in type(trainer).__mro__[:3]] == [
            "RecipeSFTTrainer",
            "RecipeTrainer",
            "SFTTrainer",
        ]
        batch = next(iter(trainer.get_train_dataloader()))
        assert ("position_ids" in batch) is packing
        model = ready.model.eval()
        loss, _ = task.step(model, dict(batch))
        torch.testing.assert_close(trainer.compute_loss(model, dict(batch)), loss)
        labels = batch.pop("labels")
        logits = model(**batch, use_cache=False).logits
        expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        assert loss is not None
        torch.testing.assert_close(loss, expected)
        assert task.weight({"labels": labels}) == float((labels[:, 1:] != IGNORED).sum())


def test_only_tokens_that_are_learned_are_scored(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their hidden states alone meet the vocabulary, and what is found is what scoring all tokens finds."""
    from trl.trainer import utils

    from structune.tasks.parts.chats.model import log_likelihoods

    ready = make_ready(make(), resume=False, overwrite=True, console=None, recipe_file=None)
    batch = ready.settings.task.collator(ready.base, True)(list(ready.encoded.train[:5]))
    scored: list[int] = []
    theirs = utils._ChunkedLogProbFunction

    def watched(hidden: torch.Tensor, *more: Any) -> Any:
        scored.append(len(hidden))
        return theirs.apply(hidden, *more)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", SimpleNamespace(apply=watched))
    found = log_likelihoods(ready.model.eval(), batch)
    monkeypatch.setattr(utils, "_use_triton", lambda device: False)
    expected = log_likelihoods(ready.model, batch)
    places = batch["labels"][:, 1:]
    assert scored == [int((places != IGNORED).sum()), places.numel()]
    assert scored[0] < 0.6 * scored[1]
    for ours, all_of_them in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, all_of_them)


def test_scores_against_a_plain_loop(make: Make, learned: Run) -> None:
    """One example at a time, with logits of every token."""
    found, loaded = evaluate(learned.folder), load_run(learned.folder)
    data, task = load_data(loaded.recipe.task, loaded.recipe.data), loaded.recipe.task
    total, count, right, matches = 0.0, 0, 0, 0
    tokenizer = loaded.base.processor
    for row, label in zip(
        task.encode(data.evaluation, loaded.base, {}, loaded.recipe.data), data.evaluation.labels or [], strict=True
    ):
        ids, labels = (torch.tensor(row[name]).long() for name in ("input_ids", "labels"))
        with torch.no_grad():
            logits = loaded.model(input_ids=ids[None], use_cache=False).logits[0].double().log_softmax(-1)
            for place in range(1, len(ids)):
                if labels[place] != IGNORED:
                    total -= float(logits[place - 1, ids[place]])
                    count += 1
                    right += int(logits[place - 1].argmax() == ids[place])
            written = ids[: row["answer"]]
            while len(written) < row["answer"] + 12 and written[-1] != tokenizer.eos_token_id:
                following = loaded.model(input_ids=written[None], use_cache=False).logits[0, -1].argmax()
                written = torch.cat([written, following[None]])
        answer = tokenizer.decode(written[row["answer"] :], skip_special_tokens=True)
        matches += re.findall("#### ([0-9]+)", answer)[-1:] == re.findall("#### ([0-9]+)", label["content"])
    assert found.loss == pytest.approx(total / count, rel=1e-4)
    assert found.scores == pytest.approx(
        {
            "loss_per_token": total / count,
            "perplexity": math.exp(total / count),
            "token_accuracy": right / count,
            "exact_match": matches / len(data.evaluation),
        },
        rel=1e-4,
    )
    assert found.scores["exact_match"] > 0
    assert learned.metrics()["eval_exact_match"] == found.scores["exact_match"]


def test_an_evaluation_shows_answers_with_and_without_the_adapter(learned: Run) -> None:
    samples = json.loads((evaluate(learned.folder).to_json() and learned.evaluation_file).read_text())["samples"]
    assert list(samples) == ["1", "2", "3", "4"]
    for row in samples.values():
        assert row.keys() == {"prompt", "expected", "before", "after"}
        assert row["expected"].startswith("the answer is")
        assert row["after"].startswith("the answer is")
        assert not row["before"].startswith("the answer is")
    predictor = Predictor(learned.folder)
    asked = [row["prompt"] for row in samples.values()]
    assert [row["answer"] for row in predictor(asked)] == [row["after"] for row in samples.values()]


def test_a_text_file_has_a_prompt_on_each_line(learned: Run, make: Make, tmp_path: Path) -> None:
    """To be answered; it is nothing to learn from."""
    (tmp_path / "prompts.txt").write_text("what is one and two\n\nsay hello\n")
    predictor = Predictor(learned.folder)
    asked = ["what is one and two", "say hello"]
    found = predictor(tmp_path / "prompts.txt")
    assert [row["prompt"] for row in found] == asked
    assert [row["answer"] for row in found] == [row["answer"] for row in predictor(asked)]
    with pytest.raises(UserError, match=r"cannot tell the kind of file from its ending '\.txt'"):
        load_data(make().task, make(data={"train": str(tmp_path / "prompts.txt")}).data)


def test_chatting_remembers_and_streams(learned: Run) -> None:
    told: list[str] = []
    talk = Chat(learned.folder)
    first = talk.say("what is one and two", told.append)
    assert "".join(told) == first
    assert first.startswith("the answer is")
    again = talk.say("what is one and two", told.append)
    assert [message["role"] for message in talk.messages] == ["user", "assistant", "user", "assistant"]
    assert [message["content"] for message in talk.messages][1::2] == [first, again]
    talk.forget()
    assert talk.say("what is one and two", told.append) == first
    piped = CliRunner().invoke(cli.app, ["chat", str(learned.folder)], input="what is one and two\n\n/new\nsay hello\n")
    assert piped.exit_code == 0, piped.output
    assert piped.output.splitlines()[0] == first.splitlines()[0]
    assert len([line for line in piped.output.splitlines() if "answer" in line]) == 2


def test_a_merged_model_writes_the_same_without_us(learned: Run, tmp_path: Path) -> None:
    merge(learned.folder, tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    asked = [{"role": "user", "content": "what is one and two"}]
    tokens = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**tokens, max_new_tokens=12, do_sample=False)[0, tokens["input_ids"].shape[1] :]
    (row,) = Predictor(learned.folder)(["what is one and two"])
    assert tokenizer.decode(written, skip_special_tokens=True) == row["answer"]


def test_packed_training_is_learned_and_goes_on(make: Make) -> None:
    """With bf16 and layers computed again; the loss falls."""
    run = train(
        make(
            "packed", task={"packing": True}, data={"max_length": 96}, max_steps=20, batch_size=3, learning_rate=0.5,
            precision="bf16", gradient_checkpointing=True, log_steps=1,
        )
    )  # fmt: skip
    losses = [entry["loss"] for entry in run.history() if "loss" in entry]
    assert losses[-1] < 0.85 * losses[0]
    assert run.metrics()["train_examples"] == 30


@pytest.mark.parametrize("quantisation", ["4bit", "8bit"])
def test_quantised_weights_are_trained_over_and_merged(make: Make, quantisation: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model = {"quantisation": quantisation}
    run = train(make(quantisation, model=model, max_steps=12, batch_size=10, learning_rate=0.3))
    losses = [entry["eval_loss"] for entry in run.history() if "eval_loss" in entry]
    assert len(losses) > 1
    assert losses[-1] < 0.97 * losses[0]
    assert evaluate(run.folder).loss == pytest.approx(losses[-1], rel=1e-3)
    loaded = load_run(run.folder)
    assert "bitsandbytes" in type(loaded.model.base_model.model.lm_head).__module__ or any(
        "bitsandbytes" in type(module).__module__ for module in loaded.model.modules()
    )
    assert all(part.dtype == torch.float32 for name, part in loaded.model.named_parameters() if "structune" in name)
    merge(run.folder, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert {part.dtype for part in merged.parameters()} == {torch.float32}
    with pytest.raises(UserError, match=r"method full: trains the model's own weights, and model\.quantisation"):
        train(make("full", model=model, method="full"))


def test_quantised_weights_need_a_task_without_a_head(tiny_model: Path, reviews: Path) -> None:
    recipe = Recipe.parse(
        {"model": {"name": str(tiny_model), "quantisation": "4bit"}, "data": {"train": str(reviews)}, "output": "x"}
    )
    with pytest.raises(UserError, match=r"model\.quantisation = '4bit': goes with tasks that train no head"):
        make_ready(recipe, resume=False, overwrite=False, console=None, recipe_file=None)


def test_what_is_doubtful_is_said_and_what_is_wrong_refused(make: Make, rows: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="10 of 10 prompts to evaluate on are among those to train on"):
        load_data(make().task, make(data={"evaluation": str(rows)}).data)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"some words {number}"}) + "\n" for number in range(30)))
    with pytest.warns(UserWarning, match="every token of them is learned"):
        train(make("texts", data={"train": str(texts)}))
    with pytest.raises(UserError, match=r"task\.exact_match.*no prompt that could be answered"):
        load_data(make(task=RULE).task, make(data={"train": str(texts)}).data)
    with pytest.raises(UserError, match=r"task\.chat_template = '.*chatlm'.*did you mean 'chatml'"):
        train(make("unknown", task={"chat_template": "chatlm"}))
    template = tmp_path / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    resolved = make(task={"chat_template": str(template)}).resolved()
    assert resolved.task.processor(resolved.model).chat_template == template.read_text()


@pytest.mark.parametrize("name", [name for name in recipe_names() if "llama" in name or name == "gsm8k-qwen"])
def test_recipes_of_the_hub_run_on_a_tiny_model(
    name: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are, but for model, data, sizes and length: their columns, their template, their rule, their method."""
    recipe = Recipe.load(name)
    if recipe.task.name != "instruction":
        pytest.skip("another task")
    data = recipe.data
    answers = {
        "The answer is: ([^\\n]*)": "so. The answer is: 7",
        "correct answer is (\\w+)": "the correct answer is true",
    }
    answer = answers.get(str(recipe.task.exact_match), "one\n#### 7")  # type: ignore[attr-defined]
    columns = ("instruction", "output") if data.form == "alpaca" else (data.prompt, data.completion)  # type: ignore[attr-defined]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(dict(zip(columns, (q, answer), strict=True))) + "\n" for q, _ in questions(40)))
    own = data.model_dump(exclude_none=True, exclude={"hub", "subset", "train_split", "test_split", "train"})
    method = recipe.method.model_dump(exclude_none=True)
    if method.get("block_size_pattern"):
        assert method["target_modules"] == ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
        method |= {"block_size_pattern": dict.fromkeys(method["block_size_pattern"], 16)}
    run = train(
        Recipe.parse(
            {
                "output": str(tmp_path / "run"),
                "task": recipe.task.model_dump(exclude_none=True) | {"generation": {"max_new_tokens": 3}},
                "model": recipe.model.model_dump(exclude_none=True) | {"name": str(tiny_llama)},
                "data": own | {"train": str(rows), "evaluation_examples": 6},
                "method": method | {"block_size": 8},
                "train": recipe.train.model_dump(exclude_none=True, exclude={"epochs"})
                | {"max_steps": 2, "batch_size": 4, "gradient_accumulation": 2, "device": "cpu"},
            }
        )
    )
    metrics = run.metrics()
    assert metrics["trainable_adapter"] > 0
    assert math.isfinite(metrics["eval_loss_per_token"])
