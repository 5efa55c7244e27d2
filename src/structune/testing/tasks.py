"""The conformance suite for tasks: a tiny recipe is all it needs, and one class inherits every test.

class TestMyTask(TaskConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def content(cls, tmp_path_factory) -> dict:
        return {"task": "my-task", "model": …, "data": …, "method": …, "train": {"batch_size": 8, …}}
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback
from transformers.trainer_pt_utils import nested_detach, nested_numpify

from structune.data.examples import Examples
from structune.errors import Interrupted
from structune.finetune.evaluate import evaluate
from structune.finetune.merge import merge
from structune.finetune.outputs import joined
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.run import Run
from structune.finetune.stopping.interrupt import StopOnInterrupt
from structune.finetune.task_data import TaskData, load_data
from structune.finetune.training import train
from structune.tasks.task import Base, CardNames, Task
from structune.testing.killed import killed_in_checkpoint, killed_in_results, killed_in_step, train_until_killed

ROUNDING = 1e-4
"""How far, of the largest, outputs in fp32 may be apart that batches of other sizes give."""

TIMED = ("seconds_per_step", "train_seconds", "peak_memory_bytes")
"""What is another number in each run."""

_WITHOUT_TORCH = """
import importlib, json, sys
content, module, name = json.loads(sys.argv[1]), *sys.argv[2:]
task = getattr(importlib.import_module(module), name)
from structune.registry import section_name
from structune.tasks import registry
if section_name(task) not in registry.names():
    registry.register(task)
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.task_data import load_data
recipe = Recipe.parse(content)
data = load_data(recipe.task, recipe.data)
print(len(data.train), "torch" in sys.modules)
"""


@dataclass(frozen=True)
class Ready:
    """What the tests of one task look at, made once."""

    recipe: Recipe
    task: Task
    data: TaskData
    base: Base
    encoded: Sequence[Mapping[str, Any]]

    def batch(self, rows: Sequence[int], training: bool = False) -> dict[str, Any]:
        """Held-out examples put together."""
        base = replace(self.base, known=self.data.targets)
        return self.task.collator(base, training)([self.encoded[row] for row in rows])

    def outputs(self, rows: Sequence[int], size: int) -> Any:
        """Outputs of held-out examples, in that order, in batches of that size."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(rows), size):
                _, outputs = self.task.step(self.base.model.eval(), self.batch(rows[start : start + size]))
                parts.append(nested_numpify(outputs))
        return joined(parts)

    def labels(self, rows: Sequence[int]) -> Any:
        """Their labels, as batches hold them."""
        return nested_numpify(self.batch(rows)["labels"])


