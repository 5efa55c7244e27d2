"""Comparing: what is planned, what is kept, what a failure and Ctrl-C leave."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from structune import cli
from structune.comparison import compare as module
from structune.comparison.compare import compare
from structune.doubt import DataWarning
from structune.errors import Diverged, Interrupted, UserError
from structune.finetune import training
from structune.finetune.recipe.recipe import Recipe, ResolvedRecipe
from structune.finetune.run_folder.lock import locked
from structune.finetune.run_folder.run import Run
from structune.finetune.stopping.signals import Stopped
from structune.finetune.training import train
from structune.methods.hydra import Hydra
from structune.methods.registry import preset
from structune.study.workers.job_pool import Job
from structune.study.workers.own_process import Outcome, stop_if_interrupted
from structune.study.workers.processes import Workers, carry_out, train_in_own_process

Calls = list[tuple[str, bool]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Runs take place in this process, which is quicker; the list tells (folder, resume) of each."""
    calls: Calls = []

    def noted(recipe: Recipe, resume: bool, **options: Any) -> Run:
        calls.append((Path(recipe.output or "").name, resume))
        return train(recipe, resume=resume, **options)

    def run(recipe: ResolvedRecipe, overwrite: bool, quiet: bool) -> Outcome:
        return carry_out(Job(recipe, overwrite=overwrite, quiet=True))

    monkeypatch.setattr(training, "train", noted)
    monkeypatch.setattr(module, "train_in_own_process", run)
    return calls


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(out: Path) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in (out / "comparison.md").read_text().splitlines()]
    return {row[0]: row for row in rows if len(row) == 7 and row[0] not in ("method", "---")}


