"""From a table to predictions in Python, cell by cell: editors and Jupyter (with jupytext) open this as a notebook."""

# %% A small random model and a few reviews. In earnest, `model` is an id on the hub, and the table your own.
import csv
import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from structune.finetune import Predictor, Recipe, Run, train

GOOD, BAD, OTHER = ["good", "kind", "hot"], ["bad", "rude", "cold"], ["the", "soup", "and", "waiter", "was"]


def base_model(folder: str) -> str:
    """A random BERT with a vocabulary of a few words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD, *BAD, *OTHER]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **special).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            initializer_range=0.2,
        )
    ).save_pretrained(folder)
    return folder


model = base_model("model")
random.seed(0)
with open("reviews.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["review", "verdict"])
    for number in range(120):
        words = random.choices(BAD if number % 2 else GOOD, k=3) + random.choices(OTHER, k=4)
        random.shuffle(words)
        table.writerow([" ".join(words), "bad" if number % 2 else "good"])

# %% A recipe says everything. A mapping with the same keys as in YAML does as well.
recipe = Recipe(
    name="reviews",
    model={"name": model},
    data={"train": "reviews.csv", "text": "review", "label": "verdict"},
    method={"name": "hydra", "structure": "toeplitz", "pool_size": 48},
    train={
        "epochs": 20, "batch_size": 16, "learning_rate": 0.02, "head_learning_rate": 0.02,
        "early_stopping": 6, "best_checkpoint": True,
    },
)  # fmt: skip

# %% Train. Give `console=rich.console.Console()` to watch; `resume=True` goes on with a run that was stopped.
run = train(recipe)
metrics = run.metrics()
print(f"accuracy {metrics['eval_accuracy']:.2f} with {metrics['trainable_adapter']} numbers in the adapter")

# %% Predict: a text, several, rows with columns of their own, or a file.
(answer,) = run.predict("the waiter was rude and the soup cold")
print(answer["prediction"], f"{answer['probability bad']:.2f}")
rows = run.predict([{"id": 7, "review": "good soup and kind waiter"}, {"id": 8, "review": "bad soup cold waiter rude"}])
count = run.predict_to("reviews.csv", "answers.csv")

# %% Keep the model in memory to answer often.
predictor = Predictor(run.folder)
singly = [predictor(row["review"])[0]["prediction"] for row in rows]

# %% Another day: the run is its folder.
again = Run.finished("runs/reviews-hydra-toeplitz")
evaluation = again.evaluate()
print(evaluation.scores)

# %% A plain transformers model, and what would go to the hub.
difference = again.merge("merged")
upload = again.push_to_hub("me/reviews", dry_run=True)
print(list(upload.files))
