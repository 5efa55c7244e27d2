"""What each of two processes does in the tests of spread models: like `several.py`, under FSDP2.

    RANK=0 WORLD_SIZE=2 ACCELERATE_USE_FSDP=true … python spread.py still dropout matched

It runs in an empty folder and leaves `ended-RANK.json`: exit code and what was told, by name, and which share of the
model each process held.
"""

from __future__ import annotations

import os
import sys
from typing import Any
from unittest import mock

from commands import STEP_BEGINS, command, ended, in_the_second, sets, stop_in_sixth_step, write_ended

from structune.finetune.distributed.sharding import Sharding

shares: list[float] = []
shard = Sharding.shard


def measured(self: Sharding, model: Any, *arguments: Any) -> Any:
    made = shard(self, model, *arguments)
    local = [getattr(part, "to_local", lambda part=part: part)() for part in made.parameters()]
    shares.append(sum(part.numel() for part in local) / sum(part.numel() for part in made.parameters()))
    return made


still, dropout, matched = (f"{name}.yaml" for name in sys.argv[1:])
pool = "method={name: c3a, block_size: 8, pool_scope: model, pool_size: 64}"
chosen = ["train.eval_steps=2", "train.early_stopping=3", "train.best_checkpoint=true", "train.gradient_accumulation=2"]
with mock.patch.object(Sharding, "shard", measured):
    command("first version", "train", still, *sets("output=no"), FSDP_VERSION="1")
    command("offload", "train", still, *sets("output=no"), FSDP_OFFLOAD_PARAMS="true")
    command("deepspeed", "train", still, *sets("output=no"), ACCELERATE_USE_DEEPSPEED="true")
    command("whole", "train", still, *sets("output=whole"))
    command("full", "train", still, *sets("output=no", "method=full"))
    command("chosen", "train", still, *sets("output=chosen", pool, *chosen))
    command("matched", "train", matched, *sets("output=matched"))
    command("dropout", "train", dropout, *sets("output=dropout"))
    with in_the_second(STEP_BEGINS, stop_in_sixth_step):
        command("stopped", "train", dropout, *sets("output=stopped"))
    command("resumed", "train", "stopped/recipe.yaml", "--resume")
Sharding.asked.cache_clear()
os.environ["ACCELERATE_USE_FSDP"] = "true"
command("no such block", "train", still, *sets("output=no"), FSDP_TRANSFORMER_CLS_TO_WRAP="LlamaLayer")

ended["shares"] = shares
write_ended()