def test_table_is_that_of_the_runs(
    recipe_file: Path, tmp_path: Path, here: Calls, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    small = Hydra(structure="toeplitz", pool_size=200)  # 384 are more than 32×32 blocks read
    monkeypatch.setattr(Hydra, "presets", lambda: {"hydra-toeplitz": small})
    compare(recipe_file, ["c3a", "hydra_toeplitz", "head"], out, console=screen)
    assert here == [("c3a", False), ("hydra-toeplitz", False), ("head", False)]
    rows = table(out)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    for name in ("c3a", "hydra-toeplitz", "head"):
        metrics = Run(out / name).metrics()
        assert rows[name][1] == f"{100 * metrics['eval_accuracy']:.1f}"
        assert rows[name][2] == f"{metrics['trainable_adapter']:,}"
        assert rows[name][3] == f"{metrics['trainable_head']:,}"
        assert rows[name][5] == f"{metrics['seconds_per_step']:.3f}"
        assert rows[name][6] == f"{metrics['peak_memory_bytes'] / 2**20:,.0f}"
        assert re.search(rf"^{name} +{re.escape(rows[name][1])} +{rows[name][2]} ", shown, re.MULTILINE)
    # Four layers of 32×32: circulant blocks of 8 hold 128 numbers each, the pool 200.
    assert [rows[name][2] for name in ("c3a", "hydra-toeplitz", "head")] == ["512", "800", "0"]
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert [row["method"] for row in json.loads((out / "comparison.json").read_text())["methods"]] == list(rows)


def test_own_method_keeps_its_settings_and_others_take_recommended_ones(
    recipe_file: Path, tmp_path: Path, here: Calls, screen: Console
) -> None:
    compare(recipe_file, ["c3a", "lora", "head"], tmp_path / "out", ["train.max_steps=2"], console=screen)
    recipes = {name: Run(tmp_path / "out" / name).recipe() for name in ("c3a", "lora", "head")}
    assert recipes["c3a"].method.block_size == 8  # type: ignore[union-attr]
    rates = {name: (r.train.learning_rate, r.train.head_learning_rate) for name, r in recipes.items()}
    assert rates["c3a"] == (0.03, preset("c3a").rates().head)
    assert rates["lora"] == preset("lora").rates()
    assert rates["head"] == preset("head").rates()
    assert 0.03 not in rates["lora"] + rates["head"]
    assert len({(r.data.model_dump_json(), r.train.max_steps, r.train.batch_size) for r in recipes.values()}) == 1


def test_seeds_make_a_run_each(recipe_file: Path, tmp_path: Path, here: Calls, screen: Console) -> None:
    comparison = compare(recipe_file, ["c3a"], tmp_path / "out", seeds=[3, 1], console=screen)
    assert [name for name, _ in here] == ["c3a-seed3", "c3a-seed1"]
    losses = {run["seed"]: run["train_loss"] for run in comparison.rows[0].runs}
    assert set(losses) == {3, 1}
    assert losses[3] != losses[1]


def stop_in(name: str, how: Outcome | BaseException, run: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """A runner for which the run of this name ends so, after its folder was begun."""

    def stopped(recipe: ResolvedRecipe, overwrite: bool, quiet: bool) -> Outcome:
        folder = Run(Path(recipe.output))
        if folder.folder.name != name:
            return run(recipe, overwrite, quiet)
        folder.begin(recipe, resume=False)
        if isinstance(how, BaseException):
            raise how
        return how

    return stopped


def test_goes_on_where_it_stopped_and_keeps_what_is_finished(
    recipe_file: Path, tmp_path: Path, here: Calls, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments: tuple[Any, ...] = (recipe_file, ["c3a", "lora", "head"], out, ["train.batch_size=4"])
    message = "stopped after step 2, and saved; continue with: structune compare .* --resume"
    with monkeypatch.context() as patch:
        stopped = stop_in("lora", Outcome("interrupted", step=2), module.train_in_own_process)
        patch.setattr(module, "train_in_own_process", stopped)
        with pytest.raises(Interrupted, match=message):
            compare(*arguments, console=screen)
    assert here == [("c3a", False)]
    assert not (out / "comparison.md").exists()
    before = snapshot(out / "c3a")
    with pytest.raises(UserError, match="holds c3a, lora already; use --resume"):
        compare(*arguments, console=screen)
    compare(*arguments, resume=True, console=screen)
    assert here == [("c3a", False), ("lora", True), ("head", False)]
    assert snapshot(out / "c3a") == before
    assert list(table(out)) == ["c3a", "lora", "head"]


def test_resume_line_can_be_typed(
    recipe_file: Path, tmp_path: Path, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a folder"
    stopped = stop_in("head-seed5", KeyboardInterrupt(), train_in_own_process)
    monkeypatch.setattr(module, "train_in_own_process", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare(recipe_file, ["head"], out, ["name=films x"], seeds=[5], console=screen)
    line = screen.file.getvalue().strip().splitlines()[-1]  # type: ignore[attr-defined]
    expected = ["structune", "compare", str(recipe_file), "--methods", "head", "--out", str(out), "--seeds", "5"]
    assert shlex.split(line.removeprefix("continue with: ")) == [*expected, "--set", "name=films x", "--resume"]


def test_a_failure_keeps_nobody_from_running(
    recipe_file: Path, tmp_path: Path, here: Calls, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    failing = stop_in("c3a", Outcome("failed", "no memory"), module.train_in_own_process)
    monkeypatch.setattr(module, "train_in_own_process", failing)
    with pytest.raises(UserError, match=r"not in the table \(--resume tries again\):\nc3a: no memory"):
        compare(recipe_file, ["c3a", "head"], out, console=screen)
    assert list(table(out)) == ["head"]
    with pytest.raises(UserError, match=r"every run failed:\nc3a: no memory"):
        compare(recipe_file, ["c3a"], tmp_path / "other", console=screen)


def test_a_run_that_could_not_be_replaced_is_not_shown(
    recipe_file: Path, tmp_path: Path, here: Calls, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(recipe_file, ["head"], tmp_path / "out", console=screen)
    monkeypatch.setattr(module, "train_in_own_process", lambda *_: Outcome("failed", "no memory"))
    with pytest.raises(UserError, match="every run failed:\nhead: no memory"):
        compare(recipe_file, ["head"], tmp_path / "out", overwrite=True, console=screen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": []}, "names none"),
        ({"methods": ["lorra"]}, r"did you mean 'lora'\?"),
        ({"methods": ["c3a", "C3A"]}, "c3a given twice"),
        ({"seeds": [1, 1]}, "--seeds 1,1: give different integers"),
        ({"seeds": [-1]}, "at least 0"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
        ({"overrides": ["data.text=body"]}, "data.text = 'body'"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    arguments: dict[str, Any], message: str, recipe_file: Path, tmp_path: Path, here: Calls, screen: Console
) -> None:
    settings: dict[str, Any] = {"methods": ["c3a", "head"], "out": tmp_path / "out", "console": screen} | arguments
    with pytest.raises(UserError, match=message):
        compare(recipe_file, **settings)
    assert here == []
    assert not (tmp_path / "out").exists()


def test_resuming_another_recipe_is_refused(recipe_file: Path, tmp_path: Path, here: Calls, screen: Console) -> None:
    compare(recipe_file, ["head"], tmp_path / "out", console=screen)
    before = snapshot(tmp_path / "out")
    with pytest.raises(UserError, match=r"train\.batch_size: 8 then, 4 now"):
        compare(recipe_file, ["head"], tmp_path / "out", ["train.batch_size=4"], resume=True, console=screen)
    assert snapshot(tmp_path / "out") == before
    compare(recipe_file, ["head"], tmp_path / "out", ["train.batch_size=4"], overwrite=True, console=screen)
    assert Run(tmp_path / "out" / "head").recipe().train.batch_size == 4


def planned(recipe_file: Path, folder: Path, overrides: Sequence[str] = ()) -> ResolvedRecipe:
    return Recipe.load(recipe_file, [*overrides, f"output={folder}"]).resolved()


def test_own_process_trains(recipe_file: Path, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGINT)
    outcome = train_in_own_process(planned(recipe_file, tmp_path / "run"), overwrite=False, quiet=True)
    assert outcome == Outcome("finished", took=outcome.took)
    assert outcome.took.run is not None and outcome.took.run > 0
    assert outcome.took.test is None  # no test part was asked for
    assert Run(tmp_path / "run").state() == "finished"
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_signal_as_a_run_ends_stops_what_would_follow(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came too late for the run, which is finished; the next one is not begun."""
    wait = Workers.wait

    def too_late(self: Workers) -> list[tuple[str, Outcome]]:
        ended = wait(self)
        os.kill(os.getpid(), signal.SIGTERM)
        return ended

    monkeypatch.setattr(Workers, "wait", too_late)
    outcome = train_in_own_process(planned(recipe_file, tmp_path / "run"), overwrite=False, quiet=True)
    assert outcome == Outcome("interrupted", number=signal.SIGTERM)
    assert Run(tmp_path / "run").state() == "finished"
    with pytest.raises(Stopped, match="SIGTERM"):
        stop_if_interrupted(outcome, "go on")


def test_own_process_brings_back_the_mistake(recipe_file: Path, tmp_path: Path) -> None:
    recipe = planned(recipe_file, tmp_path / "run", ["model.name=./nowhere"])
    outcome = train_in_own_process(recipe, overwrite=False, quiet=True)
    assert outcome.kind == "failed"
    assert outcome.reason.startswith("model.name = './nowhere': cannot be loaded")


def test_ctrl_c_saves_and_resume_finishes(recipe_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The whole command, in its own process group, as a terminal would have it."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "structune.cli", "compare", str(recipe_file), "--methods", "c3a,head"]
    command += ["--out", str(out), "--set", "train.max_steps=300"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        log = out / "c3a" / "log.jsonl"
        while not (log.is_file() and '"loss"' in log.read_text()) and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate()
    assert process.returncode == 130, output
    stopped = re.search(r"stopped after step (\d+), and saved; continue with: (structune compare .* --resume)", output)
    assert stopped, output
    assert 0 < int(stopped[1]) < 300
    assert not (out / "head").exists()
    assert (out / "c3a" / "checkpoints" / f"checkpoint-{stopped[1]}").is_dir()
    done = CliRunner().invoke(cli.app, [*command[3:], "--resume"])
    assert done.exit_code == 0, done.stderr
    shown = capfd.readouterr().out.replace("\n", "")  # by the runs
    assert f"resuming from {out}/c3a/checkpoints/checkpoint-{stopped[1]}" in shown
    assert {name: Run(out / name).metrics()["steps"] for name in ("c3a", "head")} == {"c3a": 300, "head": 300}
    assert list(table(out)) == ["c3a", "head"]


def test_doubts_are_told_once_and_not_by_the_runs(
    recipe_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(DataWarning, match=r"data\.max_length = 4: 80 of 80 texts are cut after 4 tokens") as caught:
        comparison = compare(recipe_file, ["head"], tmp_path / "out", ["data.max_length=4", "train.max_steps=1"])
    assert len([one for one in caught if one.category is DataWarning]) == 1
    captured = capfd.readouterr()
    assert "step 1/1" in captured.out
    assert "are cut" not in captured.out + captured.err
    assert "For comparison, always answering 'bad': accuracy 50.0%." in comparison.notes()


def test_a_method_that_diverges_is_a_row_and_kills_nobody(recipe_file: Path, tmp_path: Path, screen: Console) -> None:
    """c3a is the recipe's own method and takes its rate; the others have their own."""
    out = tmp_path / "out"
    rates = ["train.learning_rate=1e6", "train.weight_decay=1e10", "train.scheduler=constant", "train.warmup=0.0"]
    with pytest.raises(
        Diverged, match=r"these runs diverged:\nc3a: step \d+ of 4: .* \(learning rate 1e\+06"
    ) as caught:
        compare(recipe_file, ["c3a", "head"], out, rates, console=screen)
    assert caught.value.exit_code == 3
    assert table(out)["c3a"] == ["c3a", "diverged", *["–"] * 5]
    assert re.fullmatch(r"\d+\.\d", table(out)["head"][1])
    page = (out / "comparison.md").read_text()
    assert "2 methods compared" in page
    assert "c3a: the numbers of c3a ran away; no score of it is in the table." in page
    content = json.loads((out / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert (content["diverged"], [row["method"] for row in content["methods"]]) == ({"c3a": ["c3a"]}, ["head"])
    assert re.search(r"^c3a +diverged ", screen.file.getvalue(), re.MULTILINE)  # type: ignore[attr-defined]
    with pytest.raises(Diverged, match="every run failed"):
        compare(recipe_file, ["c3a"], tmp_path / "alone", rates, console=screen)


def test_a_failure_is_told_before_a_divergence(
    recipe_file: Path, tmp_path: Path, here: Calls, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stop_in("c3a", Outcome("failed", "no memory"), module.train_in_own_process)
    monkeypatch.setattr(module, "train_in_own_process", stop_in("lora", Outcome("diverged", "step 2: nan"), run))
    with pytest.raises(UserError, match="c3a: no memory") as caught:
        compare(recipe_file, ["c3a", "lora", "head"], tmp_path / "out", console=screen)
    assert caught.value.exit_code == 2
    assert list(table(tmp_path / "out")) == ["head", "lora"]


def test_resume_refuses_other_data(recipe_file: Path, tmp_path: Path, here: Calls, screen: Console) -> None:
    out = tmp_path / "out"
    compare(recipe_file, ["head"], out, console=screen)
    before = snapshot(out)
    films = tmp_path / "films.csv"
    rows = films.read_text().splitlines(True)
    films.write_text("".join([*rows, "a good film 99,good\n"]))
    with pytest.raises(UserError, match=r"the data differ from those of head \(training rows: 60 then, 61 now"):
        compare(recipe_file, ["head", "lora"], out, resume=True, console=screen)
    assert snapshot(out) == before
    films.write_text("".join([rows[0], *reversed(rows[1:])]))  # another order is no other data for what is finished
    compare(recipe_file, ["head", "lora"], out, resume=True, console=screen)
    assert here == [("head", False), ("lora", False)]


def test_runs_on_different_data_get_no_table(
    recipe_file: Path, tmp_path: Path, here: Calls, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file changes while the runs are under way."""
    run = module.train_in_own_process

    def changing(recipe: ResolvedRecipe, *rest: bool) -> Outcome:
        outcome = run(recipe, *rest)
        films = tmp_path / "films.csv"
        films.write_text(films.read_text().replace("a good film 7,", "a good film 77,"))
        return outcome

    monkeypatch.setattr(module, "train_in_own_process", changing)
    with pytest.raises(UserError, match=r"c3a and head are runs on different data \(.* in c3a, .* in head"):
        compare(recipe_file, ["c3a", "head"], tmp_path / "out", console=screen)
    assert not (tmp_path / "out" / "comparison.md").exists()


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}])
def test_files_of_ones_own_are_never_replaced(
    flags: dict[str, bool], recipe_file: Path, tmp_path: Path, here: Calls, screen: Console
) -> None:
    out = tmp_path / "out"
    (out / "head").mkdir(parents=True)
    (out / "head" / "recipe.yaml").write_text("potatoes: 3\n")
    with pytest.raises(UserError, match="holds other files than a run's"):
        compare(recipe_file, ["c3a", "head"], out, console=screen, **flags)
    for name in ("comparison.md", "comparison.json"):
        other = tmp_path / name
        other.mkdir()
        (other / name).write_text('{"name": "mine"}')
        with pytest.raises(UserError, match=f"holds {name}, which compare did not write"):
            compare(recipe_file, ["head"], other, console=screen, **flags)
        assert (other / name).read_text() == '{"name": "mine"}'
    with pytest.raises(UserError, match="is a file"):
        compare(recipe_file, ["head"], recipe_file, console=screen, **flags)
    assert here == []
    assert (out / "head" / "recipe.yaml").read_text() == "potatoes: 3\n"


def test_a_folder_that_another_comparison_writes_is_refused(
    recipe_file: Path, tmp_path: Path, here: Calls, screen: Console
) -> None:
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out", "x"), pytest.raises(UserError, match="another process is writing there now"):
        compare(recipe_file, ["head"], tmp_path / "out", console=screen)
    assert here == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_run_under_way_saves_when_the_comparison_is_ended(number: int, recipe_file: Path, tmp_path: Path) -> None:
    """SIGTERM to the command alone, as a batch system sends it; and the command killed."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "structune.cli", "compare", str(recipe_file), "--methods", "head"]
    command += ["--out", str(out), "--set", "train.max_steps=100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        log = out / "head" / "log.jsonl"
        while not (log.is_file() and '"loss"' in log.read_text()) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        shown, _ = process.communicate()  # until the run under way has closed its output too
    assert process.returncode == (128 + number if number == signal.SIGTERM else -number), shown
    checkpoint = Run(out / "head").last_checkpoint()
    assert checkpoint is not None
    if number == signal.SIGTERM:
        step = checkpoint.name.rpartition("-")[2]
        assert f"stopped after step {step}, and saved; continue with: structune compare" in shown
    with locked(out, "x"), locked(out / "head", "x"):
        pass
