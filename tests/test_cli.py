"""The command line as a user meets it: exit codes, one-line errors, what is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from structune import cli

COMMANDS = [
    "train", "recipe", "evaluate", "predict", "merge", "push", "inspect", "compare", "report", "bench", "version",
]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a CSV of one's own and a recipe that names a tiny model."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(
        f"a {word} film number {n},{label}\n" for n in range(30) for word, label in (("good", "yes"), ("bad", "no"))
    )
    (tmp_path / "mine.csv").write_text(f"review,liked\n{rows}")
    (tmp_path / "mine.yaml").write_text("data: {train: mine.csv, text: review, label: liked}\ntrain: {max_steps: 2}\n")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def test_help_lists_every_command() -> None:
    output = run("--help").output
    assert all(re.search(rf"│ {command} ", output) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"structune {command}" in " ".join(result.output.split())


@pytest.mark.parametrize(
    "arguments",
    [
        *([*command, "--help"] for command in ([], *([name] for name in COMMANDS))),
        ["version"],
        ["--version"],
        ["recipe"],
        ["recipe", "--schema"],
        ["recipe", "image-classification"],
        ["recipe", "text-clasification"],
        ["train", "broken.yaml"],
        ["train", "mine.yaml", "--set", "method=lorra"],
        ["train", "mine.yaml", "--set", "method={name: hydra, structure: topelitz}"],
        ["compare", "mine.yaml", "--set", "train.epochs=no"],
        ["compare", "mine.yaml", "--set", "data.train=nowhere.csv"],
    ],
    ids=" ".join,
)
def test_what_needs_no_model_loads_no_heavy_library(project: Path, arguments: list[str]) -> None:
    """Help and mistakes in a recipe come at once, which a test can see only by what is imported."""
    (project / "broken.yaml").write_text("data: {train: [mine.csv}\n")
    program = """
import sys
from structune import cli
try:
    cli.app(sys.argv[1:])
except SystemExit as stop:
    heavy = {"torch", "peft", "transformers", "accelerate", "datasets", "matplotlib", "pandas", "numpy"}
    print(stop.code, sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    mistaken = not {"--help", "--version", "version"} & set(arguments) and arguments[0] != "recipe"
    mistaken = mistaken or "text-clasification" in arguments
    assert done.stdout.splitlines()[-1] == f"{2 if mistaken else 0} []"


def test_version() -> None:
    import structune

    assert re.search(rf"structune\s+{re.escape(structune.__version__)}", run("version").output)
    first, second = run("--version").output.splitlines()
    assert first == f"structune {structune.__version__}"
    assert re.fullmatch(r"torch \d\S*, peft \d\S*, transformers \d\S*", second)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.train=nine.csv"], "data.train = "),
        (["data.text=text"], "data.text = 'text': "),
        (["data.separator=;"], "it looks separated by ','"),
        (["train.learning_rat=1"], "(did you mean 'learning_rate'?)"),
        (["method=lorra"], "(did you mean 'lora'?)"),
        (["model.name=./nowhere"], "model.name = './nowhere'"),
        (["train.epochs"], "write it as section.key=value"),
    ],
)
def test_mistakes_are_one_line_and_code_2(project: Path, overrides: list[str], message: str) -> None:
    result = run("train", "mine.yaml", *(word for override in overrides for word in ("--set", override)))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (project / "runs").exists()


def test_paths_on_the_command_line_are_expanded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project / "home"))
    monkeypatch.delenv("NOWHERE", raising=False)
    for arguments in (["train", "~/x.yaml"], ["evaluate", "~/x"], ["inspect", "~/x"], ["compare", "~/x.yaml"]):
        assert f"{project}/home/x" in run(*arguments).stderr
    for arguments, argument in (
        (["train", "$NOWHERE"], "RECIPE"), (["evaluate", "$NOWHERE"], "RUN"), (["merge", "$NOWHERE", "--out=x"], "RUN"),
        (["evaluate", "x", "--data=$NOWHERE"], "--data"), (["merge", "x", "--out=$NOWHERE"], "--out"),
        (["inspect", "x", "--out=$NOWHERE"], "--out"), (["inspect", "x", "--base=$NOWHERE"], "--base"),
        (["compare", "mine.yaml", "--out=$NOWHERE"], "--out"), (["bench", "layer", "--out=$NOWHERE"], "--out"),
    ):  # fmt: skip
        result = run(*arguments)
        assert (result.exit_code, f"{argument} '$NOWHERE': the environment variable" in result.stderr) == (2, True)
    assert sorted(path.name for path in project.iterdir()) == ["mine.csv", "mine.yaml"]


def test_doubts_about_the_data_are_lines(project: Path) -> None:
    """Before the model is loaded, each once; here there is none to load."""
    rows = "".join(f"a film number {n} [of many],{('good', 'Good', 'bad')[n % 3]}\n" for n in range(60))
    (project / "mine.csv").write_text(f"review,liked\n{rows}")
    result = run("train", "mine.yaml", "--set", "model.name=./nowhere")
    warning = "warning: data.label = 'liked': 'Good' (20), 'good' (20) differ only in case or spaces"
    assert (result.exit_code, result.stderr.count(warning)) == (2, 1)
    assert len(result.stderr.strip().splitlines()) == 2


def test_resume_and_overwrite_exclude_each_other(project: Path) -> None:
    result = run("train", "mine.yaml", "--resume", "--overwrite")
    assert (result.exit_code, "exclude each other" in result.stderr) == (2, True)


def test_debug_shows_the_traceback(project: Path) -> None:
    result = run("train", "nowhere.yaml", "--debug")
    assert type(result.exception).__name__ == "UserError"


def test_commands_refuse_what_is_no_run(project: Path) -> None:
    for arguments in (["evaluate", "."], ["merge", ".", "--out", "x"]):
        result = run(*arguments)
        assert (result.exit_code, "not a run folder" in result.stderr) == (2, True)
    assert not (project / "x").exists()


def test_other_errors_are_one_line_and_code_1(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from structune.finetune.recipe import recipe

    def fail(*_: object) -> None:
        raise RuntimeError("disk [full]")

    monkeypatch.setattr(recipe.Recipe, "load", fail)
    result = run("train", "mine.yaml")
    assert result.exit_code == 1
    assert result.stderr.strip() == "error: RuntimeError: disk [full] (--debug shows where)"


def test_ctrl_c_is_code_130_and_says_how_to_go_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from structune.errors import Interrupted
    from structune.finetune import training

    def stop(*_: object, **__: object) -> None:
        raise Interrupted(7, "continue with: structune train runs/x/recipe.yaml --resume")

    monkeypatch.setattr(training, "train", stop)
    result = run("train", "mine.yaml")
    assert result.exit_code == 130
    assert "stopped after step 7" in result.stderr
    assert "structune train runs/x/recipe.yaml --resume" in result.stderr


def test_a_terminal_that_cannot_show_a_name_is_no_reason_to_fail() -> None:
    """A batch script would take it for a failure of the run."""
    command = [sys.executable, "-c", "from structune import cli; cli.console.print('class café')"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "class caf\\xe9\n"
