"""Whatever others do with an adapter's tensors, it stays the adapter that it was, or that is said."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

import structune
from structune import StructuneConfig
from structune.peft import StructuneLayer

TARGETS = ["query", "value"]
WEIGHTS = "adapter_model.safetensors"
CONFIGS: dict[str, Callable[..., StructuneConfig]] = {
    "c3a": lambda **kw: structune.c3a(block_size=8, target_modules=TARGETS, **kw),
    "pooled": lambda **kw: structune.hydra("toeplitz", pool_size=30, target_modules=TARGETS, seed=3, **kw),
    "partly frozen": lambda **kw: structune.hydra(
        "hankel_like", pool_size=40, fixed_ratio=0.4, target_modules=TARGETS, seed=3, **kw
    ),
    "own, with nodes": lambda **kw: StructuneConfig(
        structure="cauchy", num_splits=2, target_modules=TARGETS, seed=3, **kw
    ),
}
every_config = pytest.mark.parametrize("make", CONFIGS.values(), ids=CONFIGS)
every_start = pytest.mark.parametrize("start", [True, False, "kaiming_uniform"])


def layers_of(model: nn.Module) -> list[StructuneLayer]:
    return [module for module in model.modules() if isinstance(module, StructuneLayer)]


def updates(model: nn.Module) -> Tensor:
    """ΔW of all layers."""
    return torch.stack([layer.get_delta_weight("default").detach() for layer in layers_of(model)])


def restream(model: nn.Module, adapter: str = "default") -> None:
    """As if the adapter had been trained on modules of other names."""
    for k, layer in enumerate(layers_of(model)):
        layer.delta(adapter).identify(replace(layer.delta(adapter).identity, stream=1000 + k))


@pytest.fixture
def trained(bert, randomise):
    """A model with a trained adapter whose streams are not those that its modules' names give."""

    def trained(config: StructuneConfig) -> PeftModel:
        model = get_peft_model(bert(), config)
        restream(model)
        return randomise(model, std=0.1).eval()

    return trained


@every_config
@every_start
@pytest.mark.parametrize("average", ["plain", "exponential"])
def test_averages_over_models(make, start, average, trained, bert, tmp_path) -> None:
    """As EMA and SWA take them, buffers included."""
    model = trained(make(init_weights=start))
    averaging = None if average == "plain" else get_ema_multi_avg_fn(0.9)
    ema = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
    for _ in range(3):
        ema.update_parameters(model)
    torch.testing.assert_close(updates(ema), updates(model))
    ema.module.save_pretrained(tmp_path)
    torch.testing.assert_close(updates(PeftModel.from_pretrained(bert(), tmp_path)), updates(model))


def edited(folder: Path, change: Callable[[Tensor], Tensor]) -> None:
    save_file({key: change(value) for key, value in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)


@every_config
@every_start
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_file_cast_as_a_whole(make, start, dtype, trained, bert, tmp_path) -> None:
    model = trained(make(init_weights=start))
    model.save_pretrained(tmp_path)
    edited(tmp_path, lambda value: value.to(dtype))
    again, expected = updates(PeftModel.from_pretrained(bert(), tmp_path)), updates(model)
    assert (again - expected).norm() < 0.02 * expected.norm()


@every_config
def test_averages_over_files(make, trained, randomise, bert, tmp_path) -> None:
    """A soup of two adapters that began alike has the mean of their numbers; of two that did not, it is refused."""
    one, two = trained(make(init_weights=False)), trained(make(init_weights=False))
    randomise(two, std=0.1, seed=1)
    expected = copy.deepcopy(one)
    with torch.no_grad():
        for mine, first, second in zip(expected.parameters(), one.parameters(), two.parameters(), strict=True):
            mine.copy_((first + second) / 2)
    states = [get_peft_model_state_dict(model) for model in (one, two)]
    one.save_pretrained(tmp_path)
    save_file({key: (states[0][key] + states[1][key]) / 2 for key in states[0]}, tmp_path / WEIGHTS)
    torch.testing.assert_close(updates(PeftModel.from_pretrained(bert(), tmp_path)), updates(expected))

    foreign = get_peft_model_state_dict(get_peft_model(bert(), make(init_weights=False)))
    save_file({key: (states[0][key] + foreign[key]) / 2 for key in foreign}, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="identity were altered: adapters of different seeds or streams were averaged"):
        PeftModel.from_pretrained(bert(), tmp_path)


@every_config
@every_start
def test_to_empty_then_load(make, start, trained, bert, ids) -> None:
    """Memory is not initialised there: it may hold anything."""
    model = trained(make(init_weights=start))
    with torch.device("meta"):
        empty = get_peft_model(bert(), make(init_weights=start)).eval()
    empty.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*empty.parameters(), *empty.buffers()):
            tensor.fill_(7)
    empty.load_state_dict(model.state_dict())
    for mine, theirs in zip(empty.buffers(), model.buffers(), strict=True):  # BERT's positions, which are not saved
        mine.copy_(theirs)
    assert torch.equal(empty(ids).logits, model(ids).logits)


