"""One pool for several matrices of a model: trained once, saved once, the same wherever it is loaded."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import structune
from structune import convert
from structune.identity import Identity
from structune.peft import StructuneLayer
from structune.peft.pool_scope import group_of

BERT = ["query", "value", "intermediate.dense"]
WEIGHTS = "adapter_model.safetensors"


def of_model(**changes: Any) -> structune.StructuneConfig:
    return structune.hydra(
        **{"structure": "toeplitz", "pool_size": 13, "pool_scope": "model", "target_modules": BERT} | changes
    )


SCOPES: dict[str, tuple[Any, int]] = {
    "model": ("model", 1),
    "module": ("module", 3),
    "groups": ({"attention": "query|value", "others": "dense"}, 2),
    "a group and matrices alone": ({"attention": "query|value"}, 3),
    "matrix": ("matrix", 6),
}
"""How many pools that makes of the six matrices."""

every_scope = pytest.mark.parametrize("scope", SCOPES)


def layers(model: nn.Module) -> dict[str, StructuneLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, StructuneLayer)}


def pools(model: nn.Module, adapter: str = "default") -> list[nn.Parameter]:
    return [layer.delta(adapter).pool for layer in layers(model).values()]


def updates(model: nn.Module, adapter: str = "default") -> list[Tensor]:
    return [layer.get_delta_weight(adapter).detach() for layer in layers(model).values()]


def same_updates(one: nn.Module, other: nn.Module, adapter: str = "default") -> bool:
    pairs = zip(updates(one), updates(other, adapter), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@every_scope
def test_how_many_pools_there_are(scope, bert, ids) -> None:
    """13 numbers each, trained as one parameter by whatever goes over the parameters."""
    value, expected = SCOPES[scope]
    model = get_peft_model(bert(), of_model(pool_scope=value))
    assert len(layers(model)) == 6
    assert len({id(pool) for pool in pools(model)}) == expected
    assert model.get_nb_trainable_parameters()[0] == 13 * expected
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 13 * expected
    before = updates(model)
    assert not any(update.any() for update in before)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(input_ids=ids).logits.square().sum().backward()
    assert all(pool.grad.any() for pool in pools(model))
    optimizer.step()
    assert all(update.any() for update in updates(model))


def test_thirteen_numbers_in_all(bert, capsys) -> None:
    model = get_peft_model(
        bert(), structune.hydra(structure="toeplitz", pool_size=13, pool_scope="model", target_modules=BERT)
    )
    model.print_trainable_parameters()
    assert "trainable params: 13 ||" in capsys.readouterr().out


def test_who_shares() -> None:
    name = "encoder.layer.3.attention.query"
    assert group_of("matrix", name) is None
    assert group_of("module", name) == ("module", "query")
    assert group_of("module", "query") == ("module", "query")
    assert group_of("model", name) == group_of("model", "anything") == ("model", "")
    groups = {"first": r"layer\.0\..*", "attention": "attention.query|value", "all queries": "query"}
    assert group_of(groups, name) == ("groups", "attention")
    assert group_of(groups, "encoder.layer.0.attention.query") == ("groups", "first")
    assert group_of(groups, "decoder.query") == ("groups", "all queries")
    assert group_of(groups, "decoder.key") is None


@every_scope
def test_the_pool_is_used_evenly(scope, bert) -> None:
    model = get_peft_model(bert(), of_model(pool_scope=SCOPES[scope][0], pool_map="index"))
    read: dict[int, list[Tensor]] = {}
    for layer in layers(model).values():
        read.setdefault(id(layer.delta("default").pool), []).append(layer.delta("default").index.flatten())
    for index in read.values():
        uses = torch.cat(index).bincount(minlength=13)
        assert uses.max() - uses.min() <= 1


# ---- files


@every_scope
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_the_file_holds_the_pool_once(scope, low_cpu_mem_usage, bert, ids, randomise, tmp_path) -> None:
    value, expected = SCOPES[scope]
    model = randomise(get_peft_model(bert(), of_model(pool_scope=value))).eval()
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    assert sum(tensor.numel() for key, tensor in state.items() if key.endswith(".pool")) == 13 * expected
    assert sum(key.endswith("._extra_state") for key in state) == 6
    loaded = PeftModel.from_pretrained(bert(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage, is_trainable=True).eval()
    assert same_updates(model, loaded)
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    assert loaded.get_nb_trainable_parameters()[0] == 13 * expected
    loaded(input_ids=ids).logits.sum().backward()
    assert all(pool.grad is not None for pool in pools(loaded))
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / WEIGHTS).read_bytes()


@every_scope
def test_wherever_in_the_file(scope, bert, randomise, tmp_path) -> None:
    """Another place in the file, all places, another stream and other offsets in the model: the same updates."""
    model = randomise(get_peft_model(bert(), of_model(pool_scope=SCOPES[scope][0])))
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    kept = {key: value for key, value in model.state_dict().items() if key.endswith(".pool")}
    last = {id(model.get_parameter(key)): key for key in kept}
    elsewhere = {key: value for key, value in state.items() if not key.endswith(".pool")}
    elsewhere |= {key.replace(".default", ""): kept[key] for key in last.values()}
    all_places = state | {key.replace(".default", ""): value.clone() for key, value in kept.items()}
    for other in (elsewhere, all_places):
        save_file(other, tmp_path / WEIGHTS)
        assert same_updates(model, PeftModel.from_pretrained(bert(), tmp_path))


def test_names_and_order_do_not_matter(randomise) -> None:
    class Model(nn.Module):
        def __init__(self, names: str) -> None:
            super().__init__()
            for name in names:
                setattr(self, name, nn.Linear(6, 6 + ord(name) % 3))

    one = randomise(get_peft_model(Model("abcd"), of_model(target_modules=list("abcd"), num_splits=2)))
    other = get_peft_model(Model("dbca"), of_model(target_modules=list("abcd"), num_splits=2))
    assert one.base_model.model.a.delta("default").identity != other.base_model.model.a.delta("default").identity
    set_peft_model_state_dict(other, get_peft_model_state_dict(one))
    for name in "abcd":
        mine, theirs = (model.base_model.model.get_submodule(name).delta("default") for model in (one, other))
        assert torch.equal(mine.dense(), theirs.dense())
        assert mine.dense().any()


def test_pools_that_are_not_one_are_refused(bert, randomise, tmp_path) -> None:
    model = randomise(get_peft_model(bert(), of_model()))
    state = model.state_dict()
    moved = [key for key in state if key.endswith("pool")][3]
    state[moved] = state[moved] + 1
    with pytest.raises(ValueError, match="hold different numbers, but are one pool"):
        get_peft_model_state_dict(model, state_dict=state)
    everywhere = {key.replace(".default", ""): value for key, value in state.items() if ".structune_" in key}
    with pytest.raises(ValueError, match="hold different numbers, but are one pool"):
        set_peft_model_state_dict(model, everywhere)
    with pytest.raises(RuntimeError, match="differ in the checkpoint, but are one pool here"):
        model.load_state_dict(state)


@pytest.mark.parametrize("trained", SCOPES)
@pytest.mark.parametrize("configured", SCOPES)
def test_scopes_are_not_mistaken(trained, configured, bert, randomise, tmp_path) -> None:
    """However the numbers come: as a file of PEFT's, or as the model's state dict."""
    if trained == configured:
        return
    source = randomise(get_peft_model(bert(), of_model(pool_scope=SCOPES[trained][0])))
    model = get_peft_model(bert(), of_model(pool_scope=SCOPES[configured][0]))
    before = [pool.clone() for pool in pools(model)]
    with pytest.raises(ValueError, match="pool_scope|of the .* tensors of adapter"):
        set_peft_model_state_dict(model, get_peft_model_state_dict(source))
    assert all(torch.equal(pool, was) for pool, was in zip(pools(model), before, strict=True))
    with pytest.raises(RuntimeError, match="pool_scope"):
        model.load_state_dict(source.state_dict())


def test_a_file_without_the_pool(bert, randomise, tmp_path) -> None:
    model = randomise(get_peft_model(bert(), of_model()))
    state = {key: value for key, value in get_peft_model_state_dict(model).items() if not key.endswith("pool")}
    with pytest.raises(ValueError, match="lacks 6 of the 12 tensors"):
        set_peft_model_state_dict(model, state)


def test_what_two_shared_is_not_shared_by_chance(bert, randomise) -> None:
    """A file with one more pool than the model has, and the other way round."""
    halves = {"low": r"layer\.0\..*", "high": r"layer\.1\..*"}
    everything = {"all": ".*"}
    for trained, configured, said in (
        (halves, everything, "share one pool here, and did not where the adapter was trained"),
        (everything, halves, "shared one pool where the adapter was trained, and do not here"),
    ):
        source = randomise(get_peft_model(bert(), of_model(pool_scope=trained)))
        model = get_peft_model(bert(), of_model(pool_scope=configured))
        with pytest.raises(ValueError, match=said):
            set_peft_model_state_dict(model, get_peft_model_state_dict(source))


# ---- the configuration


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pool_scope": "layer"}, "pool_scope='layer' must be 'matrix', 'module', 'model' or a dictionary"),
        ({"pool_scope": {}}, "pool_scope={} must be"),
        ({"pool_scope": {"a": "("}}, r"pool_scope\['a'\]='\(' is no regular expression"),
        ({"pool_scope": {"a": 3}}, "must map"),
        ({"pool_size": None}, "pool_scope='model' shares a pool among matrices: give its pool_size"),
    ],
)
def test_options_that_do_not_go(changes, said) -> None:
    with pytest.raises(ValueError, match=said):
        of_model(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pool_size": 10**12}, "pool_size=1000000000000 is more than the"),
        (
            {"pool_size": 4000},
            r"pool_size=4000 is more than the 1568 numbers that all 6 matrices of pool_scope='model'",
        ),
        ({"pool_size_pattern": {"query": 7}}, r"value: pool_size is 13 here and 7 in other matrices that share the"),
        (
            {"fixed_ratio_pattern": {"value": 0.5}},
            r"the number of frozen ones \(fixed_ratio\) is 7 here and 0 in other",
        ),
    ],
)
def test_options_that_the_model_does_not_allow(changes, said, bert) -> None:
    """One error, and the model is as it was."""
    model = bert()
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(ValueError, match=said):
        get_peft_model(model, of_model(**changes))
    assert {name: type(module) for name, module in model.named_modules()} == before


def test_a_group_of_nothing_is_told(bert) -> None:
    with pytest.warns(UserWarning, match=r"pool_scope: 'nothing' shares a pool among no adapted module"):
        get_peft_model(bert(), of_model(pool_scope={"attention": "query|value", "nothing": "keys"}))


def test_the_configuration_travels(tmp_path) -> None:
    for scope in ("model", {"attention": "query|value"}):
        config = of_model(pool_scope=scope)
        config.save_pretrained(tmp_path)
        assert structune.StructuneConfig.from_pretrained(tmp_path).pool_scope == scope
    assert structune.StructuneConfig(block_size=4).pool_scope == "matrix"


# ---- several adapters


@every_scope
@pytest.mark.parametrize("init_weights", [True, False])
def test_copies_of_the_parameters_are_the_same_adapter(scope, init_weights, bert, randomise, ids) -> None:
    """As TRL makes a frozen reference: by name of each parameter."""
    model = randomise(get_peft_model(bert(), of_model(pool_scope=SCOPES[scope][0], init_weights=init_weights)))
    model.add_adapter("ref", of_model(pool_scope=SCOPES[scope][0], init_weights=init_weights))
    for name, parameter in model.named_parameters():
        if ".default" in name:
            model.get_parameter(name.replace(".default", ".ref")).data.copy_(parameter.data)
    assert same_updates(model, model, "ref")
    assert not {id(p) for p in pools(model)} & {id(p) for p in pools(model, "ref")}


def test_a_copy_of_a_loaded_adapter(bert, randomise, tmp_path) -> None:
    """Whatever the sequences that it was trained with are called here."""
    source = get_peft_model(bert(), of_model())
    for layer in layers(source).values():
        delta = layer.delta("default")
        delta.share_as(Identity.from_digits(delta.get_extra_state()).share.__class__("model", 77, 1000))
    randomise(source).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(bert(), tmp_path)
    model.add_adapter("ref", of_model())
    model.get_parameter(next(n for n, _ in model.named_parameters() if n.endswith("ref.pool"))).data.copy_(
        pools(model)[0].data
    )
    assert same_updates(source, model, "ref")


def test_adapters_come_and_go(bert, randomise, ids, tmp_path) -> None:
    model = randomise(get_peft_model(bert(), of_model())).eval()
    expected = model(input_ids=ids).logits
    model.add_adapter("other", of_model(pool_scope="module", pool_size=9))
    model.set_adapter("other")
    assert model.get_nb_trainable_parameters()[0] == 27
    model.set_adapter("default")
    assert model.get_nb_trainable_parameters()[0] == 13
    assert torch.equal(model(input_ids=ids).logits, expected)
    model.save_pretrained(tmp_path)
    assert same_updates(model, PeftModel.from_pretrained(bert(), tmp_path / ""))
    model.delete_adapter("other")
    model.add_adapter("other", of_model(seed=4))
    assert len({id(pool) for pool in pools(model, "other")}) == 1
    assert torch.equal(model(input_ids=ids).logits, expected)
    held = layers(model)
    deltas = [layer.delta("default") for layer in held.values()]
    model.delete_adapter("default")
    model.add_adapter("default", of_model(pool_size=7))
    assert pools(model)[0].numel() == 7
    assert all(delta.pool.numel() == 13 for delta in deltas)


def test_beside_other_methods(bert, randomise, ids) -> None:
    """In PEFT's mixed models, too, a pool is one, forgotten with its adapter, and no larger than what reads it."""
    model = get_peft_model(bert(), of_model(), mixed=True)
    model.add_adapter("lora", LoraConfig(target_modules=["query"]))
    model.set_adapter(["default", "lora"])
    randomise(model)
    adapted = [layer for layer in layers(model).values() if "default" in layer.structune_delta]
    assert len(adapted) == 6
    assert len({id(layer.delta("default").pool) for layer in adapted}) == 1
    with pytest.raises(ValueError, match="pool_size=4000 is more than the 1568 numbers that all 6 matrices"):
        model.add_adapter("large", of_model(pool_size=4000))
    assert not any("large" in layer.structune_delta for layer in layers(model).values())
    held = [layer.delta("default") for layer in adapted]
    model.delete_adapter("default")
    model.add_adapter("default", of_model(pool_size=7))
    assert [delta.pool.numel() for delta in held] == [13] * 6
    again = [layer.delta("default") for layer in layers(model).values() if "default" in layer.structune_delta]
    assert [delta.pool.numel() for delta in again] == [7] * 6
    assert len({id(delta.pool) for delta in again}) == 1


