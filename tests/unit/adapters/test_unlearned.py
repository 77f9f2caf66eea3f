"""ΔW = 0 in all modules or in some: every command notes it, and no fraction of nothing is retained."""

from pathlib import Path

import numpy as np
import pytest

from tests.messages import printed
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import PREFIX, base_tensors, factors, make, make_base
from tuneyard.adapters.kinds.dora import MAGNITUDE
from tuneyard.adapters.model.store import open_any
from tuneyard.adapters.model.unlearned import unlearned_modules
from tuneyard.core.weights.base_models import open_base
from tuneyard.core.weights.oft_rotations import ROTATION

LAYER = "model.layers.{}.self_attn.{}"
PATHS = [LAYER.format(layer, name) for layer in (0, 1) for name in ("q_proj", "v_proj")]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_base("base", base_tensors(), "F32")


def zeroed(side, paths):
    """Random factors, of which A (0), B (1), or both in a way that cancels (2) is 0 in some modules."""
    pairs = factors(1)
    for path in paths:
        a, b = pairs[path]
        if side == 2:  # the columns of B that are not 0 meet rows of A that are
            a[4:], b[:, :4] = 0, 0
            continue
        (a, b)[side][:] = 0
    return pairs


@pytest.mark.parametrize("side", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_zero_factors_are_noted_by_show_fuse_and_merge(side, count):
    make("a", zeroed(side, PATHS[:count]))
    adapter = open_any("./a")
    assert unlearned_modules(adapter, None) == PATHS[:count]
    out, fused = call("fuse", "./a", "--base", "base", "--out", "out", "--same-base")
    _, shown = call("show", "./a")
    merged, noted = call("merge", "./a=1", "--out", "merged")
    for text in (fused, shown, noted):
        printed(text, "ΔW = 0", count)
        assert ("nothing was learned" in text) == (count == 4)
    assert ("retained fraction" in out) == (count < 4)
    assert ("Merged exactly" in merged) == (count < 4)


def test_a_trained_adapter_gets_no_note():
    make("a")
    for words in (("show", "./a"), ("merge", "./a=1", "--out", "merged")):
        assert "ΔW = 0" not in call(*words)[1]


def test_only_full_tensors_may_have_learned():
    head = {f"{PREFIX}lm_head.weight": np.ones((50, 24), np.float32)}
    make("a", zeroed(1, PATHS), extra=head, modules_to_save=["lm_head"])
    _, shown = call("show", "./a")
    printed(shown, "lm_head.weight", "4")
    assert "nothing was learned" not in shown


@pytest.mark.parametrize(("gain", "count"), [(1.0, 4), (1.002, 4), (1.1, 0)])
def test_magnitudes_of_a_dora_are_compared_with_the_base(gain, count):
    """bf16 rounds a magnitude by up to 0.4 %: that is the start, and not learned."""
    magnitudes = {}
    for path in PATHS:
        norms = np.linalg.norm(base_tensors()[f"{path}.weight"].astype(np.float64), axis=1)
        magnitudes[f"{PREFIX}{path}{MAGNITUDE}"] = (norms * gain).astype(np.float32)
    make("a", zeroed(1, PATHS), extra=magnitudes, use_dora=True)
    adapter = open_any("./a")
    assert len(unlearned_modules(adapter, open_base(Path("base")))) == count
    assert "tuneyard adapter fuse" in call("show", "./a")[1]
    out, fused = call("fuse", "./a", "--base", "base", "--out", "out", "--same-base")
    assert ("nothing was learned" in fused) == (count == 4)
    assert ("retained fraction" in out) == (count == 0)


def test_rotations_by_zero_are_noted():
    triangles = {f"{PREFIX}{path}{ROTATION}": np.zeros((3, 28), np.float32) for path in PATHS}
    triangles[f"{PREFIX}{PATHS[3]}{ROTATION}"] += 0.1
    fields = {"peft_type": "OFT", "r": 0, "oft_block_size": 8, "use_cayley_neumann": False}
    make("a", {}, extra=triangles, lora_alpha=None, **fields)
    assert unlearned_modules(open_any("./a"), None) == PATHS[:3]
    printed(call("show", "./a")[1], "ΔW = 0", "3 of 4")
