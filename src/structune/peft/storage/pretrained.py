"""Base model and adapter in one call, and the lines of a model card that do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
from peft import PeftConfig, PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open

from structune.files import write_text

CLASSES = {
    "SEQ_CLS": "AutoPeftModelForSequenceClassification",
    "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "CAUSAL_LM": "AutoPeftModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoPeftModelForSeq2SeqLM",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoPeftModelForFeatureExtraction",
}
"""PEFT's class for each task type."""

HEADING = "## Load this adapter"
TAG = "structune"


def from_pretrained(adapter: str | Path, **kwargs: Any) -> PeftModel:
    """The base model that a saved adapter names, with the adapter in it, ready for inference.

    Args:
        adapter: local folder of the adapter, or its id on the hub.
        **kwargs: of the transformers class, such as dtype or device_map. For a classifier whose head is in the file,
            num_labels is read from there.

    Raises:
        ValueError: the adapter does not say which base model or task it is for; give both to
            `peft.PeftModel.from_pretrained` then.
    """
    config = PeftConfig.from_pretrained(str(adapter))
    if not config.base_model_name_or_path or _class(config) is None:
        raise ValueError(
            f"{adapter}: its configuration has base_model_name_or_path={config.base_model_name_or_path!r} and "
            f"task_type={config.task_type!r}, from which no base model can be loaded: load it yourself and call "
            "peft.PeftModel.from_pretrained(base, adapter)"
        )
    labels = num_labels(Path(adapter), config)
    given = kwargs if labels is None else {"num_labels": labels} | kwargs
    model = getattr(peft, str(_class(config))).from_pretrained(str(adapter), **given)
    assert isinstance(model, PeftModel)
    return model.eval()


def num_labels(folder: Path, config: PeftConfig) -> int | None:
    """How many classes the saved head of a classifier has; None where there is none."""
    weights = folder / SAFETENSORS_WEIGHTS_NAME
    heads: list[str] = list(getattr(config, "modules_to_save", None) or [])
    if config.task_type not in ("SEQ_CLS", "TOKEN_CLS") or not weights.is_file():
        return None
    with safe_open(weights, framework="pt") as file:
        matrices = [
            key for key in sorted(file.keys()) if key.endswith(".weight") and any(f".{head}." in key for head in heads)
        ]
        shapes = [shape for key in matrices if len(shape := file.get_slice(key).get_shape()) == 2]
    return int(shapes[-1][0]) if shapes else None


def add_to_card(folder: Path, config: PeftConfig) -> None:
    """Put the lines that load the adapter at the top of the model card in its folder, and a tag into its head.

    What a card has already is left.
    """
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else "---\nlibrary_name: peft\n---\n"
    new = _tagged(text if "import structune" in text else _with_section(text, _section(config)))
    if new != text or not card.exists():
        write_text(card, new)


def _tagged(text: str) -> str:
    """The card with the tag `structune` in its head; tags that are not a list of lines are left as they are."""
    head, body = _parted(text)
    lines = head.splitlines()[1:-1]
    if any(line.strip() == f"- {TAG}" for line in lines):
        return text
    if "tags:" in lines:
        place = lines.index("tags:") + 1
        following = lines[place] if place < len(lines) else ""
        indent = following[: len(following) - len(following.lstrip())] if following.lstrip().startswith("- ") else ""
        lines.insert(place, f"{indent}- {TAG}")
    elif not any(line.startswith("tags:") for line in lines):
        lines += ["tags:", f"- {TAG}"]
    return "\n".join(["---", *lines, "---", body])


def _with_section(text: str, section: str) -> str:
    head, body = _parted(text)
    return f"{head}\n{section}\n{body.lstrip()}"


def _parted(text: str) -> tuple[str, str]:
    """The head of a card, between lines of dashes, and the rest."""
    if text.startswith("---\n") and "\n---\n" in text[3:]:
        end = text.index("\n---\n", 3) + len("\n---\n")
        return text[:end], text[end:]
    return "", text


def _section(config: PeftConfig) -> str:
    if config.base_model_name_or_path and _class(config) is not None:
        lines = 'import structune\n\nmodel = structune.from_pretrained(".")  # this folder, or its id on the hub'
    else:
        lines = (
            "import structune  # registers the method with PEFT\nfrom peft import PeftModel\n\n"
            'model = PeftModel.from_pretrained(base, ".")  # `base`: the model that it was trained on; this folder'
        )
    return (
        f"{HEADING}\n\n```python\n{lines}\n```\n\nIt needs `pip install structune`; without the import, PEFT says "
        "`KeyError: 'STRUCTUNE'`.\n"
    )


def _class(config: PeftConfig) -> str | None:
    return CLASSES.get(str(getattr(config.task_type, "value", config.task_type)))
