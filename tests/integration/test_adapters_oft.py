"""OFT adapters: fused as PEFT rotates the inputs. tests/unit/adapters/test_kinds.py has what is refused."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.peft_oracle import (
    EVERY,
    IDS,
    distance,
    fused,
    in_4_bits,
    load,
    save_adapter,
    weights_of,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def save(base, tiny_model, tmp_path):
    """`save("name", **OFTConfig fields)` writes PEFT's adapter with random rotations."""

    def write(name="a", **fields):
        return save_adapter(base, tiny_model, tmp_path / name, config="OFTConfig", **fields)

    return write


VARIANTS = {
    "LLaMA-Factory's defaults": {},
    "every linear": {"target_modules": EVERY},
    "block size 8": {"oft_block_size": 8},
    "a block size that does not divide": {"oft_block_size": 24, "target_modules": ["q_proj", "down_proj"]},
    "4 blocks": {"r": 4, "oft_block_size": 0},
    "5 blocks do not divide": {"r": 5, "oft_block_size": 0, "target_modules": EVERY},
    "Cayley": {"use_cayley_neumann": False},
    "2 terms": {"num_cayley_neumann_terms": 2},
    "3 terms": {"num_cayley_neumann_terms": 3},
    "4 terms": {"num_cayley_neumann_terms": 4},
    "9 terms": {"num_cayley_neumann_terms": 9},
    "shared": {"block_share": True, "oft_block_size": 16, "target_modules": EVERY},
    "constrained": {"coft": True, "eps": 0.5},
    "constrained, within its limit": {"coft": True, "eps": 1e4, "use_cayley_neumann": False},
    "constrained and shared": {"coft": True, "eps": 0.1, "block_share": True},
    "dropout": {"module_dropout": 0.5},
    "one layer": {"layers_to_transform": [1], "layers_pattern": "layers"},
    "excluded": {"target_modules": r".*_proj", "exclude_modules": ["o_proj"]},
    "norm in full": {"modules_to_save": ["norm"]},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_an_oft_adapter_is_fused_as_peft_merges_it(base, save, tiny_model, tmp_path, name):
    adapter = save(**VARIANTS[name])
    found, _ = fused([(adapter, 1)], tiny_model, tmp_path / "out", dtype="F32")
    live = load(base, adapter)
    with torch.no_grad():
        logits = live(IDS).logits
        assert (logits - base(IDS).logits).abs().max() > 0.02
        torch.testing.assert_close(found(IDS).logits, logits, atol=2e-5, rtol=0)
    assert distance(weights_of(found), weights_of(live.merge_and_unload()), weights_of(base)) < 5e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_oft_is_rounded_once_into_a_narrow_base(base, save, tmp_path, dtype):
    narrow = copy.deepcopy(base).to(getattr(torch, dtype))
    narrow.save_pretrained(tmp_path / "base")
    adapter = save(use_cayley_neumann=False)
    fused([(adapter, 1)], tmp_path / "base", tmp_path / "out", same_base=True)
    found = load_file(tmp_path / "out/model.safetensors")
    expected = load(copy.deepcopy(narrow).double(), adapter).double().merge_and_unload().state_dict()
    for name in found:
        if "q_proj.weight" in name:
            rounded = expected[name].to(getattr(torch, dtype))
            assert (found[name] != rounded).float().mean() < 1e-3, name  # ties fall either way


def test_oft_on_a_base_in_4_bits_is_fused_into_what_training_saw(base, save, tiny_model, tmp_path):
    seen = in_4_bits(base)
    adapter = save()
    found, _ = fused([(adapter, 1)], tiny_model, tmp_path / "out", dtype="F32", base_as="nf4")
    expected = weights_of(load(seen, adapter).merge_and_unload())
    assert distance(weights_of(found), expected, weights_of(seen)) < 1e-5
