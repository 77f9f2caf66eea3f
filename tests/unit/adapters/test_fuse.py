"""Fusing against W + ΔW rounded from fp64, element by element; copies byte by byte; resumption; refusals."""

import numpy as np
import pytest

from tests.folders import names
from tests.json_files import read_json, write_json
from tests.messages import printed, raises
from tests.runs_cut import tree
from tests.unit.adapters.make import base_tensors, factors, make, make_base, stored
from tuneyard.adapters.fuse.fuse import (
    RECORD,
    FuseRequest,
    parse_size,
    plan_fusing,
    retained_lines,
    write_model,
)
from tuneyard.adapters.fuse.rounding import total
from tuneyard.adapters.fuse.shards import copy_tensor
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.weights.tensors import Tensor, open_weights, to_fp32


def fused(wanted, base, out, **options):
    """Fuse and return ({tensor: stored values}, retained by module, plan)."""
    plan = plan_fusing(FuseRequest(list(wanted), base, out, **options))
    retained = write_model(plan, lambda _: None, [])
    return stored_in(out), retained, plan


def alone(base, weight=1, out="out", **options):
    """The same of one adapter: a, which lies beside the base or is made there."""
    adapter = base.parent / "a"
    if not adapter.exists():
        make(adapter)
    return fused([(adapter, weight)], base, base.parent / out, **options)


def stored_in(folder):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= {name: stored(tensor) for name, tensor in open_weights(path).tensors.items()}
    return found


def test_everything_else_of_the_folder_is_carried(tmp_path):
    base = make_base(tmp_path / "base", base_tensors(), shards=3, rope_theta=1e6)
    (base / "LICENSE").write_text("text")
    (base / "README.md").write_text("the base's")
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    adapter = make(tmp_path / "a")
    (adapter / "chat_template.jinja").write_text("as trained")
    found, _, plan = alone(base)
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    expected = ["LICENSE", "README.md", "chat_template.jinja", "config.json", "merge.json", *shards]
    expected += ["model.safetensors.index.json", "tokenizer.json"]
    assert names(tmp_path / "out") == sorted(expected)
    assert read_json(tmp_path / "out/config.json") == read_json(base / "config.json")
    untouched = [name for name in found if "_proj.weight" not in name]
    before = stored_in(base)
    assert untouched and all(found[name].tobytes() == before[name].tobytes() for name in untouched)
    index = read_json(tmp_path / "out/model.safetensors.index.json")
    assert set(index["weight_map"]) == set(found)
    assert index["metadata"]["total_size"] == plan.bytes
    assert "a (1)" in (tmp_path / "out/README.md").read_text()
    assert (tmp_path / "out/chat_template.jinja").read_text() == "as trained"


def test_a_head_that_a_tied_base_stores_is_changed_alone(tmp_path):
    """A head that is not stored: tests/integration/test_adapters_peft.py."""
    start = base_tensors()["model.embed_tokens.weight"]
    base = make_base(
        tmp_path / "base", {**base_tensors(), "lm_head.weight": start}, "F32", tie_word_embeddings=True
    )
    make(tmp_path / "a", {"lm_head": (np.ones((4, 24)), np.ones((50, 4)))}, r=4, target_modules=["lm_head"])
    found, _, _ = alone(base)
    np.testing.assert_array_equal(found["lm_head.weight"], (start + 16.0).astype(np.float32))  # alpha is 16
    np.testing.assert_array_equal(found["model.embed_tokens.weight"], start)
    assert read_json(tmp_path / "out/config.json")["tie_word_embeddings"] is False


def test_tied_base_stays_tied_where_neither_is_touched(tmp_path):
    base = make_base(tmp_path / "base", base_tensors(), tie_word_embeddings=True)
    found, _, _ = alone(base)
    assert "lm_head.weight" not in found
    assert read_json(tmp_path / "out/config.json")["tie_word_embeddings"] is True


