"""Our configurations for PEFT's comparison on MetaMathQA: PEFT loads them, and they fit the model it compares on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

import structune  # noqa: F401  # as with_structune.py does before the runner

FOLDER = Path(__file__).parents[2] / "examples" / "metamathqa"
EXPERIMENTS = sorted(path.parent for path in FOLDER.glob("experiments/*/*/adapter_config.json"))
TRAIN_CONFIG = {
    "model_id", "dtype", "max_seq_length", "batch_size", "batch_size_eval", "max_steps", "eval_steps", "compile",
    "use_gc", "query_template", "seed", "grad_norm_clip", "optimizer_type", "optimizer_kwargs", "lr_scheduler",
    "use_amp", "autocast_adapter_dtype", "generation_kwargs", "attn_implementation", "init_kv_cache_prefix",
}  # fmt: skip
"""What the runner's training parameters may be."""

SHAPE = {"hidden_size": 3072, "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128}
"""Llama-3.2-3B's layers."""


def test_a_script_knows_our_configurations_where_it_is_run_with_structune(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("FOUND = 'a module beside the script'")
    (tmp_path / "run.py").write_text(
        "import sys\nfrom peft import PeftConfig\nfrom beside import FOUND\n"
        "print(__name__, sys.argv[1:], PeftConfig.from_pretrained(sys.argv[-1]).structure, FOUND, sep='; ')"
    )
    folder = str(FOLDER / "experiments" / "structune" / "llama-3.2-3B-hydra-toeplitz-pool1536")
    words = [sys.executable, str(FOLDER / "with_structune.py"), "run.py", "-v", folder]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"__main__; {['-v', folder]}; toeplitz; a module beside the script\n"


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda path: path.name)
def test_the_runner_takes_it(folder: Path) -> None:
    config = PeftConfig.from_pretrained(str(folder))
    params = json.loads((folder / "training_params.json").read_text())
    assert set(params) <= TRAIN_CONFIG
    with torch.device("meta"):
        whole = LlamaForCausalLM(LlamaConfig(vocab_size=64, intermediate_size=8, num_hidden_layers=28, **SHAPE))
        count = sum(part.numel() for part in get_peft_model(whole, config).parameters() if part.requires_grad)
    (row,) = re.findall(rf"\| `{folder.name}` \| ([\d,]+)", (FOLDER / "README.md").read_text())
    assert count == int(row.replace(",", ""))

    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(vocab_size=64, intermediate_size=8, num_hidden_layers=1, **SHAPE)).bfloat16()
    model = get_peft_model(base, PeftConfig.from_pretrained(str(folder)), autocast_adapter_dtype=True)
    trained = [part for part in model.parameters() if part.requires_grad]
    before = [part.detach().clone() for part in trained]
    optimizer = torch.optim.AdamW(model.parameters(), **params["optimizer_kwargs"])
    tokens = torch.randint(0, 64, (2, 6))
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    assert all(part.dtype == torch.float32 for part in trained)
    assert not any(torch.equal(old, new) for old, new in zip(before, trained, strict=True))
    written = {key: list(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    assert json.loads(json.dumps(written))["peft_type"] == "STRUCTUNE"  # as the runner notes it down