def test_mixed_batches(bert, randomise, ids) -> None:
    model = get_peft_model(bert(), of_model())
    model.add_adapter("other", of_model(pool_scope="module", seed=3))
    model.set_adapter("other")
    randomise(model, seed=1)
    model.set_adapter("default")
    randomise(model, seed=2).eval()
    batch = torch.cat((ids, ids))
    mixed = model(input_ids=batch, adapter_names=["default", "other", "__base__", "default"]).logits
    for k, name in enumerate(("default", "other")):
        model.set_adapter(name)
        torch.testing.assert_close(mixed[k], model(input_ids=batch).logits[k])


@pytest.mark.parametrize("pool_map", ["signed", "projection"])
def test_however_numbers_reach_the_blocks(pool_map, bert, randomise, tmp_path) -> None:
    """Each matrix has a map of its own; copies and files have the same one."""
    model = randomise(get_peft_model(bert(), of_model(pool_map=pool_map, target_modules=["query", "value"])))
    assert len({tuple(update.flatten()[:6].tolist()) for update in updates(model)}) == 4
    model.save_pretrained(tmp_path)
    assert same_updates(model, PeftModel.from_pretrained(bert(), tmp_path))
    model.add_adapter("ref", of_model(pool_map=pool_map, target_modules=["query", "value"]))
    pools(model, "ref")[0].data.copy_(pools(model)[0].data)
    assert same_updates(model, model, "ref")
    other = "projection" if pool_map == "signed" else "signed"
    with pytest.raises(ValueError, match=f"trained with pool_map={pool_map!r}"):
        set_peft_model_state_dict(
            get_peft_model(bert(), of_model(pool_map=other, target_modules=["query", "value"])),
            get_peft_model_state_dict(model),
        )


