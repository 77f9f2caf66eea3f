"""What vLLM asks of an adapter's files, since vLLM itself does not run on every machine.

The rules are those of its source in 2025 and 2026: `PEFTHelper` (vllm/lora/peft_helper.py: the fields that
it reads, `_validate_features`, `validate_legal`), `parse_fine_tuned_lora_name` (vllm/lora/utils.py), the
checks of `LoRAModel.from_local_checkpoint` (vllm/lora/lora_model.py) and `LoRAConfig` (vllm/config/lora.py).
It knows one alpha and one rank for all modules and overlooks every pattern.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.json_files import read_json
from tests.messages import printed_line
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tuneyard.core.weights.tensors import open_weights

pytestmark = pytest.mark.usefixtures("working_folder")
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes; 16 if nothing is said
TAKES = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def refusals():
    """Yield what vLLM would say against the adapter `out`."""
    config = read_json(Path("out/adapter_config.json"))
    missing = {"r", "lora_alpha", "target_modules"} - config.keys()
    if missing:
        yield f"missing fields {missing}"
    if config.get("modules_to_save"):
        yield "modules_to_save"
    if config.get("use_dora"):
        yield "DoRA"
    if config.get("bias", "none") != "none":
        yield "bias"
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        yield "patterns"
    if config["r"] > 16:
        yield f"rank {config['r']}"
    for name in open_weights(Path("out/adapter_model.safetensors")).tensors:
        if not name.endswith((".lora_A.weight", ".lora_B.weight")):
            yield f"{name} is unsupported"
        elif name.split(".")[-3] not in TAKES:
            yield f"unexpected module {name}"


@pytest.mark.parametrize("how", [[], ["--method=svd", "--rank=5"], ["--dtype=bf16"]], ids=str)
def test_merges_pass_vllm_s_rules(how):
    narrow = factors(2, rank=lambda module: 2 if "v_proj" in module else 3)
    make("a", factors(1), use_rslora=True, alpha_pattern={"q_proj": 4})
    make("b", narrow, r=3, lora_alpha=6, rank_pattern={"v_proj": 2})
    call("merge", "./a=0.5", "./b=-2", *how, "--out", "out")
    assert list(refusals()) == []


@pytest.mark.parametrize(("count", "said"), [(2, None), (3, 32), (5, 64), (40, 320), (41, 512)])
def test_the_note_names_a_rank_that_vllm_takes_and_that_is_enough(count, said):
    make("a", factors(1, layers=1))
    _, notes = call("merge", *["./a=0.1"] * count, "--out", "out", "--dry-run")
    assert ("--max-lora-rank" in notes) == bool(said)
    if said:
        assert f"serve with --max-lora-rank {said}\n" in notes
        assert said in RANKS
        assert said >= 8 * count


def test_what_vllm_takes_at_no_setting_is_said():
    make("a", factors(1, layers=1))
    _, notes = call("merge", *["./a=0.1"] * 65, "--out", "out", "--dry-run")
    printed_line(notes, "rank 520", "512", "--method svd --rank")
    make("b", extra={"base_model.model.lm_head.weight": np.ones((50, 24))}, modules_to_save=["lm_head"])
    make_base("base", {**base_tensors(), "lm_head.weight": np.ones((50, 24))})
    _, notes = call("merge", "./b=1", "--base", "base", "--out", "out")
    printed_line(notes, "vLLM", "modules_to_save")
    assert "modules_to_save" in list(refusals())
