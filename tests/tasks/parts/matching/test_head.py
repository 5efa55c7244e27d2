"""Pretrained heads of several kinds of models, put to use for other classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    RegNetConfig,
    RegNetForImageClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.modeling_outputs import ImageClassifierOutput

from structune.errors import UserError
from structune.tasks.parts.matching.head import MatchedBase, SourceHead, count_answers
from structune.tasks.parts.matching.matching import Matching
from structune.tasks.task import Base

OUTPUTS, TARGETS = 7, ["a", "b", "c"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
IMAGES = {"image_size": 8, "patch_size": 4, "num_labels": OUTPUTS, **SIZES}


def vit() -> Any:
    return ViTForImageClassification(ViTConfig(**IMAGES))


def deit() -> Any:
    """Two heads, whose mean is the output."""
    return DeiTForImageClassificationWithTeacher(DeiTConfig(**IMAGES))


def convnext() -> Any:
    config = ConvNextConfig(num_labels=OUTPUTS, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], patch_size=1)
    return ConvNextForImageClassification(config)


def regnet() -> Any:
    """The head is in a sequence, and there are batch norms."""
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "groups_width": 8}
    return RegNetForImageClassification(RegNetConfig(num_labels=OUTPUTS, **sizes))


def roberta() -> Any:
    """A head of two layers with a tanh between them."""
    config = RobertaConfig(num_labels=OUTPUTS, vocab_size=30, max_position_embeddings=20, **SIZES)
    return RobertaForSequenceClassification(config)


class Convolved(nn.Module):
    """A head that is a 1×1 convolution without a bias, under a backbone."""

    base_model_prefix = "backbone"

    def __init__(self) -> None:
        super().__init__()
        self.config = ViTConfig(num_labels=OUTPUTS)
        self.backbone = nn.Conv2d(3, 6, 8)
        self.classifier = nn.Conv2d(6, OUTPUTS, 1, bias=False)

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        return ImageClassifierOutput(logits=self.classifier(self.backbone(pixel_values)).flatten(1))


class Squared(Convolved):
    """Outputs that are not linear in what the last layer reads."""

    def forward(self, pixel_values: Tensor) -> ImageClassifierOutput:
        return ImageClassifierOutput(logits=super().forward(pixel_values).logits ** 2)


class Headless(Convolved):
    """No layer has as many outputs as the model."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(6, OUTPUTS, 3)


def examples(model: Any, count: int = 90) -> list[dict[str, Any]]:
    """Random inputs, each with a class in turn."""
    numbers = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % len(TARGETS)
    if isinstance(model, RobertaForSequenceClassification):
        inputs, name = torch.randint(3, 30, (count, 9), generator=numbers), "input_ids"
    else:
        inputs, name = 3 * torch.randn(count, 3, 8, 8, generator=numbers), "pixel_values"
    return [{name: row, "labels": label} for row, label in zip(inputs, labels, strict=True)]


def collate(rows: list[Any]) -> dict[str, Tensor]:
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def base_of(make: Any, how: Any = "match") -> MatchedBase:
    torch.manual_seed(0)
    model = make()
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(layer.weight)
            if layer.bias is not None:
                nn.init.normal_(layer.bias)
    return MatchedBase.of(Base(model.train(), None), "tiny", TARGETS, how)


def logits_of(model: Any, rows: list[Any]) -> Tensor:
    batch = collate(rows)
    batch.pop("labels")
    with torch.inference_mode():
        return model.eval()(**batch).logits


@pytest.mark.parametrize("how", ["match", "bayes"])
@pytest.mark.parametrize("make", [vit, deit, convnext, regnet, roberta, Convolved], ids=lambda make: make.__name__)
def test_the_matched_model_gives_the_mapped_logits(make: Any, how: Any) -> None:
    base = base_of(make, how)
    rows = examples(base.model)
    matching = base.find(how, rows, collate, "cpu")
    assert base.model.training  # as it was
    before = logits_of(base.model, rows)
    counts = np.zeros((len(TARGETS), OUTPUTS), int)
    for logits, row in zip(before, rows, strict=True):
        counts[int(row["labels"]), int(logits.argmax())] += 1
    assert np.array_equal(matching.counts, counts) and counts.any(0).sum() >= 3
    base.use(matching)
    after = logits_of(base.model, rows)
    torch.testing.assert_close(after, (before.double() @ torch.from_numpy(matching.weights).T).float())
    assert after.shape == (90, 3) and base.model.config.num_labels == 3
    assert base.model.config.label2id == {"a": 0, "b": 1, "c": 2}
    assert base.prepared == matching.to_json()
    heads = {name for name, parameter in base.model.named_parameters() if not parameter.requires_grad}
    assert {name.rpartition(".")[0] for name in heads} == set(base.frozen)


def test_the_pretrained_head_comes_back_and_goes() -> None:
    base = base_of(vit)
    rows = examples(base.model)
    first = base.find("match", rows, collate, "cpu")
    before = logits_of(base.model, rows)
    base.use(first)
    matched = logits_of(base.model, rows)
    with base.source.back(base.model, first.weights):
        assert torch.equal(logits_of(base.model, rows), before)
    assert torch.equal(logits_of(base.model, rows), matched)
    other = np.roll(first.weights, 1, axis=1)
    base.use(Matching("match", first.counts, other, base.source.names, 1))
    torch.testing.assert_close(logits_of(base.model, rows), before[:, other.argmax(1)])


def test_both_heads_of_a_distilled_model_are_matched_and_one_in_a_sequence() -> None:
    assert base_of(deit).frozen == ["cls_classifier", "distillation_classifier"]
    assert base_of(regnet).frozen == ["classifier.1"]
    assert base_of(roberta).frozen == ["classifier.out_proj"]


def test_counting_draws_no_random_numbers_and_leaves_every_mode() -> None:
    base = base_of(regnet)
    norms = [module for module in base.model.modules() if isinstance(module, nn.BatchNorm2d)]
    norms[0].eval()
    modes = [module.training for module in base.model.modules()]
    kept = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    state = torch.random.get_rng_state()
    count_answers(base.model, examples(base.model), collate, len(TARGETS), OUTPUTS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in base.model.modules()] == modes
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, kept, strict=True))


def test_outputs_that_no_linear_layer_gives() -> None:
    base = base_of(Squared, "bayes")
    with pytest.raises(UserError, match="the outputs of Squared are not those of classifier alone, so they cannot"):
        base.find("bayes", examples(base.model), collate, "cpu")
    with pytest.raises(UserError, match="no linear layer of Headless gives its 7 outputs"):
        SourceHead.of(Headless(), "tiny")


def test_a_broken_model_is_not_matched() -> None:
    base = base_of(vit)
    nn.init.constant_(base.model.classifier.bias, float("nan"))
    with pytest.raises(UserError, match="the pretrained model's outputs are not finite"):
        base.find("match", examples(base.model), collate, "cpu")


def test_too_few_outputs_are_told_before_anything_is_run() -> None:
    with pytest.raises(UserError, match="9 classes, but the pretrained head has 7 outputs"):
        MatchedBase.of(Base(vit(), None), "tiny", list("abcdefghi"), "match")
    assert MatchedBase.of(Base(vit(), None), "tiny", list("abcdefghi"), "bayes").targets == list("abcdefghi")
