"""Our cases, in the form of the lists that PEFT's test modules parametrise their tests with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from structune import StructuneConfig

Options = dict[str, Any]


@dataclass
class Circulant(StructuneConfig):
    """For the tests that make a configuration from module names alone."""

    block_size: int | None = 64


CIRCULANT: Options = {"structure": "circulant", "block_size": 4}
POOLED: Options = {"structure": "toeplitz", "num_splits": 2, "pool_size": 16, "fixed_ratio": 0.25, "seed": 3}
LOW_RANK: Options = {"structure": "low_rank", "num_splits": 2, "rank": 1}
CHAIN: Options = {"structure": "toeplitz_like", "num_splits": 1, "rank": 2}
NODES: Options = {"structure": "cauchy", "num_splits": 2, "pool_size": 24}
EVERY = {"circulant": CIRCULANT, "pooled": POOLED, "low rank": LOW_RANK, "chain": CHAIN, "nodes": NODES}


def _custom(name: str, model: str, options: Options, **targets: Any) -> tuple[str, str, type, Options]:
    return (name, model, StructuneConfig, {**options, **targets})


CUSTOM = [
    *[
        _custom(f"{name} {number}", "MLP", options, **targets)
        for name, options in EVERY.items()
        for number, targets in enumerate(
            [
                {"target_modules": "lin0"},
                {"target_modules": ["lin0", "lin1"]},
                {"target_modules": ["lin0"], "modules_to_save": ["lin1"]},
            ]
        )
    ],
    *[
        _custom(f"random start, {name}", "MLP", options, target_modules=["lin0", "lin1"], init_weights=False)
        for name, options in EVERY.items()
    ],
    _custom("patterns", "MLP", CIRCULANT, target_modules=["lin0", "lin1"], block_size_pattern={"lin1": 2}),
    _custom("PEFT's scale", "MLP", CIRCULANT, target_modules=["lin0"], scale="1/in_features"),
    _custom("Conv1D of transformers", "EmbConv1D", {**POOLED, "num_splits": 1}, target_modules=["conv1d"]),
    _custom("embedding", "EmbConv1D", CIRCULANT, target_modules=["emb"]),
    _custom("embedding and Conv1D", "EmbConv1D", {**LOW_RANK, "num_splits": 1}, target_modules=["emb", "conv1d"]),
    _custom("conv1d", "Conv1d", {**CIRCULANT, "block_size": 2}, target_modules=["conv1d"]),
    _custom("conv1d, larger", "Conv1dBigger", CHAIN, target_modules=["conv1d"]),
    _custom("conv1d, grouped", "Conv1dGroups", CIRCULANT, target_modules=["conv1d"]),
    _custom("conv2d", "Conv2d", POOLED, target_modules=["conv2d"]),
    _custom("conv2d and linear", "Conv2d", CIRCULANT, target_modules=["conv2d", "lin0"]),
    _custom("conv2d of one tap", "Conv2d1x1", {**LOW_RANK, "num_splits": 1}, target_modules=["conv2d"]),
    _custom("conv2d, grouped", "Conv2dGroups", POOLED, target_modules=["conv2d"]),
    _custom("conv2d, in two groups", "Conv2dGroups2", CIRCULANT, target_modules=["conv2d"]),
    _custom("random start, conv2d", "Conv2d", POOLED, target_modules=["conv2d", "lin0"], init_weights=False),
    _custom("random start, attention", "MHA", CIRCULANT, target_modules=["mha"], init_weights=False),
    _custom("conv3d", "Conv3d", CIRCULANT, target_modules=["conv3d"]),
    _custom("conv3d and linear", "Conv3d", POOLED, target_modules=["conv3d", "lin0"]),
    _custom("attention", "MHA", CIRCULANT, target_modules=["mha"]),
    _custom("attention and linear", "MHA", POOLED, target_modules=["mha", "lin0"]),
    _custom("parameter", "MlpUsingParameters", CIRCULANT, target_parameters=["lin0.weight"]),
]

TWO_ACTIVE = [
    (
        f"{name} {where}",
        "structune",
        StructuneConfig,
        {**options, **first, "init_weights": False},
        {**other, **second, "init_weights": False},
    )
    for name, options, other in [("same family", CIRCULANT, CIRCULANT), ("two families", POOLED, LOW_RANK)]
    for where, first, second in [
        ("same layer", {"target_modules": ["lin0"]}, {"target_modules": ["lin0"], "seed": 3}),
        ("two layers", {"target_modules": ["lin0"]}, {"target_modules": ["lin1"]}),
    ]
]
MIXED_BATCHES = [
    (
        "mixed batch",
        StructuneConfig(**CIRCULANT, target_modules=["lin0"], init_weights=False),
        StructuneConfig(**POOLED, target_modules=["lin0"], init_weights=False),
    )
]


def of_task(task_type: str) -> list[tuple[type, Options]]:
    """The configurations for language models, on the usual layers of each."""
    return [
        (StructuneConfig, {"task_type": task_type, "target_modules": None, **options})
        for options in (CIRCULANT, POOLED, LOW_RANK)
    ]


LLAMA4, GPT_OSS = "trl-internal-testing/tiny-Llama4ForCausalLM", "trl-internal-testing/tiny-GptOssForCausalLM"

EXPERTS = [
    (model, StructuneConfig, {"task_type": "CAUSAL_LM", "target_modules": [], **options, "target_parameters": names})
    for options in (CIRCULANT, LOW_RANK)
    for model, names in [
        (LLAMA4, ["feed_forward.experts.down_proj"]),
        (LLAMA4, ["0.feed_forward.experts.gate_up_proj", "1.feed_forward.experts.down_proj"]),
        (LLAMA4, ["feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"]),
        (GPT_OSS, ["mlp.experts.down_proj"]),
        (GPT_OSS, ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
    ]
]

IMAGES = {
    name: StructuneConfig(**options, target_modules=["convolution"], modules_to_save=["classifier", "normalization"])
    for name, options in EVERY.items()
}

CASES: dict[str, dict[str, Any]] = {
    "test_custom_models": {
        "TEST_CASES": CUSTOM,
        "ALL_PEFT_CONFIG_CLASSES": [Circulant],
        "MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES": TWO_ACTIVE,
        "MIXED_ADAPTER_TEST_CASES": MIXED_BATCHES,
    },
    "test_decoder_models": {"ALL_CONFIGS": of_task("CAUSAL_LM")},
    "test_encoder_decoder_models": {"ALL_CONFIGS": of_task("SEQ_2_SEQ_LM")},
    "test_seq_classifier": {"ALL_CONFIGS": of_task("SEQ_CLS")},
    "test_feature_extraction_models": {"ALL_CONFIGS": of_task("FEATURE_EXTRACTION")},
    "test_token_classification_qa": {
        "TOKEN_CLS_CONFIGS": of_task("TOKEN_CLS"),
        "QA_CONFIGS": of_task("QUESTION_ANS"),
    },
    "test_target_parameters": {"ALL_CONFIGS": EXPERTS},
    "test_vision_models": {"CONFIGS": IMAGES},
    "test_config": {
        "ALL_CONFIG_CLASSES": [(StructuneConfig, CIRCULANT), (StructuneConfig, POOLED)],
        "LAYER_INDEXING_CONFIG_CLASSES": [(StructuneConfig, LOW_RANK)],
    },
}
"""What replaces each list or table of each test module."""