@every_scope
@pytest.mark.parametrize("family", ["circulant", "cauchy_like"])
def test_merge_and_unmerge(scope, family, bert, randomise, ids) -> None:
    """What is merged stays as it was when the pool moves on, in all layers."""
    config = of_model(pool_scope=SCOPES[scope][0], structure=family, fixed_ratio=0.3)
    model = randomise(get_peft_model(bert(), config)).eval()
    base = {name: layer.get_base_weight().clone() for name, layer in layers(model).items()}
    expected, updated = model(input_ids=ids).logits, updates(model)
    model.merge_adapter()
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
    for layer in layers(model).values():
        delta = layer.delta("default")
        delta.pool = nn.Parameter(torch.zeros_like(delta.pool))
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
    for layer, was in zip(layers(model).values(), updated, strict=True):
        assert torch.equal(layer.to_weight_layout(layer.merged_deltas["default"].dense()), was)
    model.unmerge_adapter()
    assert all(torch.equal(layer.get_base_weight(), base[name]) for name, layer in layers(model).items())
    assert not any(update.any() for update in updates(model))
    randomise(model)
    expected = model(input_ids=ids).logits
    torch.testing.assert_close(model.merge_and_unload()(input_ids=ids).logits, expected)


# ---- what hosts do


CHANGES = {
    "half": lambda m: m.half().float(),
    "bfloat16": lambda m: m.bfloat16().float(),
    "copied": copy.deepcopy,
    "frozen and thawed": lambda m: m.requires_grad_(False).requires_grad_(True),
    "assigned": lambda m: m.load_state_dict(m.state_dict(), assign=True),
    "strictly loaded": lambda m: m.load_state_dict(copy.deepcopy(m.state_dict()), strict=True),
    "adapter off and on": lambda m: (m.base_model.disable_adapter_layers(), m.base_model.enable_adapter_layers()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_stays_one_pool(change, bert, randomise, ids) -> None:
    model = randomise(get_peft_model(bert(), of_model()), std=1.0)
    changed = CHANGES[change](model)
    model = changed if isinstance(changed, PeftModel) else model
    assert len({id(pool) for pool in pools(model)}) == 1
    model(input_ids=ids).logits.square().sum().backward()
    assert pools(model)[0].grad.any()
    assert len({id(layer.delta("default").shared_pool) for layer in layers(model).values()}) == 1


def test_meta_and_back(bert, randomise, ids) -> None:
    source = randomise(get_peft_model(bert(), of_model()))
    with torch.device("meta"):
        model = get_peft_model(bert(), of_model())
    model.to_empty(device="cpu")
    model.load_state_dict(source.state_dict())
    assert len({id(pool) for pool in pools(model)}) == 1
    assert same_updates(source, model)


def test_averages(bert, randomise, ids) -> None:
    """EMA, SWA and the mean of clients, tensor by tensor."""
    model = randomise(get_peft_model(bert(), of_model()))
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5), use_buffers=True
    )
    first = pools(model)[0].detach().clone()
    averaged.update_parameters(model)
    with torch.no_grad():
        pools(model)[0].add_(1)
    averaged.update_parameters(model)
    assert len({id(pool) for pool in pools(averaged.module)}) == 1
    torch.testing.assert_close(pools(averaged.module)[0], first + 0.5)
    states = [get_peft_model_state_dict(m) for m in (model, averaged.module)]
    mean = {key: (states[0][key] + states[1][key]) / 2 for key in states[0]}
    set_peft_model_state_dict(model, mean)
    torch.testing.assert_close(pools(model)[0], first + 0.75)


