"""`adapter extract`: a full fine-tune as a LoRA, against numpy's SVD of the dense change."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import printed
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, delta, make, make_base
from tuneyard.adapters.merge import extract as extracting
from tuneyard.adapters.model.store import open_adapter

MATRICES = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in (0, 1) for name in "qv"]


def tuned(base, *, rank=None, seed=7, others=(), size=0.1):
    """The tensors of a fine-tune: every matrix of a layer changes, by a product of `rank` if one is given."""
    rng = np.random.default_rng(seed)
    changed = dict(base)
    for name, values in base.items():
        if name.removesuffix(".weight") in MATRICES:
            change = rng.standard_normal(values.shape)
            if rank:
                left, right = (
                    rng.standard_normal((len(values), rank)),
                    rng.standard_normal((rank, values.shape[1])),
                )
                change = left @ right
            changed[name] = (values + size * change).astype(np.float32)
        elif name in others:
            changed[name] = (values + size * rng.standard_normal(values.shape)).astype(np.float32)
    return changed


@pytest.fixture
def base(working_folder):
    """The tensors of the model in the folder base."""
    tensors = base_tensors()
    make_base("base", tensors, dtype="F32")
    return tensors


def extract(*words, out="saves/out", code=0):
    return call("extract", "tuned", "--base", "base", "--out", out, *words, code=code)


@pytest.mark.parametrize("rank", [1, 5, 11])
@pytest.mark.parametrize("shards", [1, 3])
def test_each_module_is_the_nearest_product_of_the_rank(base, rank, shards):
    model = tuned(base)
    make_base("tuned", model, dtype="F32", shards=shards)
    output, _ = extract("--rank", rank)
    result = open_adapter("out")
    assert sorted(result.modules) == sorted(MATRICES)
    lost, whole = 0.0, 0.0
    for module in MATRICES:
        change = model[f"{module}.weight"].astype(float) - base[f"{module}.weight"]
        left, values, right = np.linalg.svd(change, full_matrices=False)
        nearest = (left[:, :rank] * values[:rank]) @ right[:rank]
        np.testing.assert_allclose(delta(result, module), nearest, rtol=0, atol=1e-5)
        lost += (values[rank:] ** 2).sum()
        whole += (values**2).sum()
    printed(output, f"{np.sqrt(lost / whole):.1e}", f"rank {rank}", "4 modules")
    assert f"{np.sqrt(lost / whole):.1e}" in Path("saves/out/README.md").read_text()
    assert "Not in the LoRA" not in output


def test_a_change_of_a_low_rank_comes_back_whole(base):
    """Also in bf16, and a rank above the smaller side of some modules (12) is padded."""
    model = tuned(base, rank=3)
    make_base("tuned", model, dtype="F32")
    for number, words in enumerate((("--rank", "3"), ("--rank", "20"), ("--rank", "99"))):
        extract(*words, out=f"saves/{number}")
        result = open_adapter(str(number))
        assert result.config.rank == (3, 20, 24)[number]
        for module in MATRICES:
            change = model[f"{module}.weight"].astype(float) - base[f"{module}.weight"]
            np.testing.assert_allclose(delta(result, module), change, rtol=0, atol=1e-6)
    extract("--rank", "3", "--dtype", "bf16", out="saves/bf16")
    assert {tensor.dtype for tensor in open_adapter("bf16").weights.tensors.values()} == {"BF16"}


def test_fused_again_it_gives_the_matrices_of_the_fine_tune(base):
    model = tuned(base, rank=2)
    make_base("tuned", model, dtype="F32")
    extract("--rank", "2")
    call("fuse", "out", "--out", "again")  # the adapter names its base
    fused = load_file("again/model.safetensors")
    for module in MATRICES:
        np.testing.assert_allclose(fused[f"{module}.weight"], model[f"{module}.weight"], rtol=0, atol=1e-6)


def test_changes_that_no_lora_has_are_named_with_their_share(base):
    others = (
        "model.embed_tokens.weight",
        "model.layers.1.norm.weight",
        "model.layers.0.self_attn.q_proj.bias",
    )
    model = tuned(base, rank=4, others=others)
    make_base("tuned", model, dtype="F32")
    output, _ = extract("--rank", "4")
    matrices = np.sqrt(sum(np.sum((model[f"{m}.weight"] - base[f"{m}.weight"]) ** 2) for m in MATRICES))
    left_out = np.sqrt(sum(np.sum((model[name] - base[name]) ** 2) for name in others))
    share = left_out / np.hypot(matrices, left_out)
    printed(output, *others, f"{share:.1%}", f"{share:.1e}")
    assert f"{share:.1%}" in Path("saves/out/README.md").read_text()
    assert sorted(open_adapter("out").modules) == sorted(MATRICES)


def test_modules_that_did_not_change_are_no_modules_of_the_lora(base):
    """A target's last name that would mean a frozen layer too is written as the whole path."""
    model = tuned(base)
    model[f"{MATRICES[0]}.weight"] = base[f"{MATRICES[0]}.weight"]
    make_base("tuned", model, dtype="F32")
    extract("--rank", "2")
    assert sorted(open_adapter("out").modules) == sorted(MATRICES[1:])
    assert read_json(Path("saves/out/adapter_config.json"))["target_modules"] == sorted(MATRICES[1:])