@pytest.mark.parametrize("limit", [2000, 5000, 10**9])
def test_shards_keep_to_their_size(tmp_path, limit):
    base = make_base(tmp_path / "base", base_tensors(), shards=2)
    whole, _, _ = alone(base, out="whole")
    found, _, plan = alone(base, max_shard=limit)
    assert {n: v.tobytes() for n, v in found.items()} == {n: v.tobytes() for n, v in whole.items()}
    assert all(shard.bytes <= limit or len(shard.pieces) == 1 for shard in plan.shards)
    assert (len(plan.shards) == 1) == (tmp_path / "out/model.safetensors").exists()
    for path in (tmp_path / "out").glob("*.safetensors"):
        assert open_weights(path).tensors


def test_sizes_of_shards_are_parsed():
    assert parse_size("1.5gb") == 1_500_000_000
    for text in ("5", "GB", "-1GB", "5 TB", "0.0001KB", "1" * 400 + "GB"):
        with raises(RequestError):
            parse_size(text)


def test_fp32_keeps_all_of_delta_and_says_so_in_the_config(tmp_path):
    base = make_base(tmp_path / "base", base_tensors(), "BF16")
    make(tmp_path / "a", {m: (a, b * 1e-4) for m, (a, b) in factors(1).items()})
    found, retained, plan = alone(base, dtype="F32")
    assert {v.dtype for v in found.values()} == {np.dtype(np.float32)}
    assert total(retained.values()).error < 1e-4
    assert len(retained_lines(plan, retained)) == 1
    assert read_json(tmp_path / "out/config.json")["torch_dtype"] == "float32"
    before = stored_in(base)
    np.testing.assert_array_equal(
        found["model.embed_tokens.weight"], to_fp32(before["model.embed_tokens.weight"], "BF16")
    )


def test_retained_fraction_by_its_definition_and_by_the_published_figure(tmp_path):
    shapes = {"q_proj": (512, 512)}
    tensors = base_tensors(layers=1, shapes=shapes)
    base = make_base(tmp_path / "base", tensors, "BF16")
    rng = np.random.default_rng(0)
    a = np.eye(512, dtype=np.float32)
    b = (rng.standard_normal((512, 512)) * 1e-4).astype(np.float32)  # ΔW is B itself: s = 1
    module = "model.layers.0.self_attn.q_proj"
    make(tmp_path / "a", {module: (a, b)}, r=512, lora_alpha=512, target_modules=["q_proj"])
    found, retained, plan = alone(base)
    start = to_fp32(stored_in(base)[f"{module}.weight"], "BF16").astype(np.float64)
    shown = to_fp32(found[f"{module}.weight"], "BF16") - start
    counts = retained[module]
    assert abs(counts.fraction - (shown * b).sum() / (b.astype(float) ** 2).sum()) < 1e-6
    assert abs(counts.error - np.linalg.norm(shown - b) / np.linalg.norm(b)) < 1e-6
    assert counts.unchanged_share == (shown == 0).mean()
    assert 0.44 < counts.unchanged_share < 0.48  # design.md: 46 %
    printed(retained_lines(plan, retained)[1], "of its norm", "--dtype fp32")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("weight", [1e-30, 1e30])
def test_a_delta_whose_squares_fp32_cannot_represent_is_measured(tmp_path, weight):
    _, retained, _ = alone(make_base(tmp_path / "base", base_tensors()), weight)
    assert total(retained.values()).fraction == pytest.approx(int(weight > 1), abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "base_as"),
    [
        ({"quantization_bit": 4}, "nf4-double"),
        ({"quantization_bit": 4, "double_quantization": False}, "nf4"),
        ({"quantization_bit": 4, "quantization_type": "fp4"}, None),
        ({"quantization_bit": 8}, None),
        ({"lora_rank": 8}, None),
    ],
)
def test_an_adapter_of_a_qlora_training_is_noted_with_the_base_that_it_saw(tmp_path, settings, base_as):
    base = make_base(tmp_path / "base", base_tensors())
    adapter = make(tmp_path / "a", base_model_name_or_path=str(base))
    write_json(adapter / "training.json", {"inputs": {"settings": settings}})
    notes = plan_fusing(FuseRequest([(adapter, 1)], base, tmp_path / "out")).notes
    assert [f"--base-as {base_as} " in note for note in notes] == [True] * bool(base_as)
    if base_as:
        request = FuseRequest([(adapter, 1)], base, tmp_path / "out", base_as=base_as)
        assert plan_fusing(request).notes == []