def test_without_the_wrapper(bert, randomise, ids, tmp_path) -> None:
    model = inject_adapter_in_model(of_model(), bert())
    randomise(model).eval()
    structune.save_adapter(model, tmp_path / "adapter")
    state = load_file(tmp_path / "adapter" / WEIGHTS)
    assert sum(tensor.numel() for key, tensor in state.items() if key.endswith(".pool")) == 13
    loaded = bert().eval()
    structune.load_adapter(loaded, tmp_path / "adapter")
    assert len({id(pool) for pool in pools(loaded)}) == 1
    assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    assert torch.equal(
        PeftModel.from_pretrained(bert(), tmp_path / "adapter").eval()(input_ids=ids).logits,
        model(input_ids=ids).logits,
    )


def test_hotswap(bert, randomise, ids, tmp_path) -> None:
    model = randomise(get_peft_model(bert(), of_model()), seed=1).eval()
    model.save_pretrained(tmp_path / "one")
    expected = model(input_ids=ids).logits
    model = randomise(get_peft_model(bert(), of_model()), seed=2).eval()
    pool = pools(model)[0]
    structune.hotswap_adapter(model, tmp_path / "one")
    assert all(other is pool for other in pools(model))
    assert torch.equal(model(input_ids=ids).logits, expected)
    randomise(get_peft_model(bert(), of_model(pool_scope="module"))).save_pretrained(tmp_path / "two")
    with pytest.raises(ValueError, match="pool_scope='module', but adapter 'default' has 'model'"):
        structune.hotswap_adapter(model, tmp_path / "two")


