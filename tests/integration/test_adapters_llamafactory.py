"""A written merge in the training tool's own hands: `llamafactory-cli export` makes of it what fuse makes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.weights import open_weights
from tests.unit.adapters.make import factors, make
from tests.unit.adapters.test_commands import call

pytestmark = pytest.mark.slow
SHAPES = {"q_proj": (64, 64), "v_proj": (32, 64)}  # of tests.tiny


def exported(model, adapters, out):
    """Let LLaMA-Factory merge adapters into a model; it takes several only with weight 1 each."""
    recipe = {
        "model_name_or_path": str(model), "adapter_name_or_path": ",".join(map(str, adapters)),
        "template": "qwen", "finetuning_type": "lora",
        "export_dir": str(out), "export_device": "cpu", "infer_dtype": "float32",
    }  # fmt: skip
    out.with_suffix(".yaml").write_text(json.dumps(recipe))
    command = [Path(sys.executable).parent / "llamafactory-cli", "export", out.with_suffix(".yaml")]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return open_weights(out / "model.safetensors")


def small(seed):
    """Factors of the tiny model, with a ΔW of the size of its weights."""
    return {m: (a * 0.1, b * 0.1) for m, (a, b) in factors(seed, shapes=SHAPES).items()}


def test_export_of_a_merge_is_our_fuse_and_of_two_adapters_is_not(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = {"base_model_name_or_path": str(tiny_model)}
    make("a", small(1), **named)
    make("b", small(2), use_rslora=True, **named)
    call("merge", "./a=0.5", "./b=-0.25", "--out", "merged")
    call("fuse", "./a=0.5", "./b=-0.25", "--base", tiny_model, "--out", "fused")
    ours, base = open_weights(Path("fused/model.safetensors")), open_weights(tiny_model / "model.safetensors")
    theirs = exported(tiny_model, ["merged"], tmp_path / "theirs")
    both = exported(tiny_model, ["a", "b"], tmp_path / "both")
    for name in ours.tensors:
        np.testing.assert_allclose(theirs.read(name), ours.read(name), atol=2e-6)
        moved = name.endswith(("q_proj.weight", "v_proj.weight"))
        assert (np.abs(ours.read(name) - base.read(name)).max() > 0.01) == moved
        if moved:  # weight 1 each, whatever was wanted
            assert np.abs(both.read(name) - ours.read(name)).max() > 0.01
