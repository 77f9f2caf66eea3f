"""Adapters as other tools save them: shards, value heads, names of vision-language models."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.json_files import write_json
from tests.messages import printed, printed_line
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import (
    dense,
    make,
    make_base,
    write_file,
)
from tuneyard.adapters.model.store import open_adapter
from tuneyard.core.weights.base_models import open_base

pytestmark = pytest.mark.usefixtures("two_adapters")


def shard():
    """Deal the tensors of an adapter out over three files with an index."""
    folder = Path("saves/rte")
    source, tensors = open_adapter(folder), {}
    for name in source.weights.tensors:
        tensors[name] = source.weights.read(name)
    places = {name: f"adapter_model-0000{i % 3 + 1}-of-00003.safetensors" for i, name in enumerate(tensors)}
    for file in set(places.values()):
        write_file(folder / file, {name: tensors[name] for name in tensors if places[name] == file})
    write_json(folder / "adapter_model.safetensors.index.json", {"weight_map": places})
    (folder / "adapter_model.safetensors").unlink()
    return folder


def test_an_adapter_in_shards_is_the_same_adapter():
    call("merge", "rte=0.5", "mnli=0.5", "--out", "whole")
    call("fuse", "rte", "--base", "base", "--out", "whole-model")
    whole = open_adapter("rte").digest
    sizes = json.loads(call("show", "rte", "--json")[0])["adapters"][0]
    shard()
    call("merge", "rte=0.5", "mnli=0.5", "--out", "parts")
    call("fuse", "rte", "--base", "base", "--out", "parts-model")
    assert (
        Path("whole/adapter_model.safetensors").read_bytes()
        == Path("parts/adapter_model.safetensors").read_bytes()
    )
    assert (
        Path("whole-model/model.safetensors").read_bytes()
        == Path("parts-model/model.safetensors").read_bytes()
    )
    found = json.loads(call("show", "rte", "--json")[0])["adapters"][0]
    assert found["modules"] == sizes["modules"]
    assert open_adapter("rte").digest != whole
    said = call("export", "rte", "--to", "hub", "--repo", "a/b", "--dry-run")[0]
    assert said.count("adapter_model-0000") == 3
    assert "adapter_model.safetensors.index.json" in said


def test_the_digest_of_an_adapter_in_shards_is_of_all_of_them():
    folder = shard()
    before = open_adapter("rte").digest
    file = folder / "adapter_model-00003-of-00003.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert open_adapter("rte").digest != before
    file.unlink()
    call("show", "rte", code=2)


@pytest.mark.parametrize("words", [["merge", "rte=1"], ["fuse", "rte", "--base", "base"]], ids=lambda w: w[0])
def test_the_value_head_of_a_reward_adapter_is_said_to_be_left_out(words):
    write_file("saves/rte/value_head.safetensors", {"v_head.summary.weight": np.ones((1, 24))})
    said = call(*words, "--out", "x")[1]
    printed_line(said, "left out", "saves/rte/value_head.safetensors")
    assert not list(Path("x").glob("value_head*"))


VISION = [
    ("qwen2_5_vl", "model.", "visual.", ""),
    ("llava", "language_model.model.", "vision_tower.", "language_model."),
]


@pytest.mark.parametrize(("kind", "text", "vision", "head"), VISION, ids=str)
@pytest.mark.parametrize("older", [True, False])
def test_modules_of_vision_language_models_are_found_by_their_older_names(kind, text, vision, head, older):
    text, vision, head = (text, vision, head) if older else ("model.language_model.", f"model.{vision}", "")
    names = {
        "model.language_model.layers.0.self_attn.q_proj": f"{text}layers.0.self_attn.q_proj",
        f"model.{VISION[kind == 'llava'][2]}blocks.0.fc1": f"{vision}blocks.0.fc1",
        "lm_head": f"{head}lm_head",
    }
    rng = np.random.default_rng(0)
    weights = {stored: rng.standard_normal((6, 5)).astype(np.float32) for stored in names.values()}
    tensors = {f"{stored}.weight": value for stored, value in weights.items()}
    make_base("full/base", {**tensors, f"{text}embed_tokens.weight": np.ones((6, 5))}, "F32", model_type=kind)
    pairs = {m: (rng.standard_normal((8, 5)), rng.standard_normal((6, 8))) for m in names}
    make("saves/a", pairs, target_modules=["q_proj", "fc1", "lm_head"])
    call("fuse", "a", "--base", "full/base", "--out", "x")
    fused = open_base(Path("x"))
    assert fused.tensors.keys() == open_base(Path("full/base")).tensors.keys()
    for module, stored in names.items():
        expected = weights[stored] + dense(pairs)[module]
        np.testing.assert_allclose(fused.read(f"{stored}.weight"), expected, atol=1e-5)
    pairs.pop("model.language_model.layers.0.self_attn.q_proj")
    make(
        "saves/a",
        pairs,
        target_modules=["language_model.layers.0.self_attn.q_proj", "fc1", "lm_head"],
        exclude_modules="x",
    )
    said = call("fuse", "a", "--base", "full/base", "--out", "y", code=1)[1]
    printed(said, "layers.0.self_attn.q_proj", "missing")
