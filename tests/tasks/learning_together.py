"""What each of two processes does in the tests of tasks that TRL trains: two runs, and what a step of the second saw.

RANK=0 WORLD_SIZE=2 … python learning_together.py PREFERENCE_RECIPE REWARD_RECIPE
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from structune.finetune.recipe import Recipe
from structune.finetune.training import train
from structune.tasks.parts.rewards.trainer import PromptTrainer

preference, reward = sys.argv[1:]
train(Recipe.load(preference))
theirs = PromptTrainer._generate_and_score_completions
seen: list[Any] = []


def watched(self: Any, inputs: Any) -> Any:
    batch = theirs(self, inputs)
    seen.append(
        {
            "prompts": [row["prompt"] for row in inputs],
            "completions": [row.tolist() for row in batch["completion_ids"] * batch["completion_mask"]],
            "advantages": batch["advantages"].tolist(),
        }
    )
    return batch


PromptTrainer._generate_and_score_completions = watched  # type: ignore[method-assign]
train(Recipe.load(reward))
Path(f"seen-{os.environ['RANK']}.json").write_text(json.dumps(seen))