def test_a_head_that_one_of_both_ties_is_compared_with_the_embedding(working_folder):
    base = base_tensors()
    head = "lm_head.weight"
    make_base("base", base, dtype="F32", tie_word_embeddings=True)
    embedding = base["model.embed_tokens.weight"]
    make_base("tuned", {**tuned(base), head: embedding + 1}, dtype="F32")
    assert head in extract("--rank", "2", out="saves/untied")[0]
    make_base("base2", {**base, head: embedding - 1}, dtype="F32")
    make_base("tied", tuned(base), dtype="F32", tie_word_embeddings=True)
    output, _ = call("extract", "tied", "--base", "base2", "--rank", "2", "--out", "saves/tied")
    assert head in output


def test_experts_and_routers_are_left_out(working_folder):
    base = base_tensors()
    for name in ("mlp.experts.0.up_proj", "mlp.gate"):
        base[f"model.layers.0.{name}.weight"] = np.ones((6, 24), np.float32)
    make_base("base", base, dtype="F32")
    model = tuned(base)
    for name in ("mlp.experts.0.up_proj", "mlp.gate"):
        model[f"model.layers.0.{name}.weight"] = base[f"model.layers.0.{name}.weight"] + 1
    make_base("tuned", model, dtype="F32")
    printed(
        extract("--rank", "2")[0],
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "model.layers.0.mlp.gate.weight",
    )


def test_transposed_layers_of_gpt2(working_folder):
    rng = np.random.default_rng(0)
    start = {"transformer.h.0.attn.c_attn.weight": rng.standard_normal((8, 24)).astype(np.float32)}
    base = {**start, "transformer.h.0.attn.bias": np.ones((1, 1, 4, 4), np.float32)}  # a buffer
    change = rng.standard_normal((8, 24)).astype(np.float32)
    make_base("base", base, dtype="F32", model_type="gpt2")
    make_base(
        "tuned", {name: value + change for name, value in start.items()}, dtype="F32", model_type="gpt2"
    )
    extract("--rank", "8")
    result = open_adapter("out")
    assert result.config.fan_in_fan_out
    np.testing.assert_allclose(delta(result, "transformer.h.0.attn.c_attn"), change.T, rtol=0, atol=1e-5)


def test_another_dtype_and_new_rows_are_noted(base):
    model = tuned(base)
    model["model.embed_tokens.weight"] = np.concatenate([base["model.embed_tokens.weight"], np.ones((3, 24))])
    make_base("tuned", model, dtype="BF16")
    _, notes = extract("--rank", "2")
    printed(notes, "BF16 and F32", "model.embed_tokens.weight", "3 rows")


def without(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


Q = f"{MATRICES[0]}.weight"
REFUSED = {
    "equal": (lambda base: base, {}, "tuned; base; equal"),
    "only a norm": (
        lambda base: {**base, "model.layers.0.norm.weight": base["model.layers.0.norm.weight"] + 1},
        {},
        "model.layers.0.norm.weight",
    ),
    "another type": (tuned, {"model_type": "llama"}, "llama; qwen2"),
    "quantised": (tuned, {"quantization_config": {"quant_method": "bnb"}}, "tuned; quantised"),
    "a missing tensor": (lambda base: without(tuned(base), Q), {}, f"{Q}; base"),
    "another tensor": (lambda base: {**tuned(base), "x.weight": base[Q]}, {}, "x.weight; base"),
    "another shape": (lambda base: {**base, Q: base[Q][:, :12]}, {}, f"{Q}; [24, 12]; [24, 24]"),
    "NaN": (lambda base: {**base, Q: base[Q] * np.nan}, {}, f"{Q}; NaN"),
}


@pytest.mark.parametrize(("change", "config", "facts"), REFUSED.values(), ids=REFUSED)
def test_models_without_a_lora_between_them_are_refused(base, change, config, facts):
    make_base("tuned", change(base), dtype="F32", **config)
    _, error = extract("--rank", "2", code=1)
    printed(error, *facts.split("; "))
    assert not Path("saves/out").exists()


def test_folders_that_are_no_models_and_outputs_that_exist(base):
    make("lora")
    for model in ("lora", "nowhere"):
        _, error = call("extract", model, "--base", "base", "--rank", "2", "--out", "saves/out", code=2)
        printed(error, model)
    make_base("tuned", tuned(base), dtype="F32")
    write_json(Path("there.json"), {})
    for out in ("base", "tuned/x", "there.json"):
        extract("--rank", "2", out=out, code=2)
    extract("--rank", "0", code=2)
    assert not Path("saves").exists()


def test_a_dry_run_lists_the_tensors_and_writes_nothing(base):
    make_base("tuned", tuned(base), dtype="F32")
    output, _ = extract("--rank", "2", "--dry-run")
    printed(output, "rank 2", "modules 4", f"base_model.model.{MATRICES[0]}.lora_A.weight  2×24")
    assert not Path("saves").exists()


def test_an_extraction_that_fails_leaves_nothing(base, monkeypatch):
    make_base("tuned", tuned(base), dtype="F32")

    def full(_path, _specs, values):
        next(iter(values))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extracting, "write_weights", full)
    extract("--rank", "2", code=2)
    assert not Path("saves").exists() or names(Path("saves")) == []


def test_the_tokenizer_of_the_fine_tune_is_carried(base):
    make_base("tuned", tuned(base), dtype="F32")
    Path("tuned/chat_template.jinja").write_text("mine")
    extract("--rank", "2")
    assert Path("saves/out/chat_template.jinja").read_text() == "mine"
