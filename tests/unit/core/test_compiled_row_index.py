"""What lies beside a dataset's records: the same bytes from the same rows, read back as they were written."""

from array import array
from pathlib import Path

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from tests.messages import raises
from tuneyard.core.datasets.compiled import (
    SPLIT,
    TRAINED,
    fingerprints,
    read_row_index,
    row_index_file,
    write_row_index,
)
from tuneyard.core.errors import ContentError


def test_the_split_of_each_row_comes_back_as_it_was_written(tmp_path: Path) -> None:
    records = tmp_path / "whole.jsonl"
    columns = {TRAINED: array("Q", [2**64 - 1, 6, 0]), SPLIT: array("B", [0, 1, 254])}
    write_row_index(row_index_file(records), array("Q", [5, 6, 7]), columns)
    found = read_row_index(records)
    assert found.clusters == {}
    assert found.fingerprints.tolist() == [5, 6, 7]
    assert (list(found.trained), list(found.splits)) == ([2**64 - 1, 6, 0], [0, 1, 254])


def test_an_older_versions_hashes_are_not_taken(tmp_path: Path) -> None:
    rows = np.array([(5, 0), (6, 0)], [("fingerprint", "<u8"), ("premise", "<u4")])
    np.save(tmp_path / "train.examples.npy", rows)
    with raises(ContentError, "train.examples.npy", "xxh3"):
        read_row_index(tmp_path / "train.json")


def test_a_fingerprint_is_the_hash_of_the_joined_turns() -> None:
    assert list(fingerprints(["a\x1eb"])) == [xxh3_64_intdigest(b"a\x1eb")]


@pytest.mark.parametrize("content", [b"", b"nothing of numpy's", b"\x93NUMPY\x01\x00v\x00"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.examples.npy").write_bytes(content)
    with raises(ContentError, "train.examples.npy"):
        read_row_index(tmp_path / "train.json")


def test_pickles_are_not_opened_and_other_arrays_not_taken(tmp_path: Path) -> None:
    np.save(tmp_path / "a.examples.npy", np.array([{}], dtype=object), allow_pickle=True)
    with raises(ContentError):
        read_row_index(tmp_path / "a.json")
    np.save(tmp_path / "b.examples.npy", np.zeros(3))
    with raises(ContentError, "xxh3"):
        read_row_index(tmp_path / "b.json")


def test_columns_of_another_length_are_refused(tmp_path: Path) -> None:
    for numbers in ([0], [0, 1, 2]):
        with pytest.raises(ValueError, match="expected 2"):
            write_row_index(tmp_path / "a", array("Q", [1, 2]), {"premise": array("I", numbers)})
    assert list(tmp_path.iterdir()) == []


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    clusters = {"前提": array("I", [3, 2**32 - 1, 0]), "doc": array("I", [0, 0, 258])}
    assert read_row_index(tmp_path / "a.json") is None
    write_row_index(row_index_file(tmp_path / "a.json"), array("Q", [2**64 - 1, 2**63, 515]), clusters)
    found = read_row_index(tmp_path / "a.json")
    assert found.trained is None and found.splits is None
    assert found.fingerprints.tolist() == [2**64 - 1, 2**63, 515]
    assert {name: array("I", numbers) for name, numbers in found.clusters.items()} == clusters
    assert found.fingerprints.dtype == np.uint64 and found.clusters["doc"].dtype == np.uint32
    write_row_index(row_index_file(tmp_path / "b.json"), array("Q", []), {})
    empty = read_row_index(tmp_path / "b.json")
    assert len(empty.fingerprints) == 0 and empty.clusters == {}


def test_rows_begin_where_they_can_be_mapped(tmp_path: Path) -> None:
    numbers = array("I", [1, 2, 3])
    for clusters in ({}, {"p": numbers}, {"premise": numbers, "a longer name": numbers}):
        write_row_index(tmp_path / "a", array("Q", [1, 2, 3]), clusters)
        assert ((tmp_path / "a").stat().st_size - 3 * (8 + 4 * len(clusters))) % 64 == 0
