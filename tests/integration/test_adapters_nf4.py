"""What `--base-as nf4` takes a base's weights for: bitsandbytes' NF4, by hand."""

import numpy as np

from tests.unit.adapters.test_delta import piece
from tuneyard.adapters.delta import apply, nf4


def test_nf4_by_hand():
    values = np.zeros((1, 70), np.float32)
    values[0, :4] = [4, -4, 2.9, 0.1]  # scale 4: 2.9 is nearest to level 0.723, 0.1 to 0
    values[0, 64:] = [0.5, -0.25, 0, 0, 0, 0]  # a short last block with scale 0.5
    found = nf4(values, "F32", double=False)[0]
    np.testing.assert_allclose(found[:4], [4, -4, 4 * 0.7229568, 0], rtol=1e-6)
    np.testing.assert_allclose(found[64:66], [0.5, 0.5 * -0.5250730], rtol=1e-6)
    assert not nf4(np.zeros((8, 8), np.float32), "F32", double=False).any()


def test_nf4_is_the_same_by_pieces(tmp_path, monkeypatch):
    """Blocks of scales are larger than the rows worked on at once: the tensor is quantised as one."""
    weight = (np.random.default_rng(5).standard_normal((96, 40)) * 0.03).astype(np.float32)
    whole = nf4(weight, "F32", double=True)
    monkeypatch.setattr("tuneyard.adapters.delta.BLOCK", 700)
    stored = list(apply(piece(tmp_path, weight, "F32"), [], "nf4-double", []))
    assert len(stored) > 1
    assert np.concatenate(stored).tolist() == whole.tolist()
