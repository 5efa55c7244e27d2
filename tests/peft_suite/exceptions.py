"""What does not pass, and why. A test that passes in spite of what is said of it here is an error."""

FULL_RANK = (
    "a circulant or pooled ΔW has full rank: an SVD of rank 8 is too far off, as `structune.convert.to_lora` says"
)
OUR_WORDS = "refused as expected, in other words: our messages name the argument, its value and the fix"
EXCEPTIONS: dict[str, str] = {
    r"_pickle\[": "pickles are refused: they can run code when they are loaded",
    r"test_merge_layers_nan\[": OUR_WORDS,
    r"test_mixed_adapter_batches_(length_mismatch|merged|training_mode)_raises\[": OUR_WORDS,
    r"test_disable_adapters(_with_merging)?\[random start": "the test presumes a start at ΔW = 0",
    r"TestPeftConfig::test_(from_pretrained(_cache_dir)?|save_pretrained_with_runtime_config)\[": (
        "they load a configuration of LoRA's with every class: ours refuses another method's"
    ),
    r"deterministic_in_train_mode\[.*-MHA-": "dropout on attention is refused: W + ΔW is used as a whole",
    r"test_lora_conversion\[\w+-config_kwargs0-.*(OPT|GPT2|GPTJ|Gemma3)": FULL_RANK,
    r"test_lora_conversion\[\w+-config_kwargs1-.*(OPT|GPTJ|qwen2)": FULL_RANK,
}
"""A regular expression, searched for in the test's id, and the reason."""
