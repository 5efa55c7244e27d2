"""Supervised fine-tuning of a language model with TRL: a peft_config is all that SFTTrainer needs."""

import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

import structune

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}

# A small random model and its tokenizer in a folder; in earnest, the name of a pretrained one.
words = ["<pad>", "</s>", "question", "answer", "is", *(f"w{n}" for n in range(20))]
tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<pad>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")
tokenizer.save_pretrained("base")
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=len(words), pad_token_id=0, eos_token_id=1)).save_pretrained("base")

# Prompts and completions: the answer is the word of the question, moved on by one.
pairs = [{"prompt": f"question w{n}", "completion": f" answer is w{(n + 1) % 20}"} for n in range(20)]


def trainer() -> SFTTrainer:
    """A new model with a new adapter, and what trains it."""
    arguments = SFTConfig(
        output_dir="runs",
        max_steps=40,
        save_steps=20,
        logging_steps=10,
        per_device_train_batch_size=20,
        learning_rate=0.02,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
    config = structune.c3a(block_size=8, target_modules="all-linear", task_type="CAUSAL_LM")
    return SFTTrainer("base", arguments, train_dataset=Dataset.from_list(pairs), peft_config=config)


whole = trainer()
whole.train()
losses = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]

resumed = trainer()
resumed.train(resume_from_checkpoint="runs/checkpoint-20")  # steps 21 to 40, to the same numbers

whole.save_model("adapter")
model = whole.model.eval()
again = AutoPeftModelForCausalLM.from_pretrained("adapter").eval()

print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
