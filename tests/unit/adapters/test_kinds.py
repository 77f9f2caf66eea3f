"""DoRA and OFT against their formulas, written out by hand. tests/integration compares them with PEFT."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import ROOT
from tests.messages import printed, raises
from tests.unit.adapters.make import PREFIX, base_tensors, factors, make, make_base
from tuneyard.adapters.export.source import open_source
from tuneyard.adapters.fuse.fuse import FuseRequest, plan_fusing, write_model
from tuneyard.adapters.merge.merge import MergeRequest, plan_merging
from tuneyard.adapters.model.store import kinds, open_adapter, open_any
from tuneyard.adapters.show.statistics import measure, similarity, text
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


def fuse_into_base(wanted, tmp_path):
    base = make_base(tmp_path / "base", base_tensors(), "F32")
    write_model(plan_fusing(FuseRequest(wanted, base, tmp_path / "out")), lambda _: None, [])


def fused_weights(adapter, tmp_path):
    fuse_into_base([(str(adapter), 1.0)], tmp_path)
    weights = open_weights(tmp_path / "out/model.safetensors")
    return {module: weights.read(f"{module}.weight") for module in MODULES}


def test_a_magnitude_that_is_missing_or_no_number_or_of_another_size_is_named(tmp_path):
    adapter = make(tmp_path / "one", extra=magnitudes(missing=MODULES[:1]), use_dora=True)
    with raises(ContentError, MODULES[0], "lora_magnitude_vector is missing"):
        open_any(adapter)
    name = f"{PREFIX}{MODULES[1]}{MAGNITUDE}"
    adapter = make(tmp_path / "two", extra={**magnitudes(), name: np.ones(5)}, use_dora=True)
    with raises(ContentError, name, "shape [5], expected [12]"):
        open_any(adapter)
    adapter = make(tmp_path / "three", extra={**magnitudes(), name: np.full(12, np.nan)}, use_dora=True)
    with raises(ContentError, "NaN"):
        fused_weights(adapter, tmp_path)
    assert not (tmp_path / "out").exists()


def test_show_says_the_range_of_magnitudes(tmp_path):
    opened = open_any(make(tmp_path / "a", extra=magnitudes(), use_dora=True))
    values = np.concatenate([*magnitudes().values()])
    shown = "\n".join(text([measure(opened, opened.modules, histograms=True)], [[1.0]]))
    assert f"magnitudes from {values.min():.4g} to {values.max():.4g}" in shown


def test_a_rotation_is_measured_and_shown(tmp_path):
    adapter, lora = open_any(oft_folder(tmp_path / "oft")), open_adapter(make(tmp_path / "lora"))
    measured, others = (measure(one, one.modules, histograms=False) for one in (adapter, lora))
    first = measured.modules[0]
    assert first.angle == pytest.approx(ANGLE, abs=1e-4)
    assert first.nonorthogonal == pytest.approx(0, abs=1e-6)
    # each block of R − I has the norm 2·√2·sin(angle / 2)
    assert first.norm == pytest.approx(np.sqrt(12) * 2 * np.sqrt(2) * np.sin(np.radians(ANGLE) / 2), rel=1e-5)
    assert (first.blocks, first.block_size, first.parameters) == (12, 2, 12)
    assert similarity(adapter, lora, measured.norm, others.norm) is None
    shown = "\n".join(text([measured, others], [[None, None], [None, 1.0]]))
    printed(shown, "block size", "norm of R − I", "30.0°", "norm of ΔW by layer")


SERIES = {"use_cayley_neumann": True}
REFUSED = {
    "the series of an older PEFT": ({**SERIES, "peft_version": "0.17.1"}, "0.17.1"),
    "no version": ({**SERIES, "peft_version": None}, "peft_version"),
    "no formula": ({"use_cayley_neumann": None}, "use_cayley_neumann null: expected true or false"),
    "PEFT before 0.14": ({"oft_block_size": None}, "no oft_block_size"),
    "biases": ({"bias": "oft_only"}, "oft_only"),
    "blocks and size": ({"r": 3}, "r 3 and oft_block_size 2: expected one of them"),
    "no blocks": ({"oft_block_size": 0}, "r"),
    "no terms": ({**SERIES, "num_cayley_neumann_terms": 0}, "num_cayley_neumann_terms"),
    "no limit": ({"coft": True, "eps": -1}, "eps"),
    "another size": ({"oft_block_size": 8}, "8"),
    "shared": ({"block_share": True}, "12 blocks"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_rotation_that_is_not_known_is_refused(tmp_path, name):
    config, words = REFUSED[name]
    with raises(ContentError, words):
        fused_weights(oft_folder(tmp_path / "oft", **config), tmp_path)
    assert not (tmp_path / "out").exists()


def test_damaged_rotations_are_refused(tmp_path):
    adapter = oft_folder(tmp_path / "oft")
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    for damaged, fact in (
        ({name: tensors[name] * float("nan")}, "NaN"),
        ({name: tensors[name][:1]}, name.split(".")[-3]),
        ({name: np.ones((12, 2), np.float32)}, "triangle"),
        ({name: tensors[name][0]}, "blocks"),
        ({name: None}, "missing"),
        ({"more.weight": tensors[name]}, "more.weight"),
    ):
        changed = {key: value for key, value in {**tensors, **damaged}.items() if value is not None}
        save_file(changed, file)
        with raises(ContentError, fact):
            fused_weights(adapter, tmp_path)


def test_a_rotation_is_fused_alone_and_whole(tmp_path):
    rotation, lora = str(oft_folder(tmp_path / "oft")), str(make(tmp_path / "lora"))
    for wanted, fact in (
        ([(rotation, 0.5)], "weight 0.5, expected 1"),
        ([(rotation, 1.0), (lora, 1.0)], "Fuse it alone"),
        ([(rotation, 1.0), (rotation, 1.0)], "Fuse it alone"),
    ):
        with raises(ContentError, fact, "LoRA"):
            fuse_into_base(wanted, tmp_path)
    fuse_into_base([(rotation, 0.0), (lora, 1.0)], tmp_path)


def test_what_needs_factors_refuses_a_rotation_and_says_fuse(tmp_path):
    rotation, lora = str(oft_folder(tmp_path / "oft")), str(make(tmp_path / "lora"))
    with raises(ContentError, "OFT", "tuneyard adapter fuse", "train LoRA"):
        plan_merging(MergeRequest([(rotation, 1.0), (lora, 1.0)], tmp_path / "out"))
    with raises(ContentError, "OFT", "tuneyard adapter fuse"):
        open_source(rotation, None)


def test_a_kind_is_one_file():
    files = sorted(path.stem for path in (ROOT / "adapters/kinds").glob("[!_]*.py"))
    modules = [kind.__module__.rpartition(".")[2] for kind in kinds()]
    assert modules == ["lora", *files] == ["lora", "dora", "oft"]
