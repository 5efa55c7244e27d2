"""A small random model of the architecture of a pretrained one: what a recipe is tried with, without any weights.

Its layers are as wide as those of the model, so that what fits these fits that, and there are two of them. Its tokens
are bytes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, PreTrainedTokenizerFast
from transformers.models.auto import image_processing_auto

from structune.quiet import quiet
from structune.tasks.parts.images.pixels import sizes_for
from structune.tasks.parts.model_section import ModelSection

_LAYERS = 2
_CLASSES = 11  # of a head that it has: no made-up data have so many
_PATCHES = 4  # along a side of a picture
_LONGEST = 512
_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]  # RoBERTa's order
_FOLLOW = {"out_features", "out_indices", "stage_names"}  # from the number of layers
_EMBEDDED = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12}
_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}


def save_small_text_model(section: ModelSection, folder: Path, auto: str, architecture: str, widest: int) -> str:
    """Write a model with its tokenizer, which has ChatML as its chat template, into the folder.

    Args:
        section: the model that it stands for.
        folder: where it goes.
        auto: the class of transformers that makes it.
        architecture: what it is where neither a configuration nor the name says.
        widest: how wide its layers may be; wider ones are halved until they are not.

    Returns:
        What it is, in words.
    """
    from structune.tasks.parts.chats.templates import CHATML

    config, known = _config(section, auto, architecture)
    tokenizer = _tokenizer()
    tokenizer.chat_template = CHATML
    ids = {
        f"{name}_token_id": _SPECIAL.index(token) for name, token in (("bos", "<s>"), ("pad", "<pad>"), ("eos", "</s>"))
    }
    config = _small(config, widest, {"vocab_size": len(tokenizer), **ids})
    room = getattr(config, "max_position_embeddings", None) or _LONGEST
    tokenizer.model_max_length = min(room - 2, _LONGEST)  # RoBERTa counts positions from 2
    with quiet():
        tokenizer.save_pretrained(folder)
    return _save(config, folder, auto, known)


def save_small_image_model(section: ModelSection, folder: Path, auto: str, architecture: str, widest: int) -> str:
    """The same of a model that reads pictures, with its image processor."""
    config, known = _config(section, auto, architecture)
    patch = getattr(config, "patch_size", None)
    side = _PATCHES * (patch if isinstance(patch, int) else 16)
    config = _small(config, widest, {"image_size": side})
    named = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES[config.model_type]  # type: ignore[attr-defined]
    maker: Any = getattr(transformers, named["pil"])
    with quiet():
        maker(**sizes_for(maker().to_dict(), side)).save_pretrained(folder)
    return _save(config, folder, auto, known)


def _save(config: PretrainedConfig, folder: Path, auto: str, known: str) -> str:
    torch.manual_seed(0)
    with quiet():
        model = getattr(transformers, auto).from_config(config)
        model.save_pretrained(folder)
    width = getattr(config, "hidden_size", None)
    wide = f", {width} wide" if isinstance(width, int) else ""
    return f"a random {config.model_type} of few layers{wide} ({known})"


def _config(section: ModelSection, auto: str, architecture: str) -> tuple[PretrainedConfig, str]:
    """The model's own configuration where it is on this machine, or what its name says of it; and how it is known."""
    options: dict[str, Any] = {} if section.revision is None else {"revision": section.revision}
    try:
        with quiet():
            return AutoConfig.from_pretrained(section.name, local_files_only=True, **options), "as its config.json says"
    except (OSError, ValueError, KeyError):
        pass
    if section.name == "embedded":
        return _changed(CONFIG_MAPPING["bert"](), _EMBEDDED), "as the embedded model"
    kind = _by_name(section.name, auto)
    known = "to judge by its name: no config.json of it is on this machine"
    if kind is None:
        kind, known = architecture, "no config.json of it is on this machine, and its name says nothing: a guess"
    config: PretrainedConfig = CONFIG_MAPPING[kind]()
    if "large" in section.name.lower() and getattr(config, "hidden_size", None) == 768:
        config = _changed(config, _LARGE)
    return config, known


def _by_name(name: str, auto: str) -> str | None:
    """The architecture with the longest name that the model's has in it, of those that there is such a model of."""
    makes = getattr(transformers, auto)._model_mapping
    last = _plain(Path(name).name)
    found = [kind for kind in CONFIG_MAPPING if _plain(kind) in last and CONFIG_MAPPING[kind] in makes]
    return max(found, key=len, default=None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _small(config: PretrainedConfig, widest: int, options: dict[str, Any]) -> PretrainedConfig:
    """Few layers, and none wider than that; sizes are halved together, so that what divides them goes on to."""
    said = config.to_dict()
    changes: dict[str, Any] = {}
    names = {key: config.attribute_map.get(key, key) for key in ("num_hidden_layers", *_LARGE, "num_key_value_heads")}
    if names["num_hidden_layers"] in said:
        changes[names["num_hidden_layers"]] = min(_LAYERS, said[names["num_hidden_layers"]])
    for key in ("depths", "num_block_repeats"):
        if isinstance(said.get(key), list):
            changes[key] = [1] * len(said[key])
    if isinstance(said.get("layer_types"), list):
        changes["layer_types"] = said["layer_types"][:_LAYERS]
    width = said.get(names["hidden_size"])
    by = 1
    while isinstance(width, int) and width // by > widest and width % (2 * by) == 0:
        by *= 2
    for key in (*_LARGE, "num_key_value_heads"):
        if by > 1 and isinstance(said.get(names[key]), int):
            changes[names[key]] = max(1, said[names[key]] // by)
    own = {config.attribute_map.get(key, key): value for key, value in options.items()}
    return _changed(config, changes | own | {"num_labels": _CLASSES, "id2label": None, "label2id": None})


def _changed(config: PretrainedConfig, changes: dict[str, Any]) -> PretrainedConfig:
    wanted = {**config.to_dict(), **changes}
    kept = {key: value for key, value in wanted.items() if value is not None and key not in _FOLLOW}
    made: PretrainedConfig = type(config).from_dict(kept)
    return made


def _tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, with `<s>` before a text and `</s>` behind it and between two."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: number for number, token in enumerate([*_SPECIAL, *letters])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:0 </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
