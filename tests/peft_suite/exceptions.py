"""What does not pass, and why. A test that passes in spite of what is said of it here is an error."""

FULL_RANK = (
    "a circulant or pooled ΔW has full rank: an SVD of rank 8 is too far off, as `structune.convert.to_lora` says"
)
OUR_WORDS = "refused as expected, in other words: our messages name the argument, its value and the fix"
OF_THE_SEED = (
    "two adapters of one configuration start alike: random numbers come from its seed, not from a global state"
)

EXCEPTIONS: dict[str, str] = {
    r"_pickle\[": "pickles are refused: they can run code when they are loaded",
    r"test_merge_layers_nan\[": OUR_WORDS,
    r"test_mixed_adapter_batches_(length_mismatch|merged|training_mode)_raises\[": OUR_WORDS,
    r"TestDecoderModels\w*::test_merge_layers_multi\[": OF_THE_SEED,
    r"test_disable_adapters(_with_merging)?\[random start": "the test presumes a start at ΔW = 0",
    r"fsdp_wrapped(_learnable_bias)?\[(bias_\w+-)?(?!bias|random start)": (
        "trained with one start and loaded with another: ΔW depends on the start, so such a file is refused; "
        "the cases with the same start on both sides pass"
    ),
    r"TestPeftConfig::test_(from_pretrained(_cache_dir)?|save_pretrained_with_runtime_config)\[": (
        "they load a configuration of LoRA's with every class: ours refuses another method's"
    ),
    r"deterministic_in_train_mode\[.*-MHA-": "dropout on attention is refused: W + ΔW is used as a whole",
    r"test_lora_conversion\[\w+-config_kwargs0-.*(OPT|GPT2|GPTJ|Gemma3)": FULL_RANK,
    r"test_lora_conversion\[\w+-config_kwargs1-.*(OPT|GPTJ|qwen2)": FULL_RANK,
}
"""A regular expression, searched for in the test's id, and the reason."""
