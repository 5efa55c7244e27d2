"""Trainer with gradient checkpointing and resume, then the adapter in a bare transformers model, without a wrapper."""

import torch
from peft import get_peft_model
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import structune

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50}
LAYERS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


def base_model() -> BertForSequenceClassification:
    """A small random model; in earnest, `from_pretrained`."""
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES))


class FirstToken(Dataset):
    """Is the first token one of the lower half?"""

    def __init__(self) -> None:
        self.tokens = torch.randint(0, 50, (256, 8), generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[item], "labels": (self.tokens[item, 0] < 25).long()}


def trainer() -> Trainer:
    """A new model with a new adapter, and what trains it."""
    config = structune.c3a(block_size=8, target_modules=LAYERS, modules_to_save=["classifier"], task_type="SEQ_CLS")
    model = get_peft_model(base_model(), config)
    arguments = TrainingArguments(
        output_dir="runs",
        max_steps=40,
        save_steps=20,
        logging_steps=10,
        per_device_train_batch_size=32,
        learning_rate=0.02,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    return Trainer(model, arguments, train_dataset=FirstToken())


whole = trainer()
whole.train()
losses = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]

resumed = trainer()
resumed.train(resume_from_checkpoint="runs/checkpoint-20")  # steps 21 to 40, to the same numbers

model = whole.model.eval()
model.save_pretrained("adapter")

# The bare model's own methods: load_adapter, add_adapter, set_adapter, disable_adapters, delete_adapter.
bare = base_model().eval()
bare.load_adapter("adapter", "tokens")
pooled = structune.hydra("toeplitz", pool_size=24, target_modules=["query"], modules_to_save=["classifier"])
bare.add_adapter(pooled, "other")
bare.set_adapter("tokens")
bare.save_pretrained("again")  # the active adapter alone
again = base_model().eval()
again.load_adapter("again")

print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
