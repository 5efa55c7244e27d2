"""The examples of README.md, CONTRIBUTING.md and docs/ work: Python runs, recipes are valid, commands exist.

All ```python blocks of a page run in order in one namespace, in an empty folder. A ```text block right after
one is what it must print. A block after an HTML comment `<!-- not run: why -->` is left out.
Where a page loads FacebookAI/roberta-base, it gets a small random model from a folder of that name.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import sys
import types
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from PIL import Image
from transformers import RobertaConfig, RobertaForSequenceClassification

from structune import cli, structures
from structune.bench.suite import load_suite
from structune.finetune.recipe.recipe import Recipe
from structune.structures import registry
from structune.study.study_file import Study
from structune.tasks import registry as tasks
from structune.testing import oracles

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for folder in (".", "tasks", "results") for page in (ROOT / "docs" / folder).glob("*.md")),
]

FENCE = re.compile(
    r"(?P<skip><!-- not run: [^\n]*-->\n+)?"
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?:\n```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Example:
    """One block that is run."""

    line: int
    code: str
    output: str | None


def examples(page: str) -> list[Example]:
    """The blocks of a page that are run, in order."""
    return [
        Example(page[: match.start("code")].count("\n") + 1, match["code"], match["output"])
        for match in FENCE.finditer(page)
        if not match["skip"]
    ]


def run(page: str, filename: str) -> None:
    """Run a page's examples as one module; lines in a traceback are those of the page.

    Raises:
        AssertionError: an example printed something else than the page says.
    """
    module = types.ModuleType("page")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    for example in examples(page):
        printed = io.StringIO()
        code = compile("\n" * (example.line - 1) + example.code, filename, "exec", dont_inherit=True)
        with contextlib.redirect_stdout(printed):
            exec(code, module.__dict__)
        if example.output is not None:
            assert printed.getvalue().rstrip() == example.output.rstrip(), f"{filename}:{example.line}"


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page registers is forgotten after it."""
    monkeypatch.setattr(registry, "_families", dict(registry._families))
    monkeypatch.setattr(oracles, "ORACLES", dict(oracles.ORACLES))
    monkeypatch.setattr(tasks.TASKS, "_registered", dict(tasks.TASKS._registered))


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder in which the hub names of the pages are folders with small random models."""
    monkeypatch.chdir(tmp_path)
    config = RobertaConfig(
        vocab_size=100,
        hidden_size=768,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=34,
    )
    RobertaForSequenceClassification(config).save_pretrained("FacebookAI/roberta-base")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
@pytest.mark.usefixtures("offline_hub", "own_registry")
def test_examples_run(page: Path) -> None:
    torch.manual_seed(0)
    run(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT)))


def test_every_python_block_is_seen() -> None:
    """No block escapes through a slip in its fence."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = len(re.findall(r"^\s*```+\s*py", text, re.MULTILINE))
        assert fences == len(FENCE.findall(text)), page.name


def blocks(language: str) -> list[Any]:
    """All fenced blocks of a language in all pages, as parameters named by page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found.append(pytest.param(match[1], id=f"{page.name}:{text[: match.start()].count(chr(10)) + 1}"))
    assert found, language
    return found


A_STUDY_OF_ONE = """
name: one
seeds: [0]
tasks: { tweets: { data: { embedded: tweets } } }
methods: [{ label: LoRA, method: { name: lora } }]
"""


@pytest.mark.parametrize("content", blocks("yaml"))
def test_recipes_and_suites_are_valid(content: str, tmp_path: Path) -> None:
    """A recipe says what is trained, a suite of benchmarks has a workload, and what a study tries are rates."""
    given = yaml.safe_load(content)
    if "rates" in given:
        path = tmp_path / "study.yaml"
        path.write_text(f"{content}\n{A_STUDY_OF_ONE}", encoding="utf-8")
        assert Study.load(path).rates
        return
    if "workload" not in given:
        Recipe.parse(given)
        return
    path = tmp_path / "suite.yaml"
    path.write_text(content, encoding="utf-8")
    assert load_suite(path).cases


@pytest.mark.parametrize("content", blocks("sh"))
def test_commands_exist(content: str) -> None:
    """Every `structune` line names a command and options that there are; every `make` line a target."""
    commands = typer.main.get_command(cli.app)
    assert isinstance(commands, typer.core.TyperGroup)
    targets = re.findall(r"^([\w-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for line in content.splitlines():
        program, *words = shlex.split(line, comments=True) or [""]
        if program == "structune":
            words = list(takewhile(lambda word: word not in (">", "<", "|"), words))  # those are the shell's
            command = commands.commands[words[0]]
            command.make_context(words[0], words[1:])  # raises on an option that there is not
        elif program == "make":
            assert {word for word in words if "=" not in word} <= set(targets), line


def test_the_picture_shows_every_family() -> None:
    """Each as a matrix of numbers that differ, under its name; the grids come after."""
    script = runpy.run_path(str(ROOT / "docs" / "assets" / "matrices.py"))
    panels = script["picture"](script["COLOURS"]["light"]).axes
    shown = {axes.get_title(loc="left"): axes.images[0].get_array() for axes in panels[:-2]}
    assert list(shown) == list(structures.names())
    assert all(len(set(entries.flatten().tolist())) > 10 for entries in shown.values())
    for name in ("light", "dark"):
        with Image.open(ROOT / "docs" / "assets" / f"matrices-{name}.png") as image:
            assert image.info["Description"].split() == list(structures.names()), "run python docs/assets/matrices.py"


PAGE = "intro\n\n```python\nx = 2\nprint(x)\n```\n\n```text\n2\n```\n"


def test_runner_reports_wrong_output() -> None:
    run(PAGE, "page.md")
    with pytest.raises(AssertionError, match=r"page\.md:4"):
        run(PAGE.replace("print(x)", "print(x + 1)"), "page.md")


def test_runner_shares_one_namespace_and_skips_marked_blocks() -> None:
    run(PAGE + "\n```python\nassert x == 2\n```\n", "page.md")
    run(PAGE + "\n<!-- not run: needs the network -->\n\n```python\nraise RuntimeError\n```\n", "page.md")
    with pytest.raises(RuntimeError):
        run(PAGE + "\n```python\nraise RuntimeError\n```\n", "page.md")