def add_reference(model, of: str) -> None:
    """An adapter of the same configuration, with the parameters of the other one alone, made active."""
    model.add_adapter("reference", model.peft_config[of])
    for name, parameter in model.named_parameters():
        if f".{of}." in name:
            model.get_parameter(name.replace(f".{of}.", ".reference.")).data.copy_(parameter.data)
    model.set_adapter("reference")


@every_config
@every_start
def test_parameters_copied_from_one_adapter_to_another(make, start, trained, ids) -> None:
    """As trainers make a frozen reference: a new adapter of the same configuration, and parameters alone."""
    model = trained(make(init_weights=start))
    expected = model(ids).logits
    add_reference(model, "default")
    assert torch.equal(model(ids).logits, expected)


@every_config
def test_a_reference_of_the_active_adapter(make, trained, ids) -> None:
    """Also where another one, of another stream, is first."""
    model = trained(make(init_weights=False))
    model.add_adapter("second", make(init_weights=False))
    for k, layer in enumerate(layers_of(model)):
        layer.delta("second").identify(replace(layer.delta("second").identity, stream=2000 + k))
    model.set_adapter("second")
    expected = model(ids).logits
    add_reference(model, "second")
    assert torch.equal(model(ids).logits, expected)


def test_adapters_that_are_alike_no_more_are_said(trained, bert, recwarn) -> None:
    """A reference that was added before the streams of a file are taken over is none any more."""
    make = CONFIGS["pooled"]
    numbers = get_peft_model_state_dict(trained(make()))
    model = get_peft_model(bert(), make())
    model.add_adapter("reference", make())
    with pytest.warns(UserWarning, match="'default' takes over streams .* that 'reference' beside it does not"):
        set_peft_model_state_dict(model, numbers)
    recwarn.clear()
    set_peft_model_state_dict(model, numbers)  # they are its own now
    set_peft_model_state_dict(get_peft_model(bert(), make()), numbers)
    alike = get_peft_model(bert(), make())
    alike.add_adapter("reference", make())
    set_peft_model_state_dict(alike, get_peft_model_state_dict(alike))
    assert not [w for w in recwarn if "takes over" in str(w.message)]


@every_config
@every_start
def test_identities_are_saved_though_nobody_gathers_them(make, start, trained, bert, ids, tmp_path) -> None:
    """As trainers do that shard parameters: the state dict they hand in holds parameters and buffers."""
    model = trained(make(init_weights=start))
    gathered = {name: tensor.detach() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    model.save_pretrained(tmp_path, state_dict=gathered)
    assert torch.equal(PeftModel.from_pretrained(bert(), tmp_path).eval()(ids).logits, model(ids).logits)
    assert get_peft_model_state_dict(model, state_dict={}) == {}  # of a process that gathers nothing


def test_numbers_alone_are_refused_and_what_they_lack_is_said(trained, bert, ids) -> None:
    model = get_peft_model(bert(), CONFIGS["pooled"]()).eval()
    expected = model(ids).logits
    numbers = {name: p for name, p in trained(CONFIGS["pooled"]()).named_parameters() if p.requires_grad}
    with pytest.raises(RuntimeError, match="the adapter's identity is expected.*parameters and buffers alone"):
        model.load_state_dict(numbers, strict=False)
    assert torch.equal(model(ids).logits, expected)


@every_config
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("through", ["PEFT", "load_state_dict"])
def test_numbers_bring_their_start_along(make, stored, through, trained, bert, ids, tmp_path) -> None:
    model = trained(make(init_weights=stored))
    other = get_peft_model(bert(), make(init_weights=not stored)).eval()
    if through == "PEFT":
        set_peft_model_state_dict(other, get_peft_model_state_dict(model))
        assert other.peft_config["default"].init_weights is stored
    else:
        other.load_state_dict(model.state_dict())
    assert torch.equal(other(ids).logits, model(ids).logits)
    other.save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(bert(), tmp_path).eval()(ids).logits, model(ids).logits)


@every_config
def test_a_refused_state_dict_changes_nothing(make, trained, bert, ids) -> None:
    """Not even what would have been taken over before the numbers turned out not to fit."""
    model = get_peft_model(bert(), make(init_weights=False)).eval()
    expected = model(ids).logits
    state = {key: value[:-1] if key.endswith("pool") else value for key, value in trained(make()).state_dict().items()}
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(state)
    assert torch.equal(model(ids).logits, expected)


