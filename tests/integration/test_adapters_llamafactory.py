"""A written merge in the training tool's own hands: `llamafactory-cli export` makes of it what fuse makes.

Adapters that a recipe trains, also DoRA, OFT and PiSSA, are fused in test_stages.py.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.json_files import write_json
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import factors, make
from tuneyard.core.weights.tensors import open_weights

pytestmark = pytest.mark.slow
SHAPES = {"q_proj": (64, 64), "v_proj": (32, 64)}  # of testing.tiny


def exported(llamafactory, model, adapter, out):
    """Let LLaMA-Factory merge an adapter into a model."""
    recipe = {
        "model_name_or_path": str(model), "adapter_name_or_path": str(adapter),
        "template": "qwen", "finetuning_type": "lora",
        "export_dir": str(out), "export_device": "cpu", "infer_dtype": "float32",
    }  # fmt: skip
    write_json(out.with_suffix(".yaml"), recipe)
    llamafactory.run("llamafactory.cli", "export", out.with_suffix(".yaml"))
    return open_weights(out / "model.safetensors")


def small(seed):
    """Factors of the tiny model, with a ΔW of the size of its weights."""
    return {m: (a * 0.1, b * 0.1) for m, (a, b) in factors(seed, shapes=SHAPES).items()}


def test_export_of_a_merge_is_our_fuse(llamafactory, tiny_model, working_folder):
    named = {"base_model_name_or_path": str(tiny_model)}
    make("a", small(1), **named)
    make("b", small(2), use_rslora=True, **named)
    call("merge", "./a=0.5", "./b=-0.25", "--out", "merged")
    call("fuse", "./a=0.5", "./b=-0.25", "--base", tiny_model, "--out", "fused")
    ours, base = open_weights(Path("fused/model.safetensors")), open_weights(tiny_model / "model.safetensors")
    theirs = exported(llamafactory, tiny_model, working_folder / "merged", working_folder / "theirs")
    for name in ours.tensors:
        np.testing.assert_allclose(theirs.read(name), ours.read(name), atol=2e-6)
        moved = name.endswith(("q_proj.weight", "v_proj.weight"))
        assert (np.abs(ours.read(name) - base.read(name)).max() > 0.01) == moved
