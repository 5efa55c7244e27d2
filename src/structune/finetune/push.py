"""A run's adapter and its card on the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from structune.errors import UserError
from structune.finetune.run_folder.run import ADAPTER_FILES, Run

_HEAD = 24  # lines of a card


@dataclass(frozen=True)
class Upload:
    """What is uploaded, or would be.

    Attributes:
        name: of the repository on the hub.
        files: their sizes in bytes, by name.
        card: the beginning of the card.
        notes: what to know before others see it.
        url: where it is; None where nothing was uploaded.
    """

    name: str
    files: dict[str, int]
    card: str
    notes: list[str] = field(default_factory=list)
    url: str | None = None


def push(folder: str | Path, name: str, *, private: bool = False, dry_run: bool = False) -> Upload:
    """Upload a finished run's adapter and its card, and nothing else that lies beside them.

    Args:
        folder: the run.
        name: of the repository, with or without the user or organisation; made if it is not there, and its files of
            these names are replaced.
        private: whether a new repository is.
        dry_run: upload nothing, and need no network.

    Raises:
        UserError: the run is not finished, the name is none, or the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    run = Run.finished(folder)
    run.metrics()  # or it is said that they are damaged
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"NAME {name!r}: {str(error).splitlines()[0]}") from None
    there = [file for file in ADAPTER_FILES if (run.adapter / file).is_file()]
    if missing := {"adapter_model.safetensors", "README.md"} - set(there):
        raise UserError(f"run {str(folder)!r}: {', '.join(sorted(missing))} is missing in {run.adapter}; restore it")
    upload = Upload(
        name,
        {file: (run.adapter / file).stat().st_size for file in there},
        "\n".join((run.adapter / "README.md").read_text(encoding="utf-8").splitlines()[:_HEAD]),
        _notes(run),
    )
    if dry_run:
        return upload
    api = HfApi()
    try:
        found = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=found.repo_id,
            folder_path=run.adapter,
            allow_patterns=there,
            commit_message=f"Upload the adapter of {run.folder.absolute().name}",
        )
    except Exception as error:  # noqa: BLE001  (the library raises many kinds, from network to naming)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"NAME {name!r}: the hub refuses, or cannot be reached ({reason}). Log in with `hf auth login`, with a "
            f"token that may write; --dry-run needs no network."
        ) from None
    return Upload(found.repo_id, upload.files, upload.card, upload.notes, str(found))


def _notes(run: Run) -> list[str]:
    """What others cannot use, or should not see."""
    recipe = run.recipe()
    notes = []
    configuration = run.adapter / "adapter_config.json"
    if Path(recipe.model.name).is_absolute():
        named = json.loads(configuration.read_text(encoding="utf-8")) if configuration.is_file() else {}
        folder = named.get("base_model_name_or_path") or recipe.model.name
        notes.append(
            f"the base model is a folder of this machine ({folder}), and is not uploaded: others need it too. Its name "
            f"stands in adapter_config.json"
        )
    return notes
