"""A sentence encoder: add_adapter on a SentenceTransformer, its trainer, save, load."""

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import structune

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

# A small random model and its tokenizer in a folder; in earnest, the name of a pretrained one.
words = ["[PAD]", "[CLS]", *(f"w{n}" for n in range(40))]
tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[PAD]"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 1)])
PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]").save_pretrained("base")
torch.manual_seed(0)
BertModel(BertConfig(**SIZES, vocab_size=len(words))).save_pretrained("base")


def base_model() -> SentenceTransformer:
    """Encoder and mean pooling."""
    encoder = Transformer("base")
    return SentenceTransformer(modules=[encoder, Pooling(encoder.get_embedding_dimension())])


# Word n of the first twenty means the same as word n + 20.
pairs = Dataset.from_dict(
    {"anchor": [f"w{n} w{n}" for n in range(20)], "positive": [f"w{n + 20} w{n + 20}" for n in range(20)]}
)

model = base_model()
model.add_adapter(structune.c3a(block_size=8, target_modules=["query", "value", "output.dense"]))
arguments = SentenceTransformerTrainingArguments(
    output_dir="runs",
    max_steps=40,
    logging_steps=10,
    per_device_train_batch_size=20,
    learning_rate=0.02,
    report_to="none",
    disable_tqdm=True,
    seed=0,
)
trainer = SentenceTransformerTrainer(model, arguments, pairs, loss=MultipleNegativesRankingLoss(model))
trainer.train()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

model.save_pretrained("adapted")
again = SentenceTransformer("adapted")

print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
