"""Rows of the embedding that are trained beside an adapter, and vocabularies that are resized."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import structune
from structune import StructuneConfig

ROWS = [5, 7, 28]
IDS = torch.tensor([[3, 5, 7, 9, 28, 11]])


def base(*, tied: bool = False, vocabulary: int = 30) -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = LlamaConfig(**sizes, vocab_size=vocabulary, pad_token_id=0, tie_word_embeddings=tied)
    return LlamaForCausalLM(config).eval()


def config(rows=ROWS, **options) -> StructuneConfig:
    return structune.c3a(block_size=4, target_modules=["q_proj"], trainable_token_indices=rows, **options)


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [ROWS, {"embed_tokens": ROWS}], ids=["list", "by name"])
def test_trained_rows_are_saved_loaded_and_merged(rows, tied, randomise, tmp_path) -> None:
    model = randomise(get_peft_model(base(tied=tied), config(rows)))
    trained = {name: p.shape for name, p in model.named_parameters() if p.requires_grad and "token" in name}
    assert list(trained.values()) == [(3, 16)]
    expected = logits(model)
    assert (expected - logits(base(tied=tied))).abs().max() > 1e-2
    model.save_pretrained(tmp_path / "adapter")
    assert [
        t.shape for k, t in load_file(tmp_path / "adapter" / "adapter_model.safetensors").items() if "embed" in k
    ] == [(3, 16)]

    assert torch.equal(logits(PeftModel.from_pretrained(base(tied=tied), tmp_path / "adapter")), expected)
    bare = base(tied=tied)
    structune.load_adapter(bare, tmp_path / "adapter")
    assert torch.equal(logits(bare), expected)
    structune.save_adapter(bare, tmp_path / "again")
    native = base(tied=tied)
    native.load_adapter(str(tmp_path / "again"))
    assert torch.equal(logits(native), expected)

    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(base(tied=tied)), rtol=1e-5, atol=1e-6)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    model.unmerge_adapter()
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected, rtol=1e-5, atol=1e-5)
    assert type(merged.get_input_embeddings()) is nn.Embedding
    merged.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        logits(LlamaForCausalLM.from_pretrained(tmp_path / "merged")), expected, rtol=1e-5, atol=1e-5
    )


def test_only_the_rows_are_trained() -> None:
    model = get_peft_model(base(), config())
    model.train()(input_ids=IDS, labels=IDS).loss.backward()
    gradient = model.base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta["default"].grad
    assert (gradient.abs().amax(dim=1) > 1e-7).all()
    assert model.base_model.model.model.embed_tokens.original_module.weight.grad is None


def test_two_adapters_with_rows_of_their_own(randomise, tmp_path) -> None:
    expected = {}
    for name, rows, seed in (("one", [5, 7], 1), ("two", [5, 9, 28], 2)):
        single = randomise(get_peft_model(base(), config(rows)), seed=seed)
        single.save_pretrained(tmp_path / name)
        expected[name] = logits(single)
    model = PeftModel.from_pretrained(base(), tmp_path / "one", adapter_name="one")
    model.load_adapter(tmp_path / "two", "two")
    for name in ("two", "one"):
        model.set_adapter(name)
        assert torch.equal(logits(model), expected[name])
    with torch.no_grad():
        mixed = model(IDS.repeat(3, 1), adapter_names=["two", "one", "__base__"]).logits
    torch.testing.assert_close(mixed, torch.cat((expected["two"], expected["one"], logits(base()))))
    with pytest.raises(ValueError, match="'one', which trains rows of the embedding"):
        model.base_model.add_weighted_adapter(["one", "two"], [0.5, 0.5], "sum")
    model.delete_adapter("one")
    model.set_adapter("two")
    assert torch.equal(logits(model), expected["two"])


@pytest.mark.parametrize("more", [{"trainable_token_indices": ROWS}, {"modules_to_save": ["lm_head"]}])
def test_in_a_mixed_batch_an_adapter_without_rows_or_a_head_has_the_base_models(more, randomise) -> None:
    """PEFT's wrappers around what is trained in full know only the adapters that train it."""
    model = randomise(get_peft_model(base(), structune.c3a(block_size=4, target_modules=["q_proj"])))
    expected = logits(model)
    model.add_adapter("full", structune.c3a(block_size=4, target_modules=["v_proj"], **more))
    model.set_adapter("full")
    randomise(model, seed=3)
    alone = logits(model)
    with torch.no_grad():
        mixed = model(IDS.repeat(3, 1), adapter_names=["default", "full", "__base__"]).logits
    torch.testing.assert_close(mixed, torch.cat((expected, alone, logits(base()))), rtol=1e-5, atol=1e-6)


def test_rows_are_swapped_with_the_numbers(randomise, tmp_path) -> None:
    one = randomise(get_peft_model(base(), config()), seed=1)
    two = randomise(get_peft_model(base(), config()), seed=2)
    two.save_pretrained(tmp_path / "two")
    structune.hotswap_adapter(one, tmp_path / "two")
    assert torch.equal(logits(one), logits(two))
    randomise(get_peft_model(base(), config([4, 7, 28]))).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="trainable_token_indices="):
        structune.hotswap_adapter(one, tmp_path / "other")