def test_a_failed_load_leaves_it_one_pool(bert, randomise, tmp_path) -> None:
    model = randomise(get_peft_model(bert(), of_model()))
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    state[next(key for key in state if key.endswith("pool"))][2] = float("nan")
    save_file(state, tmp_path / WEIGHTS)
    before = updates(model)
    with pytest.raises(ValueError, match="NaN"):
        model.load_adapter(tmp_path, "other")
    with pytest.raises(ValueError, match="NaN"):
        PeftModel.from_pretrained(bert(), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(updates(model), before, strict=True))
    assert len({id(pool) for pool in pools(model)}) == 1


class Parts(nn.Module):
    """Layers of every type, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.conv = nn.Conv1d(8, 6, 3, padding=1)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.experts = Experts()
        self.head = nn.Linear(5, 4)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, tokens) to (batch, tokens, 4)."""
        x = self.conv(self.words(ids).mT).mT
        x = self.attention(x, x, x)[0]
        return self.head(torch.tanh(self.experts(x)))


class Experts(nn.Module):
    """A stack of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 5, 6) / 3)

    def forward(self, x: Tensor) -> Tensor:
        """(…, 6) to (…, 5)."""
        return torch.einsum("eoi,bti->bto", self.up, x)


@pytest.mark.parametrize("family", ["toeplitz", "vandermonde"])
def test_layers_of_every_type_share(family, randomise, tmp_path) -> None:
    torch.manual_seed(0)
    base = Parts().eval()
    config = of_model(
        structure=family,
        num_splits=2,
        target_modules=["words", "conv", "attention", "head"],
        target_parameters=["experts.up"],
    )
    model = randomise(get_peft_model(copy.deepcopy(base), config), std=0.5)
    assert len(layers(model)) == 6  # attention has two
    assert len({id(pool) for pool in pools(model)}) == 1
    assert model.get_nb_trainable_parameters()[0] == 13
    ids = torch.randint(0, 11, (2, 5))
    model(ids).square().sum().backward()
    total = pools(model)[0].grad.clone()
    apart = torch.zeros_like(total)
    for name in layers(model):  # each with a pool of its own for once
        model.zero_grad()
        delta = layers(model)[name].delta("default")
        shared, delta.shared_pool, numbers = delta.shared_pool, None, delta.pool
        delta.pool = nn.Parameter(numbers.detach().clone())
        model(ids).square().sum().backward()
        apart += delta.pool.grad
        delta.pool, delta.shared_pool = numbers, shared
    torch.testing.assert_close(total, apart, rtol=1e-3, atol=1e-4)
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    assert sum(tensor.numel() for key, tensor in state.items() if key.endswith(".pool")) == 13
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert same_updates(model, loaded)
    torch.testing.assert_close(loaded(ids), model(ids))
    torch.testing.assert_close(loaded.merge_and_unload()(ids), model(ids), rtol=1e-4, atol=1e-4)


# ---- sums and conversion


@every_scope
def test_sums(scope, bert, randomise, ids, tmp_path) -> None:
    """One pool again where all its matrices are weighed alike; else numbers of each block's own."""
    config = of_model(pool_scope=SCOPES[scope][0], pool_map="index")
    model = get_peft_model(bert(), config)
    model.add_adapter("second", config)
    for seed, name in enumerate(("default", "second")):
        model.set_adapter(name)
        randomise(model, seed=seed)
    weights = {"default": 0.5, "second": -2.0}
    expected = [sum(w * layer.get_delta_weight(a) for a, w in weights.items()) for layer in layers(model).values()]
    model.base_model.add_weighted_adapter(list(weights), list(weights.values()), "sum")
    for found, total in zip(updates(model, "sum"), expected, strict=True):
        torch.testing.assert_close(found, total.detach(), rtol=1e-4, atol=1e-5)
        assert found.any()
    assert len({id(pool) for pool in pools(model, "sum")}) == SCOPES[scope][1]
    model.set_adapter("sum")
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    assert same_updates(PeftModel.from_pretrained(bert(), tmp_path / "sum"), model, "sum")
    first = next(iter(layers(model).values()))
    first.set_scale("second", 3.0)
    expected = [sum(w * layer.get_delta_weight(a) for a, w in weights.items()) for layer in layers(model).values()]
    model.base_model.add_weighted_adapter(list(weights), list(weights.values()), "other")
    for found, total in zip(updates(model, "other"), expected, strict=True):
        torch.testing.assert_close(found, total.detach(), rtol=1e-4, atol=1e-5)


