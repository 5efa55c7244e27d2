"""The folder of a run: what counts as one, what is deleted, where none may be, and who may write there."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from typer.testing import CliRunner

from structune import cli
from structune.errors import Interrupted, UserError
from structune.finetune.evaluate import evaluate
from structune.finetune.merge import merge
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.run_folder.lock import LOCK_FILE, locked
from structune.finetune.run_folder.place import check_own_folder, check_writable
from structune.finetune.run_folder.run import Run
from structune.finetune.stopping.interrupt import StopOnInterrupt
from structune.finetune.training import train

MakeRecipe = Callable[..., Recipe]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def output(recipe: Recipe, folder: Path | str) -> Recipe:
    return recipe.model_copy(update={"output": str(folder)})


@pytest.fixture
def project(recipe_file: Path, reviews: Path, tmp_path: Path) -> Path:
    """A folder of somebody's own: a recipe.yaml, data, notes."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(recipe_file, folder / "recipe.yaml")
    shutil.copy(reviews, folder / "reviews.csv")
    (folder / "metrics.json").write_text("{}")
    (folder / "thesis.txt").write_text("mine")
    return folder


@pytest.mark.parametrize("flags", [[], ["--overwrite"], ["--resume"]])
@pytest.mark.parametrize("where", [".", "..", "../project", "{project}", "recipe.yaml", "notes", "link", "link/"])
def test_folders_of_ones_own_are_never_touched(
    where: str, flags: list[str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "notes").mkdir()
    (project / "notes" / "recipe.yaml").write_text("potatoes: 3\n")
    (project / "link").symlink_to(project / "notes", target_is_directory=True)
    monkeypatch.chdir(project)
    before = snapshot(project)
    options = ["--set", f"output={where.format(project=project)}", "--set", "data.train=reviews.csv"]
    result = CliRunner().invoke(cli.app, ["train", "recipe.yaml", *options, *flags])
    assert (result.exit_code, result.stderr.count("output = ")) == (2, 1)
    assert snapshot(project) == before


@pytest.mark.parametrize("what", ["data.train", "data.evaluation", "the recipe", "model.name"])
def test_the_folder_of_a_run_holds_nothing_that_the_recipe_names(
    what: str, recipe: MakeRecipe, recipe_file: Path, reviews: Path, tiny_model: Path
) -> None:
    run = train(recipe(max_steps=1))
    inside = run.folder / "inside"
    inside.mkdir()
    if what == "model.name":
        shutil.copytree(tiny_model, inside, dirs_exist_ok=True)
    else:
        shutil.copy(reviews if what.startswith("data") else recipe_file, inside / "file.csv")
    section, _, key = what.partition(".")
    settings = recipe(max_steps=1)
    if key:
        name = inside if section == "model" else inside / "file.csv"
        settings = settings.model_copy(update={section: getattr(settings, section).model_copy(update={key: str(name)})})
    before = snapshot(run.folder)
    with pytest.raises(UserError, match=f"holds {what}; name a new folder"):
        train(settings, overwrite=True, recipe_file=None if key else inside / "file.csv")
    assert snapshot(run.folder) == before


def test_a_runs_own_recipe_can_be_trained_again(recipe: MakeRecipe, tmp_path: Path) -> None:
    run = train(recipe(max_steps=1))
    options = ["--overwrite", "--set", "train.max_steps=2"]
    assert CliRunner().invoke(cli.app, ["train", str(run.recipe_file), *options]).exit_code == 0
    assert run.metrics()["steps"] == 2


def test_overwriting_deletes_what_a_run_wrote_and_nothing_else(recipe: MakeRecipe, tmp_path: Path) -> None:
    run = train(recipe("lora", max_steps=4, save_steps=2, keep_checkpoints=3))
    evaluate(run.folder)
    mine = ["notes.txt", "adapter/notes.txt", "checkpoints/checkpoint-best/weights", "checkpoints/notes", "plots/a.png"]
    for name in mine:
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).write_text("mine")
    (run.folder / ".metrics.json.abcd1234").write_text("half")
    (run.folder / ".adapter.abcd1234").mkdir()
    train(recipe("head", max_steps=3), overwrite=True)
    assert run.metrics()["method"] == "head"
    assert {name: (run.folder / name).read_text() for name in mine} == dict.fromkeys(mine, "mine")
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        "run.json", "recipe.yaml", "versions.json", "data.json", "metrics.json", "curve.png", "log.jsonl", "adapter",
        "checkpoints", LOCK_FILE, "notes.txt", "plots",
    }  # fmt: skip
    assert {path.name for path in run.adapter.iterdir()} == {"adapter_model.safetensors", "README.md", "notes.txt"}
    assert {path.name for path in run.checkpoints.iterdir()} == {"checkpoint-3", "checkpoint-best", "notes"}