class TaskConformance:
    """Whatever holds for every task. A class of it has a fixture `content`: a tiny recipe, its own scope the class.

    Runs are a few steps longer than an epoch, whatever the recipe says. What draws random numbers or changes from epoch
    to epoch, such as dropout, is proved by a recipe that has it.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def content(cls) -> dict[str, Any]:
        """A recipe for a few examples, without `output`."""
        raise NotImplementedError("give the class a fixture `content`: a tiny recipe of the task")

    @pytest.fixture(scope="class")
    @classmethod
    def ready(cls, content: dict[str, Any]) -> Ready:
        """The task's data and model, with what it found out."""
        recipe = Recipe.parse(content)
        task = recipe.task
        data = load_data(task, recipe.data)
        base = task.load(recipe.model, data.targets, recipe.seed)
        learned = task.encode(data.train, base, data.targets, recipe.data)
        base = task.equip(base, task.prepare(base, learned, recipe.data, "cpu"))
        held_out = task.encode(data.evaluation, base, data.targets, recipe.data)
        assert len(held_out) == len(data.evaluation) >= 6, "hold out six examples or more"
        return Ready(recipe, task, data, base, held_out)

    @pytest.fixture(scope="class")
    @classmethod
    def in_epoch(cls, ready: Ready) -> int:
        """How many steps an epoch has, or one more where that is odd: after so many there is a checkpoint."""
        settings = ready.recipe.train
        steps = -(-len(ready.data.train) // (settings.batch_size * settings.gradient_accumulation))
        return steps + steps % 2

    @pytest.fixture(scope="class")
    @classmethod
    def lasting(cls, content: dict[str, Any], in_epoch: int) -> dict[str, Any]:
        """The recipe, for six steps more than an epoch, with a checkpoint every two; losses are logged between them."""
        settings = {key: value for key, value in content.get("train", {}).items() if key != "epochs"}
        return {**content, "train": {**settings, "max_steps": in_epoch + 6, "save_steps": 2, "log_steps": 3}}

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, lasting: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
        """A finished run."""
        return train(Recipe.parse({**lasting, "output": str(tmp_path_factory.mktemp("task") / "run")}))

    def test_data_need_no_torch(self, content: dict[str, Any], ready: Ready) -> None:
        """The class, its examples and its targets are had without importing torch."""
        task = type(ready.task)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _WITHOUT_TORCH, json.dumps(content), task.__module__, task.__name__],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-2:] == [str(len(ready.data.train)), "False"], "importing the task brings in torch"

    def test_targets_survive_json(self, ready: Ready) -> None:
        """They are known again, are no other thing, and mean the same."""
        again = json.loads(json.dumps(dict(ready.data.targets)))
        assert again == ready.data.targets
        assert ready.task.are_targets(again)
        assert not any(ready.task.are_targets(other) for other in (None, 3, "text", ["a"]))
        anew = ready.task.encode(ready.data.evaluation, ready.base, again, ready.recipe.data)
        first, second = (
            ready.task.collator(replace(ready.base, known=again), False)(list(rows)) for rows in (anew, ready.encoded)
        )
        assert first.keys() == second.keys()
        for name in first:
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)

    def test_examples_are_rows(self, ready: Ready) -> None:
        """Everything about them has an entry for each, and a part of them is those rows."""
        examples = ready.data.train
        assert {len(column) for column in examples.inputs.values()} == {len(examples)}
        assert len(examples.labels or []) == len(examples.strata) == len(examples)
        rows, part = list(examples.rows()), list(examples.subset([2, 0]).rows())
        assert [label for _, label in part] == [rows[2][1], rows[0][1]]

    @pytest.mark.parametrize("training", [False, True])
    def test_a_batch_gives_a_finite_loss_and_outputs_of_every_example(self, ready: Ready, training: bool) -> None:
        """The loss is a number with a gradient; the first axis of every output is the examples."""
        rows = list(range(6))
        model = ready.base.model.train(training)
        loss, outputs = ready.task.step(model, ready.batch(rows, training))
        assert loss is not None
        assert loss.shape == ()
        assert loss.isfinite()
        assert loss.requires_grad
        assert {len(part) for part in _arrays(nested_numpify(nested_detach(outputs)))} == {len(rows)}

    @pytest.mark.parametrize("training", [False, True])
    def test_a_loss_is_a_mean(self, ready: Ready, training: bool) -> None:
        """Over what `weight` counts: batches are put together, and divided among processes, by it."""
        rows, model = list(range(6)), ready.base.model.eval()
        with torch.inference_mode():
            batch = ready.batch(rows, training)
            whole, weight = ready.task.step(model, dict(batch))[0], float(ready.task.weight(batch))
            parts = [ready.batch(part, training) for part in (rows[:1], rows[1:4], rows[4:])]
            weights = [float(ready.task.weight(part)) for part in parts]
            losses = [float(ready.task.step(model, part)[0]) for part in parts]  # type: ignore[arg-type]  # labelled
        assert sum(weights) == pytest.approx(weight, rel=1e-5)
        mean = sum(share * loss for share, loss in zip(weights, losses, strict=True)) / weight
        assert float(whole) == pytest.approx(mean, rel=1e-4, abs=1e-6)  # type: ignore[arg-type]

    def test_examples_without_labels(self, ready: Ready) -> None:
        """They have outputs, the same, and no loss; or something is made for each, the same every time."""
        examples = ready.data.evaluation
        bare = Examples(examples.inputs, None, examples.groups, examples.strata)
        if (made := self._made(ready, bare.subset([0, 1]))) is not None:
            alone = self._made(ready, bare.subset([1]))
            assert alone == made[1:]
            assert tuple(made[0]) == tuple(made[1])
            assert len(made) == 2
            return
        encoded = ready.task.encode(bare, ready.base, ready.data.targets, ready.recipe.data)
        assert all("labels" not in encoded[row] for row in range(len(encoded)))
        batch = ready.task.collator(ready.base, False)([encoded[row] for row in range(6)])
        with torch.inference_mode():
            loss, outputs = ready.task.step(ready.base.model.eval(), batch)
        assert loss is None
        for ours, theirs in zip(_arrays(nested_numpify(outputs)), _arrays(ready.outputs(range(6), 6)), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=ROUNDING)

    def _made(self, ready: Ready, examples: Examples) -> list[dict[str, Any]] | None:
        """What the task makes for examples step by step; None where outputs are its answers."""
        model, data = ready.base.model.eval(), ready.recipe.data
        with torch.no_grad():
            made = ready.task.respond(model, ready.base, examples, ready.data.targets, data)
            return None if made is None else list(made)

    def test_scores_do_not_depend_on_batches_or_order(self, ready: Ready) -> None:
        """They are the task's metrics, each in its range."""
        rows = list(range(len(ready.encoded)))
        metrics = {metric.key: metric for metric in ready.task.metrics}
        expected: dict[str, float] = {}
        for order in (rows, rows[::-1], [*rows[1::2], *rows[::2]]):
            for size in (1, 4, len(rows)):
                outputs, labels = ready.outputs(order, size), ready.labels(order)
                scores = ready.task.scores(outputs, labels, ready.data.targets)
                assert scores.keys() == metrics.keys()
                for key, value in scores.items():
                    low, high = metrics[key].range
                    assert isinstance(value, float), key
                    assert math.isfinite(value), key
                    assert low is None or value >= low, key
                    assert high is None or value <= high, key
                expected = expected or scores
                assert scores == pytest.approx(expected, rel=1e-3, abs=1e-4), (size, order[:2])
        json.dumps(ready.task.details(outputs, labels, ready.data.targets), allow_nan=False)

    def test_answers_are_as_many_as_examples(self, ready: Ready) -> None:
        """Each is JSON, and they have the same columns."""
        outputs = ready.outputs(range(6), 4)
        examples = ready.data.evaluation.subset(range(6))
        for answers in (
            ready.task.answers(outputs, ready.data.targets),
            ready.task.answers_about(examples, outputs, ready.data.targets),
        ):
            assert len(answers) == 6
            assert len({tuple(answer) for answer in answers}) == 1
            assert answers[0]
            json.dumps(answers, allow_nan=False)

    def test_what_it_says_are_sentences(self, ready: Ready) -> None:
        """Doubts are, and what it says about itself is on one line; a card's lines are Python."""
        task, data, section = ready.task, ready.data, ready.recipe.data
        doubts = [
            *task.doubts(data.train, data.evaluation, section),
            *task.doubts(data.train, data.train, section),
            *task.doubts_about_file(data.evaluation, section),
            *task.doubts_about_encoding([data.train, data.evaluation], ready.base, section),
        ]
        assert all(isinstance(doubt, str) and len(doubt.split()) > 2 for doubt in doubts), doubts
        for text in (task.describe(data.targets), task.about(data.targets)):
            assert "\n" not in text
        compile(task.loading(CardNames("some/model"), data.targets, section, ready.base), "card", "exec")
        blind = task.baseline(data.evaluation)
        assert not blind or (blind.keys() == {"words", "value"} and math.isfinite(blind["value"]))

    def test_a_stopped_run_goes_on_bit_for_bit(
        self, lasting: dict[str, Any], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As if it had not been stopped."""
        recipe = Recipe.parse({**lasting, "output": str(tmp_path / "stopped")})
        stopped_after(3, recipe, monkeypatch)
        _assert_same(train(recipe, resume=True), run)

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing is killed on this system")
    def test_a_killed_run_goes_on_bit_for_bit(
        self, lasting: dict[str, Any], ready: Ready, in_epoch: int, run: Run, tmp_path: Path
    ) -> None:
        """Killed between two checkpoints, while one is written, and while the adapter is: as if it had not been."""
        content = {**lasting, "output": str(tmp_path / "killed")}
        killed = Run(tmp_path / "killed")
        for moment, number, last in (
            (killed_in_step, in_epoch + 2, in_epoch),
            (killed_in_checkpoint, in_epoch + 4, in_epoch + 2),
            (killed_in_results, 0, in_epoch + 6),
        ):
            resume = moment is not killed_in_step
            train_until_killed(content, type(ready.task), moment, number, resume)
            assert not killed.metrics_file.exists()
            assert killed.last_checkpoint() == killed.checkpoints / f"checkpoint-{last}"
        _assert_same(train(Recipe.parse(content), resume=True), run)

    def test_it_is_evaluated_and_merged(self, run: Run, tmp_path: Path) -> None:
        """With the scores of training, and outputs that merging does not change."""
        found, metrics = evaluate(run.folder), run.metrics()
        assert found.scores == pytest.approx({key: metrics[f"eval_{key}"] for key in found.scores}, rel=1e-4, abs=1e-4)
        assert found.loss == pytest.approx(metrics["eval_loss"], rel=1e-4)
        assert merge(run.folder, tmp_path / "merged") < ROUNDING
        assert any((tmp_path / "merged").iterdir())


def stopped_after(step: int, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until a signal comes during a step, which leaves a checkpoint to go on from."""

    def stop(self: TrainerCallback, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if state.global_step == step:
            control.should_save = control.should_training_stop = True
        return control

    with monkeypatch.context() as patch:
        patch.setattr(StopOnInterrupt, "on_step_end", stop)
        with pytest.raises(Interrupted):
            train(recipe)


def _assert_same(resumed: Run, never: Run) -> None:
    """Every byte of the adapter and every score and loss, whether a run was broken off and resumed or never was."""
    for name in ("adapter_model.safetensors", "prepared.json"):
        ours, theirs = (run.adapter / name for run in (resumed, never))
        assert ours.exists() is theirs.exists()
        assert not ours.exists() or ours.read_bytes() == theirs.read_bytes(), name
    after, expected = (
        {key: run.metrics()[key] for key in run.metrics() if key not in TIMED} for run in (resumed, never)
    )
    assert after == expected


def _arrays(outputs: Any) -> list[Any]:
    """The arrays of outputs that may be nested."""
    if isinstance(outputs, Mapping):
        return _arrays(list(outputs.values()))
    return [part for one in outputs for part in _arrays(one)] if isinstance(outputs, (tuple, list)) else [outputs]
