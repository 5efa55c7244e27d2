"""A loop of one's own with Accelerate: prepare, backward, save_state, load_state."""

import torch
from accelerate import Accelerator
from peft import PeftModel, get_peft_model
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification

import structune

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 50}


def base_model() -> BertForSequenceClassification:
    """A small random model; in earnest, `from_pretrained`."""
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, hidden_dropout_prob=0.0))


config = structune.c3a(block_size=8, target_modules="all-linear", task_type="SEQ_CLS")
model = get_peft_model(base_model(), config)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)

tokens = torch.randint(0, 50, (128, 8))
loader = DataLoader(TensorDataset(tokens, (tokens[:, 0] < 25).long()), batch_size=32)

accelerator = Accelerator()
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)


def epoch() -> float:
    """One pass over the data; the mean loss."""
    total = 0.0
    for ids, labels in loader:
        loss = model(input_ids=ids, labels=labels).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
    return total / len(loader)


losses = [epoch() for _ in range(4)]

accelerator.save_state("state")  # numbers, optimizer, random states
first = [epoch() for _ in range(2)]
accelerator.load_state("state")
second = [epoch() for _ in range(2)]  # the same two epochs again

trained = accelerator.unwrap_model(model).eval()
trained.save_pretrained("adapter")
again = PeftModel.from_pretrained(base_model(), "adapter").eval()

print(f"loss {losses[0]:.3f} -> {first[-1]:.3f}, again after load_state {second[-1]:.3f}")
