"""A written merge in the training tool's own hands: `llamafactory-cli export` makes of it what fuse makes."""

from pathlib import Path

import numpy as np
import pytest

from tests.integration.peft_oracle import load
from tests.integration.weighted_losses import register, settings
from tests.json_files import read_json, write_json
from tests.messages import raises
from tests.unit.adapters.make import factors, make
from tests.unit.adapters.test_commands import call
from tuneyard.adapters.store import open_adapter
from tuneyard.core.errors import ContentError
from tuneyard.core.weights.tensors import open_weights

pytestmark = pytest.mark.slow
SHAPES = {"q_proj": (64, 64), "v_proj": (32, 64)}  # of tests.tiny


def exported(llamafactory, model, adapters, out):
    """Let LLaMA-Factory merge adapters into a model; it takes several only with weight 1 each."""
    recipe = {
        "model_name_or_path": str(model), "adapter_name_or_path": ",".join(map(str, adapters)),
        "template": "qwen", "finetuning_type": "lora",
        "export_dir": str(out), "export_device": "cpu", "infer_dtype": "float32",
    }  # fmt: skip
    write_json(out.with_suffix(".yaml"), recipe)
    llamafactory.run("llamafactory.cli", "export", out.with_suffix(".yaml"))
    return open_weights(out / "model.safetensors")


def small(seed):
    """Factors of the tiny model, with a ΔW of the size of its weights."""
    return {m: (a * 0.1, b * 0.1) for m, (a, b) in factors(seed, shapes=SHAPES).items()}


def test_export_of_a_merge_is_our_fuse_and_of_two_adapters_is_not(
    llamafactory, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    named = {"base_model_name_or_path": str(tiny_model)}
    make("a", small(1), **named)
    make("b", small(2), use_rslora=True, **named)
    call("merge", "./a=0.5", "./b=-0.25", "--out", "merged")
    call("fuse", "./a=0.5", "./b=-0.25", "--base", tiny_model, "--out", "fused")
    ours, base = open_weights(Path("fused/model.safetensors")), open_weights(tiny_model / "model.safetensors")
    theirs = exported(llamafactory, tiny_model, [tmp_path / "merged"], tmp_path / "theirs")
    both = exported(llamafactory, tiny_model, [tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    for name in ours.tensors:
        np.testing.assert_allclose(theirs.read(name), ours.read(name), atol=2e-6)
        moved = name.endswith(("q_proj.weight", "v_proj.weight"))
        assert (np.abs(ours.read(name) - base.read(name)).max() > 0.01) == moved
        if moved:  # weight 1 each, whatever was wanted
            assert np.abs(both.read(name) - ours.read(name)).max() > 0.01


def test_a_dora_adapter_that_a_recipe_trained_is_fused_as_llamafactory_exports_it(
    forks, llamafactory, tiny_model, tmp_path
):
    register(tmp_path)
    recipe = settings(tmp_path, str(tiny_model), "run", max_steps=4) | {
        "use_dora": True,
        "learning_rate": 0.01,
    }
    write_json(tmp_path / "r.yaml", recipe)
    forks.run("recipes", "train", tmp_path / "r.yaml")
    adapter = tmp_path / "run"
    assert read_json(adapter / "adapter_config.json")["use_dora"]
    call("fuse", adapter, "--base", tiny_model, "--out", tmp_path / "fused", "--dtype", "fp32")
    ours = open_weights(tmp_path / "fused/model.safetensors")
    theirs = exported(llamafactory, tiny_model, [adapter], tmp_path / "theirs")
    base = open_weights(tiny_model / "model.safetensors")
    moved = [name for name in ours.tensors if np.abs(ours.read(name) - base.read(name)).max() > 1e-4]
    assert moved
    for name in ours.tensors:
        np.testing.assert_allclose(theirs.read(name), ours.read(name), atol=2e-6)


METHODS = {
    "oft": {"finetuning_type": "oft", "oft_block_size": 16},
    "pissa": {"pissa_init": True, "pissa_iter": -1, "pissa_convert": True},
}


@pytest.mark.parametrize("name", METHODS)
def test_what_a_recipe_trained_is_what_is_fused(forks, tiny_model, tmp_path, name):
    """Logits of the trained adapter, as PEFT loads it, and of the fused model."""
    import torch
    from transformers import AutoModelForCausalLM

    register(tmp_path)
    recipe = settings(tmp_path, str(tiny_model), "run", learning_rate=0.01, **METHODS[name])
    write_json(tmp_path / "r.yaml", recipe)
    forks.run("recipes", "train", tmp_path / "r.yaml")
    adapter = tmp_path / "run"
    if name == "pissa":
        with raises(ContentError, "run/pissa_converted"):
            open_adapter(adapter)
        fused = adapter / "pissa_converted"
    else:
        fused = adapter
    call("fuse", fused, "--base", tiny_model, "--out", tmp_path / "fused")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    ids = torch.arange(60).reshape(3, 20)
    with torch.no_grad():
        start = base(ids).logits
        expected = load(base, adapter)(ids).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "fused").eval()(ids).logits
    assert (expected - start).abs().max() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert "down_proj" in call("show", fused)[0]