def interrupt_after(shards, wanted, base, out):
    plan = plan_fusing(FuseRequest(wanted, base, out))
    done = 0

    def progress(count):
        nonlocal done
        done += count
        if done > sum(shard.bytes for shard in plan.shards[:shards]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_model(plan, progress, [])


def test_interrupted_run_goes_on_and_ends_as_an_unbroken_one(tmp_path):
    base = make_base(tmp_path / "base", base_tensors(), shards=3)
    wanted = [(make(tmp_path / "a"), 1)]
    fused(wanted, base, tmp_path / "unbroken")
    interrupt_after(1, wanted, base, tmp_path / "out")
    left = tmp_path / ".out.tuneyard-fusing"
    first = left / "model-00001-of-00003.safetensors"
    assert not (tmp_path / "out").exists()
    assert not (left / "config.json").exists()
    written = first.stat().st_mtime_ns
    fused(wanted, base, tmp_path / "out")
    assert (tmp_path / "out" / first.name).stat().st_mtime_ns == written
    assert not left.exists()
    assert tree(tmp_path / "unbroken").items() <= tree(tmp_path / "out").items()


def test_leftovers_of_another_plan_are_not_taken_up(tmp_path):
    base = make_base(tmp_path / "base", base_tensors(), shards=3)
    make(tmp_path / "a")
    interrupt_after(2, [(tmp_path / "a", 1)], base, tmp_path / "out")
    alone(base, 0.5)
    alone(base, 0.5, "fresh")
    assert tree(tmp_path / "fresh").items() <= tree(tmp_path / "out").items()
    assert RECORD not in names(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"quantization_config": {"bits": 4}}, ""),
        ({"without": "model.layers.1.self_attn.v_proj.weight"}, "module"),
        ({"layers": 1}, "layers.1"),
        ({"layers": 3}, "layers.2.self_attn.q_proj"),
        ({"shapes": {"q_proj": (24, 24), "v_proj": (24, 24)}}, "12; 24"),
    ],
)
def test_adapters_of_another_base_are_refused(tmp_path, change, facts):
    tensors = base_tensors(**{k: change.pop(k) for k in ("layers", "shapes") if k in change})
    tensors.pop(change.pop("without", None), None)
    base = make_base(tmp_path / "base", tensors, **change)
    with raises(ContentError, facts):
        alone(base)
    assert names(tmp_path) == ["a", "base"]


@pytest.mark.parametrize("place", ["../evil.safetensors", "/etc/evil.safetensors", "x.bin", "", 3, None])
def test_shard_indexes_that_lead_elsewhere_are_refused(tmp_path, place):
    base = make_base(tmp_path / "base", base_tensors(), shards=2)
    index = base / "model.safetensors.index.json"
    value = read_json(index)
    value["weight_map"]["model.embed_tokens.weight"] = place
    write_json(index, value)
    with raises(ContentError, "model.safetensors.index.json"):
        alone(base)


def test_a_missing_shard_is_named_with_its_index(tmp_path):
    base = make_base(tmp_path / "base", base_tensors(), shards=2)
    index = base / "model.safetensors.index.json"
    missing = base / read_json(index)["weight_map"]["model.embed_tokens.weight"]
    missing.unlink()
    with raises(RequestError, index, missing):
        alone(base)
    assert not (tmp_path / "out").exists()


def test_pickled_or_truncated_bases_are_refused(tmp_path):
    base = make_base(tmp_path / "base", base_tensors())
    file = base / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-2])
    make(tmp_path / "a")
    with raises(ContentError, "truncated"):
        alone(base)
    file.rename(base / "pytorch_model.bin")
    with raises(RequestError, "pickle"):
        alone(base)


def test_a_base_cut_while_it_is_copied_is_noticed(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    (tmp_path / "y").touch()
    with raises(ContentError, "shorter"):
        copy_tensor(Tensor(tmp_path / "x", "w", "U8", (9,), 0, 9), tmp_path / "y", 0)
