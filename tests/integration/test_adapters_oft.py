"""OFT adapters: fused as PEFT rotates the inputs, shown, and refused by name if nothing exact is known."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.integration.peft_oracle import distance, fused, in_4_bits, load, ours, save_adapter, weights_of
from tests.messages import raises
from tuneyard.adapters.export.source import open_source
from tuneyard.adapters.statistics import measure, similarity, text
from tuneyard.adapters.store import open_adapter, open_any
from tuneyard.core.errors import ContentError

IDS = torch.arange(60).reshape(3, 20)
EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


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


def test_a_rotation_is_fused_alone_and_whole(base, save, tiny_model, tmp_path):
    rotation = save()
    lora = save_adapter(base, tiny_model, tmp_path / "lora")
    for adapters, fact in (
        ([(rotation, 0.5)], "0.5"),
        ([(rotation, 1), (lora, 1)], "alone"),
        ([(rotation, 1), (rotation, 1)], "alone"),
    ):
        with raises(ContentError, fact, "LoRA"):
            fused(adapters, tiny_model, tmp_path / "out")
    fused([(rotation, 0), (lora, 1)], tiny_model, tmp_path / "without")


def test_what_needs_factors_refuses_oft_and_says_fuse(base, save, tiny_model, tmp_path):
    rotation = save()
    lora = save_adapter(base, tiny_model, tmp_path / "lora")
    with raises(ContentError, "OFT", "tuneyard adapter fuse", "train LoRA"):
        ours([(rotation, 1), (lora, 1)], tmp_path / "out")
    with raises(ContentError, "OFT", "tuneyard adapter fuse"):
        open_source(str(rotation), None)


REFUSED = {
    "the series of an older PEFT": ({"peft_version": "0.17.1"}, "0.17.1"),
    "no version": ({"peft_version": None}, "peft_version"),
    "no formula": ({"use_cayley_neumann": None}, "use_cayley_neumann"),
    "PEFT before 0.14": ({"oft_block_size": ...}, "oft_block_size"),
    "biases": ({"bias": "oft_only"}, "oft_only"),
    "blocks and size": ({"r": 4}, "oft_block_size"),
    "no blocks": ({"oft_block_size": 0}, "r"),
    "no terms": ({"num_cayley_neumann_terms": 0}, "num_cayley_neumann_terms"),
    "no limit": ({"coft": True, "eps": -1}, "eps"),
    "other field": ({"oft_of_tomorrow": 1}, "oft_of_tomorrow"),
    "another size": ({"oft_block_size": 16}, "16"),
    "shared": ({"block_share": True}, "block_share"),
    "not a switch": ({"coft": 3}, "coft"),
    "another target": ({"target_modules": ["k_proj"]}, "q_proj"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_variants_without_an_exact_answer_are_refused_by_name(save, tiny_model, tmp_path, name):
    changed, fact = REFUSED[name]
    adapter = save()
    path = adapter / "adapter_config.json"
    fields = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({key: value for key, value in fields.items() if value is not ...}))
    with raises(ContentError, fact):
        fused([(adapter, 1)], tiny_model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_rotations_are_refused(save, tiny_model, tmp_path):
    adapter = save()
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    for damaged, fact in (
        ({name: tensors[name] * float("nan")}, "NaN"),
        ({name: tensors[name][:1].clone()}, name.split(".")[-3]),
        ({name: tensors[name][:, :-1].clone()}, "triangle"),
        ({name: tensors[name][0].clone()}, "blocks"),
        ({name: None}, "missing"),
        ({"more.weight": tensors[name].clone()}, "more.weight"),
    ):
        changed = {key: value for key, value in {**tensors, **damaged}.items() if value is not None}
        save_file(changed, file)
        with raises(ContentError, fact):
            fused([(adapter, 1)], tiny_model, tmp_path / "out")


def test_show_reports_blocks_and_angles(base, save, tiny_model, tmp_path):
    opened = open_any(save(use_cayley_neumann=False, target_modules=EVERY))
    measured = measure(opened, opened.modules, histograms=True)
    assert measured.parameters == sum(triangle.numel() for triangle in load_file(opened.files[0]).values())
    path = "model.layers.1.mlp.down_proj"
    (module,) = (rotation for rotation in measured.rotations if rotation.path == path)
    assert (module.blocks, module.block_size, module.layer) == (4, 32, 1)
    rotations = opened.rotation_minus_identity(path) + torch.eye(32).double().numpy()
    torch.testing.assert_close(
        torch.from_numpy(rotations @ rotations.transpose(0, 2, 1)), torch.eye(32).double().expand(4, 32, 32)
    )
    assert module.nonorthogonal < 1e-12
    assert 0 < module.angle < 180
    lora = open_adapter(save_adapter(base, tiny_model, tmp_path / "lora"))
    others = measure(lora, lora.modules, histograms=False)
    assert similarity(opened, lora, (measured.norm, others.norm)) is None
    printed = "\n".join(text([measured, others], [[None, None], [None, 1.0]]))
    for fact in (
        f"{module.angle:.1f}°"[-1],
        "down_proj",
        "block size",
        "norm of R − I",
        "norm of ΔW by layer",
    ):
        assert fact in printed