def test_a_checkpoint_folder_of_ones_own_outlives_the_runs(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = StopOnInterrupt.on_step_end

    def copy(self: StopOnInterrupt, args: Any, state: Any, control: Any, **options: Any) -> None:
        saved(self, args, state, control, **options)
        if state.global_step == 3:
            shutil.copytree(Path(args.output_dir) / "checkpoint-2", Path(args.output_dir) / "checkpoint-2-mine")

    monkeypatch.setattr(StopOnInterrupt, "on_step_end", copy)
    run = train(recipe("lora", max_steps=6, save_steps=1))
    assert {path.name for path in run.checkpoints.iterdir()} == {"checkpoint-6", "checkpoint-2-mine"}


METHODS = ["lora", "full", "head"]
PROGRESS = ["optimizer.pt", "scheduler.pt", "rng_state.pth"]


class TestFilesOfOnesOwnInCheckpoints:
    """Only what the trainer wrote there is deleted, by name."""

    @pytest.mark.parametrize("method", METHODS)
    def test_outlive_overwriting(self, method: str, recipe: MakeRecipe) -> None:
        run = train(recipe(method, max_steps=4, save_steps=2, keep_checkpoints=3))
        for name in ("checkpoint-2/merged/model.safetensors", "checkpoint-7/optimizer.pt", "checkpoint-9/a/b"):
            (run.checkpoints / name).parent.mkdir(parents=True, exist_ok=True)
            (run.checkpoints / name).write_text("mine")
        shutil.copytree(
            run.checkpoints / "checkpoint-2", run.checkpoints / "checkpoint-11"
        )  # a copy, under no step's name
        mine = snapshot(run.checkpoints / "checkpoint-11")
        train(recipe("bitfit", max_steps=3), overwrite=True)
        left = snapshot(run.checkpoints)
        assert {name for name in left if not name.startswith(("checkpoint-3/", "checkpoint-11/"))} == {
            "checkpoint-2/merged/model.safetensors", "checkpoint-7/optimizer.pt", "checkpoint-9/a/b",
        }  # fmt: skip
        assert snapshot(run.checkpoints / "checkpoint-11") == mine
        assert not (run.checkpoints / "checkpoint-4").exists()
        assert run.last_checkpoint() == run.checkpoints / "checkpoint-3"

    @pytest.mark.parametrize("method", METHODS)
    def test_outlive_rotation(self, method: str, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
        saved = StopOnInterrupt.on_step_end

        def put(self: StopOnInterrupt, args: Any, state: Any, control: Any, **options: Any) -> None:
            saved(self, args, state, control, **options)
            if state.global_step == 3:
                (Path(args.output_dir) / "checkpoint-2" / "notes.txt").write_text("mine")
                (Path(args.output_dir) / "checkpoint-1").mkdir()
                (Path(args.output_dir) / "checkpoint-1" / "config.json").write_text("mine")

        monkeypatch.setattr(StopOnInterrupt, "on_step_end", put)
        run = train(recipe(method, max_steps=6, save_steps=2))
        left = {name for name in snapshot(run.checkpoints) if not name.startswith("checkpoint-6/")}
        assert left == {"checkpoint-1/config.json", "checkpoint-2/notes.txt"}

    @pytest.mark.parametrize("method", ["lora", "full"])
    def test_names_of_the_other_kind_of_model_are_ones_own(self, method: str, recipe: MakeRecipe) -> None:
        run = train(recipe(method, max_steps=2))
        name = "model.safetensors" if method == "lora" else "README.md"
        (run.checkpoints / "checkpoint-2" / name).write_text("mine")
        train(recipe(max_steps=1), overwrite=True)
        assert snapshot(run.checkpoints / "checkpoint-2") == {name: b"mine"}

    @pytest.mark.parametrize("where", ["checkpoints/new", "checkpoints/checkpoint-2/merged", "adapter/a/b", "adapter"])
    def test_nothing_is_made_there(
        self, where: str, recipe: MakeRecipe, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, other = train(recipe(max_steps=2)), train(recipe(output="other", max_steps=1))
        monkeypatch.chdir(tmp_path)
        before = snapshot(tmp_path)
        out = f"run/{where}"
        for command in (
            ["merge", "other", "--out", out],
            ["merge", "run", "--out", out],
            ["compare", str(recipe_file), "--methods", "head", "--out", out],
            ["train", str(recipe_file), "--set", f"output={out}"],
        ):
            result = CliRunner().invoke(cli.app, command)
            assert result.exit_code == 2
            assert "which a run replaces; name a folder outside of" in " ".join(result.stderr.split())
        assert snapshot(tmp_path) == before
        merge(other.folder, run.folder / "merged")


class TestDamagedCheckpoints:
    """Training goes on from a whole checkpoint, or tells which file keeps it from that."""

    @pytest.mark.parametrize("how", ["missing", "damaged"])
    @pytest.mark.parametrize(
        ("method", "name"),
        [("lora", name) for name in [*PROGRESS, "trainer_state.json", "adapter_model.safetensors"]]
        + [("lora", "adapter_config.json"), ("full", "model.safetensors"), ("head", "config.json")],
    )
    def test_are_passed_over_with_a_word(self, method: str, name: str, how: str, recipe: MakeRecipe) -> None:
        settings = {"save_steps": 2, "keep_checkpoints": 3}
        run = train(recipe(method, **settings))
        weights = (run.adapter / "adapter_model.safetensors").read_bytes()
        run.metrics_file.unlink()
        file = run.checkpoints / "checkpoint-6" / name
        content = file.read_bytes()
        file.unlink() if how == "missing" else file.write_bytes(content[: len(content) * 2 // 3])
        result = CliRunner().invoke(cli.app, ["train", str(run.recipe_file), "--resume"])
        assert result.exit_code == 0
        told = "".join(result.output.split())
        assert f"checkpoint-6:{name}is{how}:passedover" in told
        assert f"resumingfrom{run.checkpoints / 'checkpoint-4'}" in told
        assert (run.adapter / "adapter_model.safetensors").read_bytes() == weights

    @pytest.mark.parametrize("content", [b"", b"PK", b"x" * 5000])
    @pytest.mark.parametrize("name", [*PROGRESS, "adapter_model.safetensors"])
    def test_if_none_is_whole_the_file_and_the_fix_are_named(
        self, name: str, content: bytes, recipe: MakeRecipe
    ) -> None:
        run = train(recipe("lora", max_steps=2))
        run.metrics_file.unlink()
        (run.checkpoints / "checkpoint-2" / name).write_bytes(content)
        before = snapshot(run.folder)
        with pytest.raises(UserError, match=rf"checkpoint-2: {name} is damaged\)\. .* start anew with --overwrite"):
            train(recipe("lora", max_steps=2), resume=True)
        assert snapshot(run.folder) == before
        assert train(recipe("lora", max_steps=2), overwrite=True).state() == "finished"

    @pytest.mark.parametrize("name", PROGRESS)
    def test_one_changed_byte(self, name: str, recipe: MakeRecipe) -> None:
        run = train(recipe("lora", max_steps=2))
        file = run.checkpoints / "checkpoint-2" / name
        content = bytearray(file.read_bytes())
        content[content.index(b"\x80\x02") + 9] ^= 255  # of the pickle
        assert run.last_checkpoint() is not None
        file.write_bytes(content)
        assert run.last_checkpoint() is None

    def test_of_models_in_several_files(self, recipe: MakeRecipe) -> None:
        run = train(recipe("full", max_steps=2))
        folder = run.checkpoints / "checkpoint-2"
        shard = "model-00001-of-00001.safetensors"
        (folder / "model.safetensors").rename(folder / shard)
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": shard}}))
        assert run.last_checkpoint() == folder
        content = (folder / shard).read_bytes()
        (folder / shard).write_bytes(content[:-1])
        assert run.last_checkpoint() is None
        train(recipe(max_steps=1), overwrite=True)
        assert not folder.exists()

    def test_fp16_needs_its_scale(self, recipe: MakeRecipe) -> None:
        run = train(recipe("lora", max_steps=2))
        run.recipe_file.write_text(run.recipe_file.read_text().replace("precision: fp32", "precision: fp16"))
        assert run.last_checkpoint() is None
        shutil.copy(run.checkpoints / "checkpoint-2" / "scheduler.pt", run.checkpoints / "checkpoint-2" / "scaler.pt")
        assert run.last_checkpoint() is not None


@pytest.mark.parametrize("content", ["", "{}", '{"a', "[]", '{"targets": {"classes": 3}}', "null"])
def test_damaged_metrics_are_told(content: str, recipe: MakeRecipe, tmp_path: Path) -> None:
    run = train(recipe(max_steps=1))
    if "classes" in content:
        content = json.dumps(run.metrics() | json.loads(content))
    run.metrics_file.write_text(content)
    for command in (["evaluate", str(run.folder)], ["merge", str(run.folder), "--out", str(tmp_path / "merged")]):
        result = CliRunner().invoke(cli.app, command)
        assert result.exit_code == 2
        assert "metrics.json is damaged; restore it, or train again with --overwrite" in " ".join(result.stderr.split())
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("content", ['{"loss": 1.0}\n{"lo', "[]\n", "\x00"])
def test_a_damaged_log_is_told(content: str, recipe: MakeRecipe) -> None:
    run = train(recipe(max_steps=1))
    assert run.history()
    run.log_file.write_text(content)
    with pytest.raises(UserError, match=r"log\.jsonl is damaged"):
        run.history()


def test_damaged_versions_are_told(recipe: MakeRecipe) -> None:
    run = train(recipe(max_steps=1))
    assert run.machine()["python"]
    run.versions_file.write_text('{"pyth')
    with pytest.raises(UserError, match=r"versions\.json is damaged"):
        run.machine()


@pytest.mark.parametrize("name", ["adapter", "checkpoints", "log.jsonl", "metrics.json"])
def test_links_with_a_runs_names_are_not_followed(name: str, recipe: MakeRecipe, tmp_path: Path) -> None:
    run = train(recipe(max_steps=1))
    elsewhere = tmp_path / "elsewhere"
    (run.folder / name).rename(elsewhere)
    (run.folder / name).symlink_to(elsewhere)
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=f"{name} is not what a run writes; move it away"):
        train(recipe(max_steps=1), overwrite=True)
    assert snapshot(tmp_path) == before


class TestOlderRuns:
    """Runs from before there was a run.json: known by what else is there."""

    @pytest.fixture
    def older(self, recipe: MakeRecipe) -> Run:
        run = train(recipe(max_steps=1))
        for path in (run.marker_file, run.data_file, run.folder / LOCK_FILE):
            path.unlink()
        return run

    def test_are_evaluated_and_overwritten(self, older: Run, recipe: MakeRecipe) -> None:
        result = evaluate(older.folder)
        assert any("cannot be checked" in note for note in result.notes)
        with pytest.raises(UserError, match="holds a finished run; use --overwrite"):
            train(recipe(max_steps=1))
        train(recipe(max_steps=2), overwrite=True)
        assert (older.metrics()["steps"], older.marker_file.is_file()) == (2, True)

    def test_are_resumed_with_a_word(self, older: Run, recipe_file: Path) -> None:
        older.metrics_file.unlink()
        result = CliRunner().invoke(cli.app, ["train", str(older.recipe_file), "--resume"])
        assert result.exit_code == 0
        assert "whether they are the same cannot be checked" in " ".join(result.output.split())
        assert not older.data_file.exists()  # what it began with is not known

    def test_a_file_with_a_newer_name_is_not_theirs(self, older: Run, recipe: MakeRecipe) -> None:
        older.data_file.write_text('[{"text": "mine"}]')
        with pytest.raises(UserError, match=r"data\.json is not what the run there wrote"):
            train(recipe(max_steps=1), overwrite=True)
        assert older.data_file.read_text() == '[{"text": "mine"}]'

    @pytest.mark.parametrize("left", ["recipe.yaml", "metrics.json"])
    def test_one_file_alone_makes_no_run(self, left: str, older: Run, recipe: MakeRecipe, tmp_path: Path) -> None:
        folder = tmp_path / "other"
        folder.mkdir()
        shutil.copy(older.folder / left, folder / left)
        (folder / "adapter").mkdir()
        (folder / "adapter" / "README.md").write_text("mine")
        with pytest.raises(UserError, match="holds other files than a run's"):
            train(output(recipe(), folder), overwrite=True)
        assert (folder / "adapter" / "README.md").read_text() == "mine"


def test_another_programs_run_json_makes_no_run(recipe: MakeRecipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text('{"format": "something else"}')
    (folder / "recipe.yaml").write_text("a: 1\n")
    for flags in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(UserError, match="holds other files than a run's"):
            train(recipe(), **flags)
    assert len(snapshot(folder)) == 2


class TestLock:
    """One process at a time."""

    @pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}])
    def test_a_folder_that_is_written_to_is_refused(self, flags: dict[str, bool], recipe: MakeRecipe) -> None:
        run = train(recipe(max_steps=1))
        if "resume" in flags:
            run.metrics_file.unlink()
        elif not flags:
            shutil.rmtree(run.folder)
            run.folder.mkdir()
        with locked(run.folder, "x"):
            before = snapshot(run.folder)
            with pytest.raises(UserError, match="another process is writing there now"):
                train(recipe(max_steps=1), **flags)
            assert snapshot(run.folder) == before
        train(recipe(max_steps=1), **flags)

    def test_the_slower_of_two_that_begin_together_is_refused(
        self, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other one has begun, and ended, while this one loaded its model."""
        from structune.finetune import training as module

        load = module.apply_method

        def slow(*arguments: Any) -> Any:
            monkeypatch.setattr(module, "apply_method", load)
            train(recipe(max_steps=2))
            return load(*arguments)

        monkeypatch.setattr(module, "apply_method", slow)
        with pytest.raises(UserError, match="holds a finished run"):
            train(recipe(max_steps=1))
        assert Run(Path(recipe().output or "")).metrics()["steps"] == 2

    def test_a_killed_holder_holds_nothing(self, tmp_path: Path) -> None:
        code = (
            "import sys, time, pathlib\nfrom structune.finetune.run_folder.lock import locked\n"
            "with locked(pathlib.Path(sys.argv[1]), 'x'):\n    print('held', flush=True)\n    time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(UserError, match="another process"), locked(tmp_path, "x"):
                pass
            process.send_signal(signal.SIGKILL)
        with locked(tmp_path, "x"):
            pass

    def test_a_folder_that_stays_empty_goes_again(self, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Run, "begin", fail)
        with pytest.raises(UserError, match=r"cannot be written \(.*No space left on device\)"):
            train(recipe())
        assert not Path(recipe().output or "").exists()


class TestDisk:
    """What cannot be written is told before training, and what breaks off leaves the run whole up to a checkpoint."""

    @pytest.mark.parametrize("parent", ["reviews.csv", "reviews.csv/deeper", "/proc"])
    def test_a_place_that_takes_nothing(self, parent: str, recipe: MakeRecipe, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot be written to \(.*\); name another folder"):
            train(output(recipe(), tmp_path / parent / "run"))

    def test_too_little_room(self, recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=900_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(UserError, match=r"has 0\.9 MB left, and about 1\.\d MB are needed"):
            train(recipe())
        assert not (tmp_path / "run").exists()
        check_writable(tmp_path, "x", needed=800_000)

    @pytest.mark.parametrize("writer", ["state", "optimizer"])
    @pytest.mark.parametrize(
        "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("file write failed")]
    )
    def test_full_on_the_way(
        self, error: Exception, writer: str, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = {"max_steps": 8, "save_steps": 2}
        straight = train(recipe("lora", "straight", **settings))

        def fail(*arguments: Any, **_: Any) -> None:
            path = next(Path(part) for part in arguments if isinstance(part, str))
            if path.parent.name == "checkpoint-6":
                path.write_text('{"global_st')
                raise error

        with monkeypatch.context() as patch:
            if writer == "optimizer":
                save = torch.save
                patch.setattr(torch, "save", lambda thing, path, *a, **o: fail(str(path)) or save(thing, path, *a, **o))
            else:
                write = transformers.TrainerState.save_to_json
                patch.setattr(
                    transformers.TrainerState, "save_to_json", lambda self, path: fail(path) or write(self, path)
                )
            with pytest.raises(UserError, match=r"checkpoint-6: cannot be written .* MB are left .* whole up to .*-4"):
                train(recipe("lora", **settings))
        run = Run(Path(recipe().output or ""))
        assert {path.name for path in run.checkpoints.iterdir()} == {"checkpoint-4"}
        train(recipe("lora", **settings), resume=True)
        name = "adapter_model.safetensors"
        assert (run.adapter / name).read_bytes() == (straight.adapter / name).read_bytes()

    @pytest.mark.parametrize("scheduler", ["onecycle", "cosine"])
    def test_full_at_the_end(self, scheduler: str, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last step is not the last of an epoch: a trainer that resumes there would take another one."""
        from structune.finetune import training as module

        straight = train(recipe("lora", "straight", scheduler=scheduler))

        def fail(_: object, folder: Path, __: object) -> None:
            (folder / "adapter_model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(module, "save_trained", fail)
            with pytest.raises(UserError, match=r"No space left on device.* whole up to .*checkpoint-6"):
                train(recipe(scheduler=scheduler))
        run = Run(Path(recipe().output or ""))
        assert run.state() == "unfinished"
        assert {path.name for path in run.folder.iterdir()} == {
            "run.json", "recipe.yaml", "versions.json", "data.json", "log.jsonl", "checkpoints", LOCK_FILE,
        }  # fmt: skip
        resumed = train(recipe(scheduler=scheduler), resume=True)
        name = "adapter_model.safetensors"
        assert (resumed.adapter / name).read_bytes() == (straight.adapter / name).read_bytes()
        assert resumed.metrics()["seconds_per_step"] > 0
        same = ("steps", "train_loss", "eval_loss", "eval_accuracy")
        assert [resumed.metrics()[key] for key in same] == [straight.metrics()[key] for key in same]

    def test_a_half_written_state_is_no_checkpoint(self, recipe: MakeRecipe) -> None:
        run = train(recipe("lora", max_steps=4, save_steps=2, keep_checkpoints=2))
        run.metrics_file.unlink()
        state = run.checkpoints / "checkpoint-4" / "trainer_state.json"
        state.write_text(state.read_text()[:100])
        assert run.last_checkpoint() == run.checkpoints / "checkpoint-2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"report_to": ["tensorbored"]}, r"train\.report_to = 'tensorbored': .* is not supported"),
        ({"report_to": ["wandb"]}, r"train\.report_to = 'wandb': .*requires wandb"),
        ({"precision": "fp16", "device": "auto"}, r"train\.precision = 'fp16': needs a GPU"),
    ],
)
def test_what_this_machine_cannot_do_is_told_before_anything_is_written(
    change: dict[str, Any], message: str, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        train(recipe(**change))
    assert not Path(recipe().output or "").exists()


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about machines without an accelerator")
def test_bf16_runs_on_the_cpu_where_that_is_all_there_is(recipe: MakeRecipe) -> None:
    assert train(recipe(precision="bf16", device="auto", max_steps=2)).metrics()["dtype"] == "bf16"


class TestOtherFolders:
    """merge and its like."""

    @pytest.mark.parametrize("where", [".", "..", "link", "file"])
    def test_merge_needs_a_folder_of_its_own(
        self, where: str, recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = train(recipe(max_steps=1))
        here = tmp_path / "empty" / "here"
        here.mkdir(parents=True)
        (tmp_path / "target").mkdir()
        (here.parent / "link").symlink_to(tmp_path / "target")
        (here.parent / "file").write_text("mine")
        monkeypatch.chdir(here)
        out = {"link": here.parent / "link", "file": here.parent / "file"}.get(where, Path(where))
        with pytest.raises(UserError, match="--out"):
            merge(run.folder, out)
        assert list((tmp_path / "target").iterdir()) == []
        assert (here.parent / "file").read_text() == "mine"

    def test_an_evaluation_that_cannot_be_kept_is_shown(
        self, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from structune.finetune import evaluate as module

        def fail(*_: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        run = train(recipe(max_steps=1))
        monkeypatch.setattr(module, "write_json", fail)
        result = CliRunner().invoke(cli.app, ["evaluate", str(run.folder)])
        assert result.exit_code == 0
        assert "cannot be written (Read-only file system)" in " ".join(result.output.split())
        assert "accuracy" in result.output

    def test_own_folders(self, tmp_path: Path) -> None:
        check_own_folder(tmp_path / "new", "x", {"data": tmp_path / "new.csv", "more": tmp_path / "newer" / "a"})
        for kept in (tmp_path / "new", tmp_path / "new" / "a" / "b"):
            with pytest.raises(UserError, match="x: (is|holds) data"):
                check_own_folder(tmp_path / "new", "x", {"data": kept})


def test_interrupted_while_saving_finishes(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    from structune.finetune import training as module

    save = module.save_trained

    def pressed(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(*arguments)

    monkeypatch.setattr(module, "save_trained", pressed)
    assert train(recipe()).state() == "finished"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_save_and_end_with_their_code(
    number: int, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch systems send SIGTERM, several times even; a closed terminal sends SIGHUP."""

    def send(self: StopOnInterrupt, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            os.kill(os.getpid(), number)
            if number != signal.SIGINT:
                os.kill(os.getpid(), number)

    handlers = dict.fromkeys((signal.SIGTERM, signal.SIGHUP), signal.SIG_DFL)
    handlers[signal.SIGINT] = signal.default_int_handler
    inherited = {each: signal.signal(each, handler) for each, handler in handlers.items()}  # nohup ignores SIGHUP
    try:
        with monkeypatch.context() as patch:
            patch.setattr(StopOnInterrupt, "on_step_begin", send)
            result = CliRunner().invoke(cli.app, ["train", str(recipe_file)])
        assert {each: signal.getsignal(each) for each in handlers} == handlers
    finally:
        for each, handler in inherited.items():
            signal.signal(each, handler)
    assert result.exit_code == 128 + number
    run = Run(tmp_path / "run")
    assert f"stopped after step 3, and saved; {run.resume_line()}" in result.stderr
    assert run.last_checkpoint() == run.checkpoints / "checkpoint-3"
    assert CliRunner().invoke(cli.app, ["train", str(run.recipe_file), "--resume"]).exit_code == 0


def test_signals_that_are_ignored_stay_so(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """As nohup ignores SIGHUP."""

    def send(self: StopOnInterrupt, args: Any, state: Any, control: Any, **_: Any) -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(StopOnInterrupt, "on_step_begin", send)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert train(recipe()).state() == "finished"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_ends_at_once(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(self: StopOnInterrupt, args: Any, state: Any, control: Any, **_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StopOnInterrupt, "on_step_begin", send)
    with pytest.raises(KeyboardInterrupt):
        train(recipe())
    monkeypatch.undo()
    with pytest.raises(UserError, match="use --resume"):
        train(recipe())


def test_sigterm_outside_training_cleans_up(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from structune.finetune.recipe import recipe as module

    monkeypatch.setattr(module.Recipe, "load", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    result = CliRunner().invoke(cli.app, ["train", str(project / "recipe.yaml")])
    assert (result.exit_code, result.stderr.strip()) == (143, "stopped")


@pytest.mark.parametrize("size", [None, "1"])
def test_a_process_that_is_alone_needs_no_process_group(
    size: str | None, recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever rank a launcher, or an earlier one in the same shell, has left."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    assert train(recipe("lora", max_steps=1)).state() == "finished"


SIZES = {
    "WORLD_SIZE": "RANK",
    "PMI_SIZE": "PMI_RANK",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_SIZE": "MV2_COMM_WORLD_RANK",
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
}


@pytest.mark.parametrize("size", SIZES)
def test_one_of_several_processes_tells_and_none_writes(
    size: str, recipe: MakeRecipe, recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(size, "3")
    told = []
    for rank in range(3):
        monkeypatch.setenv(SIZES[size], str(rank))
        for command in (["train", str(recipe_file)], ["compare", str(recipe_file)], ["merge", "x", "--out", "y"]):
            result = CliRunner().invoke(cli.app, command)
            assert result.exit_code == 2
            told.append((rank, f"{size} = 3" in result.stderr, result.output == ""))
        with pytest.raises(UserError, match=f"{size} = 3"):
            train(recipe())
    assert told == [(0, True, False)] * 3 + [(1, False, True)] * 3 + [(2, False, True)] * 3
    assert not Path(recipe().output or "").exists()


def test_a_launch_of_one_process_trains(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch script has the tasks of its whole job in SLURM_NTASKS."""
    for name, value in {"PMI_SIZE": "1", "PMI_RANK": "0", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert train(recipe(max_steps=1)).state() == "finished"


def test_interrupted_runs_know_their_process(recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(self: StopOnInterrupt, args: Any, state: Any, control: Any, **_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StopOnInterrupt, "on_step_begin", send)
    with pytest.raises(Interrupted):
        train(recipe())
    run = Run(Path(recipe().output or ""))
    assert json.loads(run.marker_file.read_text())["process"]["pid"] == os.getpid()