@every_config
def test_two_random_adapters_of_one_configuration_differ(make, bert) -> None:
    model = get_peft_model(bert(), make(init_weights=False))
    for name in ("second", "third"):
        model.add_adapter(name, make(init_weights=False))
    for layer in layers_of(model):
        deltas = [layer.delta(name) for name in ("default", "second", "third")]
        frozen = deltas[0].num_fixed
        bound = deltas[0].numbers().abs().max()
        for k, one in enumerate(deltas):
            for other in deltas[:k]:
                assert (one.numbers()[frozen:] != other.numbers()[frozen:]).all()
                assert torch.equal(one.numbers()[:frozen], other.numbers()[:frozen])
                assert (one.dense() - other.dense()).norm() > 0.1 * one.dense().norm()
            assert 0.5 * bound < one.numbers().abs().max() < 2 * bound
            assert one.pool.requires_grad == (k == 0)  # the active one


@every_config
@every_start
def test_parameters_are_reset_to_where_training_started(make, start, bert) -> None:
    """As FSDP asks modules to that it has made on the meta device."""

    def two() -> PeftModel:
        model = get_peft_model(bert(), make(init_weights=start))
        model.add_adapter("second", make(init_weights=start))
        return model

    expected = two()
    with torch.device("meta"):
        model = two()
    for layer, other in zip(layers_of(model), layers_of(expected), strict=True):
        for name in ("default", "second"):
            delta = layer.delta(name)
            delta.to_empty(device="cpu", recurse=False)
            delta.pool.data.fill_(7)
            delta.reset_parameters()
            assert torch.equal(delta.numbers(), other.delta(name).numbers())


@every_config
@every_start
def test_files_of_the_first_version(make, start, trained, bert, ids, tmp_path) -> None:
    """They have int64 (seed, stream) where anything depends on it, and nothing where nothing does."""
    model = trained(make(init_weights=start))
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    old = {key: value for key, value in tensors.items() if key.endswith("pool")}
    if make is not CONFIGS["c3a"] or start is not True:
        for k in range(len(old)):
            key = sorted(old)[k]
            stream = next(
                layer.delta("default").identity.stream
                for name, layer in model.named_modules()
                if isinstance(layer, StructuneLayer) and key.startswith(f"{name}.")
            )
            tensors[key.replace("pool", "seed")] = torch.tensor([model.peft_config["default"].seed, stream])
    save_file({key: value for key, value in tensors.items() if not key.endswith("_extra_state")}, tmp_path / WEIGHTS)
    for low_cpu_mem_usage in (False, True):
        again = PeftModel.from_pretrained(bert(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage).eval()
        assert torch.equal(again(ids).logits, model(ids).logits)


@every_config
@every_start
def test_transformers_own_loader_takes_streams_and_starts_over(make, start, trained, bert, ids, tmp_path) -> None:
    model = trained(make(init_weights=start))
    model.save_pretrained(tmp_path)
    native = bert()
    native.load_adapter(str(tmp_path))
    assert torch.equal(native.eval()(ids).logits, model(ids).logits)


def test_a_structure_edited_in_the_configuration_is_noticed(trained, bert, tmp_path) -> None:
    """Toeplitz and Hankel blocks of one size have as many numbers."""
    trained(CONFIGS["pooled"]()).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(file.read_text().replace('"structure": "toeplitz"', '"structure": "hankel"'))
    with pytest.raises(ValueError, match="trained with another structure or in blocks of another size"):
        PeftModel.from_pretrained(bert(), tmp_path)


def test_a_reference_policy_of_trl(gpt2, randomise, tmp_path) -> None:
    """The trained adapter and its reference begin equal: the first loss of DPO is log 2."""
    words = ["<pad>", "</s>", *(f"w{n}" for n in range(48))]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    config = structune.hydra(
        "toeplitz", pool_size=30, target_modules=["c_attn"], task_type="CAUSAL_LM", init_weights=False
    )
    model = get_peft_model(gpt2(), config)
    restream(model)
    rows = [{"prompt": f"w{n}", "chosen": f" w{n + 1} w3", "rejected": " w9 w8"} for n in range(8)]
    trainer = DPOTrainer(
        randomise(model, std=0.1),
        args=DPOConfig(
            output_dir=str(tmp_path), max_steps=1, logging_steps=1, report_to="none", bf16=False, disable_tqdm=True
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(tokenizer.to_str()), pad_token="<pad>", eos_token="</s>"
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    assert set(model.peft_config) == {"default", "ref"}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4)
