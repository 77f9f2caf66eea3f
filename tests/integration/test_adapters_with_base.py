"""Adapters whose ΔW needs the base's weights (DoRA, and OFT in part): fused as PEFT computes them."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.peft_oracle import (
    EVERY,
    IDS,
    distance,
    exact,
    fused,
    in_4_bits,
    load,
    save_adapter,
    weights_of,
)

DORA = {
    "two targets": {},
    "every linear": {"target_modules": EVERY},
    "rslora": {"use_rslora": True, "r": 4},
    "patterns": {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 3}},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
}


@pytest.mark.parametrize("name", DORA)
def test_a_dora_adapter_is_fused_as_peft_merges_it(base, tiny_model, tmp_path, name):
    adapter = save_adapter(base, tiny_model, tmp_path / "a", use_dora=True, **DORA[name])
    found, _ = fused([(adapter, 1)], tiny_model, tmp_path / "out", dtype="F32")
    with torch.no_grad():
        live = load(base, adapter)(IDS).logits
        assert (live - base(IDS).logits).abs().max() > 0.05
        torch.testing.assert_close(found(IDS).logits, live, atol=2e-5, rtol=0)
    if "embedding" not in name:  # merging, PEFT also moves the tied head
        expected = weights_of(load(base, adapter).merge_and_unload())
        assert distance(weights_of(found), expected, weights_of(base)) < 1e-6


def test_dora_beside_plain_lora_is_the_weighted_sum_of_both_changes(base, tiny_model, tmp_path):
    dora = save_adapter(base, tiny_model, tmp_path / "dora", use_dora=True, target_modules=EVERY)
    plain = save_adapter(base, tiny_model, tmp_path / "plain", seed=2, target_modules=["q_proj", "up_proj"])
    found, retained = fused([(dora, 0.5), (plain, -0.25)], tiny_model, tmp_path / "out", dtype="F32")
    start = weights_of(base)
    merged = weights_of(load(base, dora).merge_and_unload())
    expected = {name: start[name] + 0.5 * (merged[name] - start[name]) for name in start}
    for path, delta in exact(base, [(plain, -0.25)]).items():
        expected[f"{path.removeprefix('base_model.model.')}.weight"] += delta
    assert distance(weights_of(found), expected, start) < 1e-6
    assert all(one.fraction == pytest.approx(1, abs=1e-3) for one in retained.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("fields", "differing"),
    [({"use_dora": True}, 2e-4), ({"config": "OFTConfig", "use_cayley_neumann": False}, 1e-3)],
)
def test_it_is_rounded_once_into_a_narrow_base(base, tmp_path, dtype, fields, differing):
    narrow = copy.deepcopy(base).to(getattr(torch, dtype))
    narrow.save_pretrained(tmp_path / "base")
    adapter = save_adapter(narrow.float(), tmp_path / "base", tmp_path / "a", **fields)
    fused([(adapter, 1)], tmp_path / "base", tmp_path / "out")
    found = load_file(tmp_path / "out/model.safetensors")
    expected = load(copy.deepcopy(narrow).double(), adapter).double().merge_and_unload().state_dict()
    for name, tensor in found.items():
        if "_proj.weight" in name:
            rounded = expected[name].to(getattr(torch, dtype))
            # Ties fall either way, and PEFT keeps the magnitude of DoRA in its dtype.
            assert (tensor != rounded).float().mean() < differing, name


def test_dora_of_a_conv1d_model_rescales_columns(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_positions=64, n_embd=32, n_layer=2, n_head=2)).eval()
    model.save_pretrained(tmp_path / "gpt2")
    fields = {"target_modules": ["attn.c_proj", "c_attn"], "fan_in_fan_out": True, "use_dora": True}
    adapter = save_adapter(model, tmp_path / "gpt2", tmp_path / "a", **fields)
    found, _ = fused([(adapter, 1)], tmp_path / "gpt2", tmp_path / "out")
    with torch.no_grad():
        torch.testing.assert_close(found(IDS).logits, load(model, adapter)(IDS).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("fields", [{"use_dora": True}, {"config": "OFTConfig"}])
def test_on_a_base_in_4_bits_it_is_fused_into_what_training_saw(base, tiny_model, tmp_path, fields):
    seen = in_4_bits(base)
    adapter = save_adapter(seen, tiny_model, tmp_path / "a", **fields)
    found, _ = fused([(adapter, 1)], tiny_model, tmp_path / "out", dtype="F32", base_as="nf4")
    expected = weights_of(load(seen, adapter).merge_and_unload())
    assert distance(weights_of(found), expected, weights_of(seen)) < 1e-5
