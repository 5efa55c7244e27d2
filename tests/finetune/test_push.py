"""What goes to the hub: the adapter, its card, and nothing else; all without a network."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from typer.testing import CliRunner

from structune import cli
from structune.errors import UserError
from structune.finetune.push import push
from structune.finetune.run_folder.run import Run
from structune.finetune.training import train

FILES = ["README.md", "adapter_config.json", "adapter_model.safetensors"]


class Hub:
    """Stands for `HfApi`, and writes down what it is asked for."""

    calls: list[tuple[str, Any]]
    fails: Exception | None = None

    def create_repo(self, name: str, **options: Any) -> Any:
        if self.fails:
            raise self.fails
        self.calls.append((name, options))

        class Url(str):
            repo_id = f"me/{name.rpartition('/')[2]}"

        return Url(f"https://hub/{Url.repo_id}")

    def upload_folder(self, **options: Any) -> SimpleNamespace:
        self.calls.append(("upload", options))
        return SimpleNamespace()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    Hub.calls, Hub.fails = [], None
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return Hub


@pytest.fixture
def run(recipe: Any) -> Run:
    run = train(recipe("lora", max_steps=2))
    (run.adapter / "diary.txt").write_text("mine")
    return run


def test_the_adapter_and_its_card_are_uploaded(run: Run, hub: type[Hub]) -> None:
    upload = push(run.folder, "reviews", private=True)
    (name, made), (_, sent) = hub.calls
    assert (name, made) == ("reviews", {"private": True, "exist_ok": True})
    assert sent["repo_id"] == upload.name == "me/reviews"
    assert sent["folder_path"] == run.adapter
    assert sorted(sent["allow_patterns"]) == FILES  # diary.txt stays
    assert upload.url == "https://hub/me/reviews"


def test_a_dry_run_shows_it_without_a_network(run: Run, hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network"))
    done = CliRunner().invoke(cli.app, ["push", str(run.folder), "me/reviews", "--dry-run"])
    assert done.exit_code == 0 and hub.calls == []
    shown = " ".join(done.stdout.split())
    for file in FILES:
        assert f"{file} {(run.adapter / file).stat().st_size:,} bytes" in shown
    assert "diary" not in done.output
    assert "# tiny: lora on" in done.stdout
    assert "nothing was uploaded; it would go to me/reviews" in shown
    assert "the base model is a folder of this machine" in " ".join(done.stderr.split())


def test_mistakes_are_told(run: Run, hub: type[Hub], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="NAME 'a/b/c'"):
        push(run.folder, "a/b/c")
    with pytest.raises(UserError, match="not a run folder"):
        push(tmp_path / "nowhere", "me/reviews")
    hub.fails = ConnectionError("no route\nto host")
    with pytest.raises(UserError, match=r"the hub refuses, or cannot be reached \(no route\)\. Log in with `hf auth"):
        push(run.folder, "me/reviews")
    (run.adapter / "README.md").unlink()
    with pytest.raises(UserError, match=r"README\.md is missing"):
        push(run.folder, "me/reviews", dry_run=True)
    assert hub.calls == []
