"""What `--base-as nf4` takes a base's weights for: bitsandbytes' NF4, by hand and by its published levels."""

import numpy as np
import pytest

from tests.unit.adapters.test_delta import piece
from tuneyard.adapters.delta import apply, nf4
from tuneyard.core.weights.tensors import from_fp32, to_fp32

LEVELS = np.array(
    [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0, 0.0795803, 0.1609302,
     0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0], np.float32,
)  # fmt: skip
"""Dettmers et al. 2023, QLoRA, appendix E."""


def test_nf4_by_hand():
    values = np.zeros((1, 70), np.float32)
    values[0, :4] = [4, -4, 2.9, 0.1]  # scale 4: 2.9 is nearest to level 0.723, 0.1 to 0
    values[0, 64:] = [0.5, -0.25, 0, 0, 0, 0]  # a short last block with scale 0.5
    found = nf4(values, "F32", double=False)[0]
    np.testing.assert_allclose(found[:4], [4, -4, 4 * 0.7229568, 0], rtol=1e-6)
    np.testing.assert_allclose(found[64:66], [0.5, 0.5 * -0.5250730], rtol=1e-6)
    assert not nf4(np.zeros((8, 8), np.float32), "F32", double=False).any()


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("double", [False, True])
def test_every_weight_becomes_the_nearest_level_of_its_block_in_its_own_dtype(dtype, double):
    values = (np.random.default_rng(1).standard_normal((40, 64)) * 0.03).astype(np.float32)
    values = to_fp32(from_fp32(values, dtype), dtype)
    found = nf4(values, dtype, double=double)
    assert found.dtype == np.float32 and found.shape == values.shape
    np.testing.assert_array_equal(found, to_fp32(from_fp32(found, dtype), dtype))  # nothing beyond its dtype
    scales = np.abs(values).max(axis=1, keepdims=True)
    nearest = np.abs(values[:, :, None] - (scales * LEVELS)[:, None, :]).min(axis=2)
    allowed = scales * (0.02 if double else {"F32": 1e-6, "F16": 1e-3, "BF16": 5e-3}[dtype])
    assert (np.abs(found - values) <= nearest + allowed).all()
    assert len(np.unique(found[0])) <= 16


def test_nf4_is_the_same_by_pieces(tmp_path, monkeypatch):
    """Blocks of scales are larger than the rows worked on at once: the tensor is quantised as one."""
    weight = (np.random.default_rng(5).standard_normal((96, 40)) * 0.03).astype(np.float32)
    whole = nf4(weight, "F32", double=True)
    monkeypatch.setattr("tuneyard.adapters.delta.BLOCK", 700)
    stored = list(apply(piece(tmp_path, weight, "F32"), [], "nf4-double", []))
    assert len(stored) > 1
    assert np.concatenate(stored).tolist() == whole.tolist()
