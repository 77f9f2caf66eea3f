"""OFT adapters: fused as PEFT rotates the inputs.

test_adapters_with_base.py has narrow bases and those in 4 bits, tests/unit/adapters/test_kinds.py has what is
refused.
"""

import pytest
import torch

from tests.integration.peft_oracle import EVERY, IDS, distance, fused, load, save_adapter, weights_of

pytestmark = pytest.mark.slow

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
def test_an_oft_adapter_is_fused_as_peft_merges_it(base, tiny_model, tmp_path, name):
    adapter = save_adapter(base, tiny_model, tmp_path / "a", config="OFTConfig", **VARIANTS[name])
    found, _ = fused([(adapter, 1)], tiny_model, tmp_path / "out", dtype="F32")
    live = load(base, adapter)
    with torch.no_grad():
        logits = live(IDS).logits
        assert (logits - base(IDS).logits).abs().max() > 0.02
        torch.testing.assert_close(found(IDS).logits, logits, atol=2e-5, rtol=0)
    assert distance(weights_of(found), weights_of(live.merge_and_unload()), weights_of(base)) < 5e-6
