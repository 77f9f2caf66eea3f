"""What a GPU really used in a short training, against what `recipes plan` says: run with `pytest -m gpu`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from testing.tiny import make_tiny
from tests.conftest import ROOT
from tests.gpu import gpus
from tests.integration.weighted_losses import register, settings
from tests.json_files import read_json, write_json

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
HALF_BILLION = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "vocab_size": 151_936,
}
BILLION_AND_A_HALF = {
    **HALF_BILLION,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
}
"""The sizes of Qwen2.5-0.5B and Qwen2.5-1.5B."""
ON_GPU = {"use_cpu": False, "bf16": True, "skip_memory_metrics": False}
FOUR_LONG_ROWS = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "cutoff_len": 1024}
CHANGED: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora, all activations kept": {"disable_gradient_checkpointing": True},
    "dora": {"use_dora": True},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 2},
    "full": {"finetuning_type": "full"},
    "full, pure bf16": {"finetuning_type": "full", "bf16": False, "pure_bf16": True},
}
MEASURED = (
    "before_init_mem_gpu",
    "init_mem_gpu_alloc_delta",
    "train_mem_gpu_alloc_delta",
    "train_mem_gpu_peaked_delta",
)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in bf16, as Qwen's models are stored."""
    transformers = pytest.importorskip("transformers")
    model = make_tiny(tmp_path_factory.mktemp("larger") / "model", **BILLION_AND_A_HALF)
    transformers.AutoModelForCausalLM.from_pretrained(model, dtype="bfloat16").save_pretrained(model)
    return model


def check_memory(name: str, folder: Path, model: Path, changed: dict[str, Any]) -> None:
    """Train four steps, and compare what they took with the plan for this machine."""
    gpus(1)
    recipe = folder / "r.yaml"
    recipe.write_text(yaml.safe_dump(settings(folder, str(model), "out", **{**ON_GPU, **changed})))
    plan, _ = (
        subprocess.run(
            [sys.executable, "-m", "recipes", *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        for arguments in (["plan", recipe, "--for", "this", "--json"], ["train", recipe])
    )
    planned = json.loads(plan.stdout)
    found = read_json(folder / "out" / "all_results.json")
    used = sum(found.get(name, 0) for name in MEASURED)
    # CUDA's own share is not the allocator's
    lower, upper = (
        planned["memory"][end]["total"] - planned["memory"][end]["fixed"] for end in ("lower", "upper")
    )
    seconds = planned["seconds"]
    print(
        f"{name}: planned {lower / 1e9:.2f}-{upper / 1e9:.2f} GB, used {used / 1e9:.2f} GB; planned "
        f"{seconds['lower']}-{seconds['upper']} s, took {found['train_runtime']:.1f} s on {planned['gpu']}"
    )
    assert 0.8 * lower < used <= upper


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_memory_used_lies_in_the_planned_range(tmp_path, finetuning_type):
    register(tmp_path)
    model = make_tiny(tmp_path / "model", **HALF_BILLION)
    changed = {"finetuning_type": finetuning_type}
    check_memory(f"0.5B, short rows, {finetuning_type}", tmp_path, model, changed)


@pytest.mark.parametrize("name", CHANGED)
def test_memory_used_for_long_rows_lies_in_the_planned_range(tmp_path, larger, name):
    register(tmp_path)
    question = "Think well. " * 100
    rows = [{"instruction": f"Is {n} even?", "input": question, "output": "yes"} for n in range(24)]
    write_json(tmp_path / "even.json", rows)
    changed = {**FOUR_LONG_ROWS, **CHANGED[name]}
    check_memory(f"1.5B, 4 rows of 1,024 tokens, {name}", tmp_path, larger, changed)