def test_rows_go_along_to_lora_and_back(randomise) -> None:
    options = {"structure": "low_rank", "num_splits": 1, "rank": 2, "target_modules": ["q_proj"]}
    model = randomise(get_peft_model(base(), StructuneConfig(**options, trainable_token_indices=ROWS)))
    lora = structune.convert.to_lora(model).load_into(base())
    assert isinstance(lora.peft_config["default"], LoraConfig)
    torch.testing.assert_close(logits(lora), logits(model), rtol=1e-5, atol=1e-6)
    back = structune.convert.from_lora(lora, structure="low_rank", num_splits=1, rank=2).load_into(base())
    torch.testing.assert_close(logits(back), logits(model), rtol=1e-4, atol=1e-5)
    circulant = randomise(get_peft_model(base(), config()))
    with pytest.raises(ValueError, match="PEFT's C3A trains no rows"):
        structune.convert.to_peft_c3a(circulant)


@pytest.mark.parametrize("wrong", ["5", [-1], [1.5], [True], [], [3, 3], {"embed_tokens": 5}, {3: [5]}, 7])
def test_what_rows_must_be(wrong) -> None:
    with pytest.raises(ValueError, match="trainable_token_indices=.* must be a list of the tokens' numbers"):
        config(wrong)


def test_rows_that_somebody_adds_later_are_checked_too() -> None:
    late = config([5])
    late.trainable_token_indices.append(5)
    with pytest.raises(ValueError, match=r"trainable_token_indices=\[5, 5\] must be"):
        get_peft_model(base(), late)


WORDS = ["<pad>", "</s>", "question", "answer", "is", *(f"w{n}" for n in range(20))]


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


def test_trl_adds_the_tokens_of_a_chat_template(tmp_path) -> None:
    from trl import SFTConfig, SFTTrainer

    base(vocabulary=len(WORDS)).save_pretrained(tmp_path / "base")
    tokenizer().save_pretrained(tmp_path / "base")
    chat = tokenizer()
    chat.add_tokens(["<|user|>", "<|end|>"], special_tokens=True)
    chat.eos_token = "<|end|>"
    chat.chat_template = "{% for m in messages %}{{ '<|user|> ' + m['content'] + ' <|end|> ' }}{% endfor %}"
    chat.save_pretrained(tmp_path / "chat")
    turns = [("user", "question w{}"), ("assistant", "answer is w{}")]
    rows = [{"messages": [{"role": r, "content": c.format(n)} for r, c in turns]} for n in range(20)]
    arguments = SFTConfig(
        output_dir=str(tmp_path / "runs"),
        max_steps=3,
        per_device_train_batch_size=10,
        learning_rate=0.02,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        chat_template_path=str(tmp_path / "chat"),
    )
    options = structune.c3a(block_size=8, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(str(tmp_path / "base"), arguments, train_dataset=Dataset.from_list(rows), peft_config=options)
    trainer.train()
    rows = trainer.model.base_model.model.model.embed_tokens.token_adapter
    assert rows.token_indices["default"][:2] == [25, 26]
    moved = (rows.trainable_tokens_delta["default"] - rows.trainable_tokens_original["default"]).abs().amax(dim=1)
    assert (moved[:2] > 1e-3).all()
    trainer.save_model(str(tmp_path / "adapter"))
    again = structune.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(again), logits(trainer.model.cpu()))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("targets", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
@pytest.mark.parametrize("size", [40, 20])
def test_an_adapted_vocabulary_is_not_resized(size, targets, tied, randomise) -> None:
    model = randomise(get_peft_model(base(tied=tied), structune.c3a(block_size=4, target_modules=targets)))
    expected, state = logits(model), {name: tensor.shape for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="the vocabulary cannot be resized while an adapter is on the .* or merge the"):
        model.resize_token_embeddings(size)
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == state
    assert model.config.vocab_size == 30
    assert torch.equal(logits(model), expected)
    if not tied:
        model.resize_token_embeddings(30)  # nothing to do
        merged = model.merge_and_unload()
        merged.resize_token_embeddings(40)
        torch.testing.assert_close(logits(merged)[..., :30], expected, rtol=1e-5, atol=1e-5)


def test_a_vocabulary_with_trained_rows_is_not_resized(randomise) -> None:
    model = randomise(get_peft_model(base(), config()))
    with pytest.raises(ValueError, match="while an adapter is on the embedding, whose numbers belong to its rows"):
        model.resize_token_embeddings(40)


def test_a_vocabulary_beside_adapters_is_resized(randomise, tmp_path) -> None:
    base().save_pretrained(tmp_path / "base")
    start = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    model = randomise(get_peft_model(start, structune.c3a(block_size=4, target_modules=["q_proj"])))
    before = logits(model)
    model.resize_token_embeddings(40)
    expected = logits(model)
    assert torch.equal(expected[..., :30], before)
    model.save_pretrained(tmp_path / "adapter")  # with the new embedding, as PEFT has it
    again = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    again.resize_token_embeddings(40)
    assert torch.equal(logits(PeftModel.from_pretrained(again, tmp_path / "adapter")), expected)


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_an_adapter_of_another_vocabulary_is_refused_with_both_sizes(target, randomise, tmp_path) -> None:
    config = structune.hydra("toeplitz", num_splits=2, pool_size=20, target_modules=[target])
    randomise(get_peft_model(base(), config)).save_pretrained(tmp_path)
    said = rf"{target} is \(40, 16\) in the model, and was \(30, 16\) .*resize_token_embeddings\(30\) before loading"
    with pytest.raises(ValueError, match=said):
        PeftModel.from_pretrained(base(vocabulary=40), tmp_path)


def test_other_methods_vocabularies_are_none_of_our_business() -> None:
    model = get_peft_model(base(), LoraConfig(target_modules=["embed_tokens"]))
    with pytest.raises(TypeError, match="Old embeddings"):
        model.resize_token_embeddings(40)
    plain = inject_adapter_in_model(structune.c3a(block_size=4, target_modules=["0"]), nn.Sequential(nn.Linear(4, 4)))
    assert plain is not None
