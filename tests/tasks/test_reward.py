"""Rewards: GRPO's gradient in plain loops, groups and resuming, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from structune.errors import UserError
from structune.finetune.check import check
from structune.finetune.predict import predict
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.task_data import load_data
from structune.finetune.training import train

from .test_preference import POOL
from .whole_run import SETTINGS, made_ready, straight_and_resumed, trainer_of

LETTERS = "def score(completion, row):\n    return sum(letter in row['wanted'] for letter in completion) / 6\n"


@pytest.fixture
def recipe(tiny_writer: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Recipes of tiny runs, by default of a function that counts vowels; keywords go to the train section."""
    words = ["good", "bad", "a film", "the story and music", "end"]
    path = tmp_path / "prompts.jsonl"
    rows = [{"question": f"{words[n % 5]} {n}? ", "wanted": "aeiou", "answer": "a"} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rewards.py").write_text(LETTERS)

    def make(output: str = "run", method: Any = None, task: Any = None, data: Any = None, **settings: Any) -> Recipe:
        own = {"verifier": f"{tmp_path / 'rewards.py'}:score", "generations": 4, "max_new_tokens": 6}
        return Recipe.parse(
            {
                "output": str(tmp_path / output),
                "task": {"name": "reward", "chat_template": "plain", **own, **(task or {})},
                "model": {"name": str(tiny_writer)},
                "data": {"train": str(path), "prompt": "question", "evaluation_examples": 10, **(data or {})},
                "method": method or {"name": "c3a", "block_size": 8},
                "train": {key: value for key, value in SETTINGS.items() if key != "head_learning_rate"}
                | {"max_steps": 8}
                | settings,
            }
        )

    return make


def log_probabilities(model: Any, prompt: list[int], written: list[int]) -> list[torch.Tensor]:
    """Of each token from all before it, unpadded and alone."""
    logits = [model(input_ids=torch.tensor([prompt + written[:place]])).logits[0, -1] for place in range(len(written))]
    return [each.log_softmax(0)[token] for each, token in zip(logits, written, strict=True)]


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_gradient_is_that_of_the_paper(recipe: Callable[..., Recipe], beta: float) -> None:
    """Shao et al. (2024), equation 3, at the first step of a group: in plain loops over groups, completions, tokens.

    With rewards of a completion less its group's mean, over its deviation, and the mean over all tokens (`dapo`); the
    divergence from the model without its adapter is weighted by the ratio, whose value is 1 (arXiv 2512.02556).
    """
    made = recipe(task={"beta": beta}, batch_size=8)
    base, model, encoded, targets = made_ready(made)
    trainer = trainer_of(made, base, model, encoded, targets)
    model.train()
    assert list(model.peft_config) == ["default"]
    torch.manual_seed(3)
    given = next(iter(trainer.get_train_dataloader()))
    assert (
        [row["prompt"] for row in given]
        == [given[0]["prompt"]] * 4 + [given[4]["prompt"]] * 4
        != [given[0]["prompt"]] * 8
    )
    batch = trainer._prepare_inputs(given)
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.compute_loss(model, batch)
    model.zero_grad()
    loss.backward()
    theirs = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    rows = []
    for prompt, seen, completion, counted in zip(
        *(batch[name] for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")), strict=True
    ):
        rows.append((prompt[seen.bool()].tolist(), completion[counted.bool()].tolist()))
    tokenizer = trainer.base.processor
    rewards = [
        sum(letter in "aeiou" for letter in tokenizer.decode(own, skip_special_tokens=True)) / 6 for _, own in rows
    ]
    tokens = sum(len(own) for _, own in rows)
    total = torch.zeros(())
    for (prompt, own), reward in zip(rows, rewards, strict=True):
        group = [other for (asked, _), other in zip(rows, rewards, strict=True) if asked == prompt]
        mean = sum(group) / 4
        deviation = (sum((each - mean) ** 2 for each in group) / 3) ** 0.5
        advantage = (reward - mean) / (deviation + 1e-4)
        with torch.no_grad(), model.disable_adapter():
            reference = log_probabilities(model, prompt, own)
        for now, before in zip(log_probabilities(model, prompt, own), reference, strict=True):
            ratio = torch.exp(now - now.detach())
            divergence = torch.exp(before - now) - (before - now) - 1
            total = total + (-ratio * advantage + beta * divergence * ratio) / tokens
    assert max(rewards) > min(rewards)
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-4, abs=1e-5)
    model.zero_grad()
    total.backward()
    ours = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert ours.norm() > 1e-3
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-5)