@every_scope
def test_from_lora(scope, bert, randomise) -> None:
    """The error of all matrices that share a pool, together, is orthogonal to every direction of the pool."""
    theirs = randomise(get_peft_model(bert(), LoraConfig(r=4, target_modules=BERT)))
    options = {"structure": "toeplitz", "num_splits": 2, "pool_size": 13, "pool_map": "index"}
    converted = convert.from_lora(theirs, pool_scope=SCOPES[scope][0], **options)
    ours = converted.load_into(bert())
    assert len({id(pool) for pool in pools(ours)}) == SCOPES[scope][1]
    products: list[Tensor] = []
    size = left = all_of_it = 0.0
    for name, layer in layers(ours).items():
        target = theirs.get_submodule(name).get_delta_weight("default").detach()
        found = layer.get_delta_weight("default")
        difference = (target - found).detach()
        key = name.removeprefix("base_model.model.")
        assert converted.errors[key] == pytest.approx(float(difference.norm() / target.norm()), rel=1e-4)
        products.append((found * difference).sum())
        size = max(size, float(target.norm()))
        left, all_of_it = left + difference.square().sum(), all_of_it + target.detach().square().sum()
    slopes = torch.autograd.grad(torch.stack(products).sum(), list({id(p): p for p in pools(ours)}.values()))
    assert left < 0.999 * all_of_it
    assert all(slope.abs().max() < 1e-3 * size for slope in slopes)


def test_to_lora(bert, randomise) -> None:
    model = randomise(get_peft_model(bert(), of_model(structure="low_rank", rank=2, num_splits=1)), std=1.0)
    theirs = convert.to_lora(model).load_into(bert())
    for name, layer in layers(model).items():
        found = theirs.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(found, layer.get_delta_weight("default"), rtol=1e-4, atol=1e-5)
