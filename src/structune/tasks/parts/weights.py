"""What a pretrained model's weights are held in: a precision, or few bits each."""

from __future__ import annotations

import logging
from typing import Any

import torch

from structune.errors import UserError
from structune.tasks.parts.model_section import ModelSection

_PACKS = "support_avx512bf16_for_cpu"

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def weight_options(section: ModelSection) -> dict[str, Any]:
    """Arguments of transformers' `from_pretrained`.

    4 bits are NF4 with quantised scales (QLoRA, arXiv 2305.14314), 8 bits are LLM.int8() (arXiv 2208.07339). What is
    computed is computed in `dtype`, in bf16 on a GPU.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    dtype = DTYPES[section.dtype]
    if section.quantisation is None:
        return {"dtype": dtype}
    try:
        import bitsandbytes  # noqa: F401  (whether it can be had)
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        raise UserError(
            f"model.quantisation = {section.quantisation!r}: needs bitsandbytes ({error}); run `pip install "
            f"'structune[quantised]'`"
        ) from None
    if torch.cuda.is_available():
        dtype = torch.bfloat16
    four = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)  # it tells of every product in 8 bits
    config: Any = BitsAndBytesConfig(**(four if section.quantisation == "4bit" else {"load_in_8bit": True}))
    return {"dtype": dtype, "quantization_config": config}


def refuse_other_weights(section: ModelSection, task: str, instead: str) -> None:
    """Raises `UserError` where the recipe wants other weights of a task that has them in fp32: before any is read.

    Args:
        section: the recipe's.
        task: by its name.
        instead: what saves memory there.
    """
    for key in ("quantisation", "dtype"):
        value = getattr(section, key)
        if value not in (None, "fp32"):
            raise UserError(
                f"model.{key} = {value!r}: the task {task} has its model in fp32; leave it out, and save memory by "
                f"{instead}"
            )


def is_quantised(model: Any) -> bool:
    """Whether its weights have few bits."""
    return bool(getattr(model, "is_quantized", False))


def check_weights(model: Any, section: ModelSection, task: str) -> None:
    """Raises `UserError` where a task has loaded its model otherwise than the recipe says."""
    if section.quantisation is not None and not is_quantised(model):
        raise UserError(
            f"model.quantisation = {section.quantisation!r}: the task {task} has its model in full precision; leave it "
            f"out"
        )
    kinds = {parameter.dtype for parameter in model.parameters()}
    if section.dtype != "fp32" and DTYPES[section.dtype] not in kinds:
        raise UserError(f"model.dtype = {section.dtype!r}: the task {task} has its model in fp32; leave it out")


def keep_unpacked(model: Any) -> None:
    """Keep 4-bit layers of bitsandbytes from repacking their weights on some CPUs, once they are evaluated.

    Repacked, the product has no gradient of its input, so that nothing below would learn after an evaluation; and
    what they stand for cannot be had any more.
    """
    for module in model.modules():
        if hasattr(module, _PACKS):
            setattr(module, _PACKS, False)


def with_plain_weights(model: Any) -> Any:
    """The model with what its quantised weights stand for, in fp32; as it is where none is quantised."""
    return model.dequantize().float() if is_quantised(model) else model
