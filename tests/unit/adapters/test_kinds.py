"""DoRA and OFT against their formulas, written out by hand. tests/integration compares them with PEFT."""

import numpy as np
import pytest

from tests.messages import raises
from tests.unit.adapters.make import PREFIX, base_tensors, dense, factors, make, make_base
from tuneyard.adapters.fuse import fuse, plan_fusing
from tuneyard.adapters.request import FuseRequest
from tuneyard.adapters.store import open_any
from tuneyard.core.errors import ContentError
from tuneyard.core.weights.tensors import open_weights

MAGNITUDE, ROTATION = ".lora_magnitude_vector", ".oft_R.weight"
MODULES = list(factors())
ANGLE = 30.0
OFT = {
    "peft_type": "OFT", "r": 0, "lora_alpha": None, "oft_block_size": 2, "use_cayley_neumann": False,
    "peft_version": "0.18.1",
}  # fmt: skip


def magnitudes(missing=()):
    rng = np.random.default_rng(7)
    sizes = {module: 24 if module.endswith("q_proj") else 12 for module in MODULES if module not in missing}
    return {f"{PREFIX}{module}{MAGNITUDE}": rng.uniform(0.5, 2, size) for module, size in sizes.items()}


def oft_folder(folder, **config):
    """An adapter that turns each pair of inputs by `ANGLE`: Q = [[0, −t], [t, 0]], t = tan(angle / 2)."""
    triangle = np.full((12, 1), -np.tan(np.radians(ANGLE) / 2))
    tensors = {f"{PREFIX}{module}{ROTATION}": triangle for module in MODULES}
    fields = {key: value for key, value in {**OFT, **config}.items() if value is not None}
    made = make(folder, {}, extra=tensors, **fields)
    text = (made / "adapter_config.json").read_text().replace('"lora_alpha": 16, ', "")
    (made / "adapter_config.json").write_text(text)
    return made


def fused_weights(adapter, tmp_path):
    base = make_base(tmp_path / "base", base_tensors(), "F32")
    fuse(plan_fusing(FuseRequest([(str(adapter), 1.0)], base, tmp_path / "out")), lambda _: None)
    weights = open_weights(tmp_path / "out/model.safetensors")
    return {module: weights.stored(f"{module}.weight") for module in MODULES}


def test_dora_gives_each_row_its_magnitude(tmp_path):
    pairs, extra = factors(), magnitudes()
    adapter = make(tmp_path / "dora", pairs, extra=extra, use_dora=True)
    fused = fused_weights(adapter, tmp_path)
    for module, change in dense(pairs).items():
        total = base_tensors()[f"{module}.weight"].astype(np.float64) + change
        for row, magnitude in enumerate(extra[f"{PREFIX}{module}{MAGNITUDE}"]):
            expected = np.float32(magnitude) * total[row] / np.sqrt((total[row] ** 2).sum())
            np.testing.assert_allclose(fused[module][row], expected, rtol=1e-5, atol=1e-7)


def test_a_magnitude_that_is_missing_or_of_another_size_is_named(tmp_path):
    adapter = make(tmp_path / "one", extra=magnitudes(missing=MODULES[:1]), use_dora=True)
    with raises(ContentError, MODULES[0], "lora_magnitude_vector is missing"):
        open_any(adapter)
    name = f"{PREFIX}{MODULES[1]}{MAGNITUDE}"
    adapter = make(tmp_path / "two", extra={**magnitudes(), name: np.ones(5)}, use_dora=True)
    with raises(ContentError, name, "shape [5], expected [12]"):
        open_any(adapter)


def test_oft_turns_each_pair_of_inputs(tmp_path):
    adapter = oft_folder(tmp_path / "oft")
    cosine, sine = np.cos(np.radians(ANGLE)), np.sin(np.radians(ANGLE))
    fused = fused_weights(adapter, tmp_path)
    for module in MODULES:
        weight = base_tensors()[f"{module}.weight"].astype(np.float64)
        first, second = weight[:, 0::2], weight[:, 1::2]
        np.testing.assert_allclose(fused[module][:, 0::2], cosine * first + sine * second, atol=1e-6)
        np.testing.assert_allclose(fused[module][:, 1::2], cosine * second - sine * first, atol=1e-6)


def test_a_rotation_is_measured(tmp_path):
    (first, *_) = open_any(oft_folder(tmp_path / "oft")).measure(MODULES)["rotations"]
    assert first.angle == pytest.approx(ANGLE, abs=1e-4)
    assert first.nonorthogonal == pytest.approx(0, abs=1e-6)
    # each block of R − I has the norm 2·√2·sin(angle / 2)
    assert first.norm == pytest.approx(np.sqrt(12) * 2 * np.sqrt(2) * np.sin(np.radians(ANGLE) / 2), rel=1e-5)
    assert (first.blocks, first.block_size, first.parameters) == (12, 2, 12)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"oft_block_size": None}, "no oft_block_size"),
        ({"use_cayley_neumann": None}, "use_cayley_neumann null: expected true or false"),
        ({"r": 3}, "r 3 and oft_block_size 2: expected one of them"),
        ({"block_share": True}, "12 blocks"),
    ],
)
def test_a_rotation_that_is_not_known_is_refused(tmp_path, config, words):
    with raises(ContentError, words):
        open_any(oft_folder(tmp_path / "oft", **config))


def test_a_rotation_is_fused_alone_and_whole(tmp_path):
    adapter = open_any(oft_folder(tmp_path / "oft"))
    adapter.check_weight(1.0, alone=True)
    with raises(ContentError, "weight 0.5, expected 1"):
        adapter.check_weight(0.5, alone=True)
    with raises(ContentError, "Fuse it alone"):
        adapter.check_weight(1.0, alone=False)
