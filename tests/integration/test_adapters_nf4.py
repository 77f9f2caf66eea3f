"""What `--base-as nf4` takes a base's weights for: bitsandbytes' NF4, a piece at a time."""

import numpy as np

from tests.unit.adapters.test_rounding import piece
from tuneyard.adapters.fuse.rounding import apply
from tuneyard.adapters.model.change import nf4


def test_nf4_is_the_same_by_pieces(tmp_path, monkeypatch):
    """Blocks of scales are larger than the rows worked on at once: the tensor is quantised as one."""
    weight = (np.random.default_rng(5).standard_normal((96, 40)) * 0.03).astype(np.float32)
    whole = nf4(weight, "F32", double=True)
    monkeypatch.setattr("tuneyard.adapters.model.change.BLOCK", 700)
    stored = list(apply(piece(tmp_path, weight, "F32"), [], "nf4-double", []))
    assert len(stored) > 1
    assert np.concatenate(stored).tolist() == whole.tolist()