def test_a_stopped_run_goes_on(recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """13 numbers for the whole model, accumulated batches, more than two epochs, a stop in the middle of the second."""
    made: dict[str, Any] = {"task": {"evaluation": "sampled"}, "evaluate_first": True}
    made |= {"batch_size": 16, "gradient_accumulation": 2, "max_steps": 7}
    run, found = straight_and_resumed(lambda name: recipe(name, POOL, **made), monkeypatch)
    entries = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    assert sum(entry.get("step") == 0 for entry in entries) == 1
    assert entries[-1]["epoch"] > 2
    assert run.metrics()["trainable_adapter"] == 13
    assert found.loss == pytest.approx(-found.scores["reward"])
    assert found.details["completions"].keys() == {str(number) for number in range(1, 11)}
    said = predict(run.folder, ["good 1? ", "a film 2? "])
    assert [set(row) for row in said] == [{"question", "completion"}] * 2
    (run.folder / "prompts.txt").write_text("good 1? \n\na film 2? \n")
    lines = predict(run.folder, run.folder / "prompts.txt")
    assert [row["question"] for row in lines] == ["good 1?", "a film 2?"]  # spaces at the ends of lines are none
    assert all(row["completion"] for row in lines)


def test_rewards_grow(recipe: Callable[..., Recipe]) -> None:
    """On prompts that were held out, from one evaluation of the likeliest completions to the last."""
    run = train(recipe(max_steps=30, batch_size=16, eval_steps=30, evaluate_first=True, learning_rate=0.1))
    entries = [json.loads(line) for line in run.log_file.read_text().splitlines()]
    before, after = (entry["eval_reward"] for entry in entries if "eval_reward" in entry)
    assert after > before + 0.1


def test_the_model_itself_may_be_trained(recipe: Callable[..., Recipe]) -> None:
    """Where nothing holds it to a reference."""
    assert train(recipe(method="full", max_steps=1, batch_size=4, learning_rate=1e-3)).metrics()["steps"] == 1
    with pytest.raises(UserError, match="method full: trains the model itself, and task reward compares"):
        train(recipe("other", "full", task={"beta": 0.1}))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"batch_size": 6}, "train.batch_size = 6: counts completions.*task.generations = 4.*for example 8"),
        ({"batch_size": 96}, "train.batch_size = 96: a step takes 24 prompts, and there are 20 to train on"),
        ({"group_by_length": True}, "train.group_by_length: the completions of a prompt stay together"),
    ],
)
def test_settings_that_do_not_go_with_groups(recipe: Callable[..., Recipe], settings: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        train(recipe(**settings))


@pytest.mark.parametrize(
    ("task", "data", "told"),
    [
        ({"verifier": "nowhere.py:score"}, {}, "task.verifier.function = '.*nowhere.py:score': there is no file"),
        ({"verifier": "exact-match"}, {"answer": "solution"}, "data.answer = 'solution': .* has no such column"),
        ({}, {"prompt": "text"}, "data.prompt = 'text': .* has no such column"),
    ],
)
def test_data_and_verifier_are_seen_before_the_model(
    recipe: Callable[..., Recipe], task: Any, data: Any, told: str
) -> None:
    made = recipe(task=task, data=data)
    with pytest.raises(UserError, match=told):
        load_data(made.task, made.data)


def test_a_function_is_tried_before_the_model_is_loaded(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("def score(completion, row):\n    return row['nothing']\n")
    made = recipe()
    with pytest.raises(UserError, match=r"rewards.py:score': raised KeyError: 'nothing' \(line 2 of rewards.py\)"):
        load_data(made.task, made.data)


def test_nonsense_is_told_at_the_first_step(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """What an empty completion does not show."""
    (tmp_path / "rewards.py").write_text("def score(completion, row):\n    return 0 if not completion else None\n")
    with pytest.raises(UserError, match="rewards.py:score': returned None, for the completion '.+' and the row {'"):
        train(recipe())


def test_a_check_takes_steps_and_writes_nothing(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    found = check(recipe(batch_size=8, max_steps=3))
    assert found.steps == 3
    assert found.steps_taken == 3
    assert found.seconds_per_evaluation > 0
    assert not (tmp_path / "run").exists()


def test_a_run_knows_its_function(
    recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file by its whole path in the run's folder, by its name in the card, and whether its code has changed."""
    from structune.finetune.evaluate import evaluate

    monkeypatch.chdir(tmp_path)
    run = train(recipe(task={"verifier": "rewards.py:score"}, max_steps=1, batch_size=8))
    assert run.recipe().task.verifier.function == f"{tmp_path / 'rewards.py'}:score"
    card = (run.adapter / "README.md").read_text()
    assert "rewards.py:score" in card
    assert str(tmp_path) not in card
    assert not evaluate(run.folder).notes
    (tmp_path / "rewards.py").write_text(LETTERS + "\n")
    assert any("code" in note for note in evaluate(run.folder).notes)


def test_a_study_writes_rows_as_they_were(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    made = recipe()
    data = load_data(made.task, made.data)
    file = made.task.write(data.evaluation, tmp_path / "part", made.data)
    again = made.data.model_copy(update={"train": str(file), "evaluation_examples": 2})
    found = load_data(made.task, again)
    assert len(found.train) + len(found.evaluation) == 10
    assert all(label["row"]["wanted"] == "aeiou" for label in found.train.labels or [])


def test_the_recipe_of_13_numbers_runs(tiny_llama: Path, tmp_path: Path) -> None:
    """As it stands but for the model, the data and what fits them; every number is in one pool for the whole model."""
    sums = [{"question": f"What is {n} plus {n % 7}?", "answer": f"So it is.\n#### {n + n % 7}"} for n in range(30)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums))
    changes = ["data.hub=null", "data.subset=null", f"data.train={tmp_path / 'sums.jsonl'}", "data.test_split=null"]
    changes += ["data.evaluation_examples=4", "data.test_examples=4", f"model.name={tiny_llama}", "train.max_steps=2"]
    changes += ["train.precision=fp32", "train.device=cpu", "train.batch_size=16", "train.gradient_accumulation=2"]
    changes += ["train.save_steps=2", "train.eval_steps=2", f"output={tmp_path / 'run'}", "task.max_new_tokens=6"]
    run = train(Recipe.load("gsm8k-qwen-13", changes))
    metrics = run.metrics()
    assert (metrics["trainable_adapter"], metrics["trainable_head"], metrics["steps"]) == (13, 0, 2)
    assert metrics["targets"] == {"verifier": "exact match of 'gsm8k'"}
    assert {"eval_reward", "test_reward", "test_finished"} <= metrics.keys()
    recipe: Any = run.recipe()
    assert recipe.task.generations == 8
    assert recipe.method.target_modules == "all-linear"
