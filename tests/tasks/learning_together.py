"""What each of two processes does in the tests of tasks whose models write or draw: runs of each, and what they saw.

RANK=0 WORLD_SIZE=2 … python learning_together.py INSTRUCTION_RECIPE IMAGES_RECIPE PREFERENCE_RECIPE REWARD_RECIPE
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from structune.finetune.distributed.sharding import Sharding
from structune.finetune.recipe.recipe import Recipe
from structune.finetune.training import train
from structune.tasks.parts.diffusion import grid
from structune.tasks.parts.rewards.trainer import PromptTrainer

instruction, images, preference, reward = sys.argv[1:]
steps: list[Any] = []
seen: list[Any] = []
theirs = {"column": grid.add_column, "completions": PromptTrainer._generate_and_score_completions}


def drawn(path: Path, prompts: Any, samples: Any, step: int) -> None:
    steps.append(step)
    theirs["column"](path, prompts, samples, step)


def watched(self: Any, inputs: Any) -> Any:
    batch = theirs["completions"](self, inputs)
    seen.append(
        {
            "prompts": [row["prompt"] for row in inputs],
            "completions": [row.tolist() for row in batch["completion_ids"] * batch["completion_mask"]],
            "advantages": batch["advantages"].tolist(),
        }
    )
    return batch


grid.add_column = drawn
PromptTrainer._generate_and_score_completions = watched  # type: ignore[method-assign]
for recipe in (instruction, images, preference, reward):
    train(Recipe.load(recipe))
before = len(seen)

os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
Sharding.asked.cache_clear()
for recipe in (instruction, reward):  # each process holds a part of the model, and they write together
    train(Recipe.load(recipe, [f"output={Path(recipe).stem}-spread"]))
Path(f"seen-{os.environ['RANK']}.json").write_text(json.dumps({"samples": steps, "groups": seen[:before]}))
