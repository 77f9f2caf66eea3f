"""Safetensors: what the reference library wrote is read, what it refuses is refused, rounding is IEEE's."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from tests.json_files import write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.weights.adapter_files import check_base, full_tensor_mismatch
from tuneyard.core.weights.base_models import base_config
from tuneyard.core.weights.tensors import (
    PREFETCHED,
    from_fp32,
    open_weights,
    prefetch,
    read_shards,
    to_fp32,
    write_weights,
)

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": VALUES, "b": np.ones(4, np.float16)}, path, {"format": "pt"})
    return path


def test_library_reads_what_we_wrote(tmp_path):
    path = tmp_path / "y.safetensors"
    specs = [("a", "F32", (2, 3)), ("b", "F16", (2, 3))]
    write_weights(path, specs, iter([VALUES, VALUES]))
    found = load_file(path)
    np.testing.assert_array_equal(found["a"], VALUES)
    np.testing.assert_array_equal(found["b"], VALUES.astype(np.float16))
    assert open_weights(path).read("b").dtype == np.float32
    with safe_open(path, "numpy") as opened:
        assert opened.metadata() == {"format": "pt"}
    start = 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]
    assert start % 8 == 0


def test_bf16_is_that_of_the_library_which_needs_torch_for_it(tmp_path):
    """Both ways: what torch rounds and the library saves, and what we round and write."""
    import torch
    from safetensors.torch import load_file as load_tensors
    from safetensors.torch import save_file as save_tensors

    high = np.arange(0x7F80, dtype=np.uint32)[:, None] << 16  # every positive bf16, and edges between them
    edges = (high | np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).view(np.float32)
    values = np.concatenate([edges[:-1], -edges[:-1]])  # all but the last rows, which round to infinity
    rounded = torch.from_numpy(values).to(torch.bfloat16)
    theirs, ours = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    save_tensors({"a": rounded}, theirs)
    write_weights(ours, [("a", "BF16", values.shape)], iter([values]))
    np.testing.assert_array_equal(open_weights(theirs).read("a"), rounded.float().numpy())
    assert torch.equal(load_tensors(ours)["a"], rounded)
    with pytest.raises((KeyError, TypeError, SafetensorError)):
        load_file(theirs)  # numpy has no such type


def test_tensors_are_written_and_read_one_at_a_time(tmp_path):
    """Four tensors of 4 MB each: neither side holds two of them beside the one in work."""
    path, shape = tmp_path / "y.safetensors", (1024, 1024)
    specs = [(name, "F32", shape) for name in "abcd"]
    tracemalloc.start()
    try:
        write_weights(path, specs, (np.full(shape, n, np.float32) for n in range(4)))
        weights = open_weights(path)
        assert [float(weights.read(name)[0, 0]) for name, _, _ in specs] == [0, 1, 2, 3]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * 4 * shape[0] * shape[1]


@pytest.mark.parametrize("change", [lambda data: data[:5], lambda data: data[:-1], lambda _: b"PK\x03\x04"])
def test_damaged_files_are_refused_by_name(file, change):
    file.write_bytes(change(file.read_bytes()))
    with raises(ContentError, file, "safetensors"):
        open_weights(file)


def test_other_dtypes_are_named_and_a_file_cut_later_is_noticed(tmp_path, file):
    save_file({"i": np.arange(4)}, tmp_path / "i")
    with raises(ContentError, "I64", "F64", "F32", "F16", "BF16"):
        open_weights(tmp_path / "i").read("i")
    opened = open_weights(file)
    file.write_bytes(file.read_bytes()[:-4])
    with raises(ContentError):
        opened.read("b")


def test_a_file_that_cannot_be_opened_has_the_reason_of_the_system(tmp_path):
    """Such as those that LLaMA-Factory saves for their owner alone: the library calls them missing."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        open_weights(tmp_path / "loop")


def test_writer_refuses_overflow_and_wrong_shapes(tmp_path):
    with raises(ContentError, "1 values", "a", "F16"):
        write_weights(tmp_path / "x", [("a", "F16", (2,))], [np.array([1, 65520], np.float32)])
    with pytest.raises(ValueError, match=r"shape \(3,\), announced as \(2,\)"):
        write_weights(tmp_path / "y", [("a", "F32", (2,))], [np.zeros(3, np.float32)])


def test_nan_stays_nan_in_bf16():
    bits = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32)
    assert np.isnan(to_fp32(from_fp32(bits.view(np.float32), "BF16"), "BF16")).all()


def test_an_entry_that_the_library_takes_as_a_list_is_refused_by_name(tmp_path):
    header = json.dumps({"a": ["F32", [1], [0, 4]], "__metadata__": None}).encode()
    path = tmp_path / "list.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with raises(ContentError, str(path), "'a'", "expected an object"):
        open_weights(path)


def test_the_files_of_an_index_have_the_tensors_that_it_names(tmp_path):
    save_file({"a": VALUES}, tmp_path / "1.safetensors")
    save_file({"b": VALUES}, tmp_path / "2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    places = {"a": "1.safetensors", "b": "2.safetensors"}
    write_json(index, {"weight_map": places})
    shards = read_shards(index)
    assert {name: list(shard.tensors) for name, shard in shards.items()} == {
        "1.safetensors": ["a"],
        "2.safetensors": ["b"],
    }
    write_json(index, {"weight_map": places | {"c": "2.safetensors"}})
    with raises(ContentError, "2.safetensors", "tensor 'c' is only in the index"):
        read_shards(index)


@pytest.mark.parametrize(
    ("name", "shape", "may_grow", "reason"),
    [
        ("lm_head.weight", [4, 3], False, ""),
        ("lm_head.weight", [5, 3], True, ""),
        ("lm_head.weight", [5, 3], False, "a larger vocabulary?"),
        ("lm_head.weight", [3, 3], True, "another base? Name its own"),  # a table never shrinks
        ("lm_head.weight", [5, 4], True, "another base? Name its own"),
        ("norm.weight", [5, 3], True, "another base? Name its own"),
    ],
)
def test_a_tensor_in_full_fits_the_base_or_is_a_table_with_new_rows(name, shape, may_grow, reason):
    misfit = full_tensor_mismatch(name, shape, [4, 3], "the base", may_grow=may_grow)
    assert bool(misfit) == bool(reason) and misfit.endswith(reason)


def test_an_adapter_in_the_place_of_its_base_is_refused(tmp_path) -> None:
    write_json(tmp_path / "adapter_config.json", {"base_model_name_or_path": "me/base"})
    with raises(RequestError, tmp_path, "its base is me/base"):
        base_config(tmp_path)


def test_bases_in_pickle_files_are_refused_and_not_taken_for_the_same(tmp_path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for number, folder in enumerate((one, other)):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "pytorch_model.bin").write_bytes(bytes([number]))
    with raises(RequestError, "one", "safetensors"):
        check_base(tmp_path / "adapter", str(one), other, str(other), same=False)


def test_results_come_in_order_and_few_are_worked_out_before_they_are_asked_for():
    begun = []

    def work(item):
        begun.append(item)
        return item * item

    results = prefetch(work, range(100))
    assert next(results) == 0
    assert len(begun) <= PREFETCHED + 1
    assert list(results) == [i * i for i in range(1, 100)]
