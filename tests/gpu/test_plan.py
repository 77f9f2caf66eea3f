"""What a GPU really used in a short training, against what `recipes plan` says: run with `pytest -m gpu`."""

import json
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT
from tests.integration.weighted_losses import register, settings
from tests.json_files import read_json
from tests.tiny import make_tiny

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
SIZES = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24}  # of Qwen2.5-0.5B
MEASURED = (
    "before_init_mem_gpu",
    "init_mem_gpu_alloc_delta",
    "train_mem_gpu_alloc_delta",
    "train_mem_gpu_peaked_delta",
)


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_memory_used_lies_in_the_planned_range(tmp_path, finetuning_type):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model = make_tiny(tmp_path / "model", **SIZES)
    register(tmp_path)
    recipe = tmp_path / "r.yaml"
    changed = {
        "finetuning_type": finetuning_type,
        "use_cpu": False,
        "bf16": True,
        "skip_memory_metrics": False,
    }
    recipe.write_text(yaml.safe_dump(settings(tmp_path, str(model), "out", **changed)))
    plan, _ = (
        subprocess.run(
            [sys.executable, "-m", "recipes", *arguments], cwd=ROOT, capture_output=True, check=True
        )
        for arguments in (["plan", recipe, "--json"], ["train", recipe])
    )
    planned = json.loads(plan.stdout)["memory"]
    found = read_json(tmp_path / "out" / "all_results.json")
    used = sum(found.get(name, 0) for name in MEASURED)
    lower, upper = (planned[end]["total"] - planned[end]["fixed"] for end in ("lower", "upper"))
    # CUDA's own share is not the allocator's
    print(f"{finetuning_type}: planned {lower / 1e9:.2f}-{upper / 1e9:.2f} GB, used {used / 1e9:.2f} GB")
    assert 0.8 * lower < used <= upper
