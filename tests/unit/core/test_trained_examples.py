"""The fingerprints of training rows: which rows count, the bytes of the file, and files that are refused."""

from pathlib import Path

import numpy as np
import pytest
from xxhash import xxh3_64_intdigest

from tests.json_files import write_json
from tests.messages import printed, raises
from tuneyard.core.datasets.trained_examples import (
    MOST_ROWS,
    contains,
    has_known_rows,
    is_drawn,
    read_trained_rows,
    trained_examples,
    trained_rows_file,
    write_trained_rows,
    write_union,
)
from tuneyard.core.errors import ContentError
from tuneyard.core.training.training_run import TRAINED_ROWS

FIELD = [("xxh3", "<u8")]


def numbers(*values: int) -> "np.ndarray":
    return np.array(values, np.uint64)


def hash_of(prompt: str) -> int:
    return xxh3_64_intdigest(prompt.encode())


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Two datasets: one of Q0 … Q9, two of Q10 … Q19."""
    write_json(
        tmp_path / "dataset_info.json", {name: {"file_name": f"{name}.json"} for name in ("one", "two")}
    )
    for name, first in (("one", 0), ("two", 10)):
        rows = [{"instruction": f"Q{n}", "input": "", "output": "A"} for n in range(first, first + 10)]
        write_json(tmp_path / f"{name}.json", rows)
    return tmp_path


def numbers_of(fingerprints: "np.ndarray") -> list[int]:
    """The n of each Qn."""
    by_hash = {hash_of(f"Q{n}"): n for n in range(20)}
    return [by_hash[value] for value in fingerprints.tolist()]


def test_the_file_has_each_fingerprint_once_in_ascending_order(tmp_path: Path) -> None:
    write_trained_rows(tmp_path, [numbers(7, 2**64 - 1, 7), numbers(3)])
    header = "{'descr': [('xxh3', '<u8')], 'fortran_order': False, 'shape': (3,), }"
    content = (tmp_path / TRAINED_ROWS).read_bytes()
    assert content[:8] == b"\x93NUMPY\x03\x00" and content[12:].startswith(header.encode())
    assert content[-24:] == b"".join(value.to_bytes(8, "little") for value in (3, 7, 2**64 - 1))
    assert read_trained_rows(tmp_path).tolist() == [3, 7, 2**64 - 1]
    assert read_trained_rows(tmp_path / "nowhere") is None


def test_a_training_without_rows_has_an_empty_file(tmp_path: Path) -> None:
    write_trained_rows(tmp_path, [])
    rows = read_trained_rows(tmp_path)
    assert rows.tolist() == []
    assert contains(rows, numbers(3)).tolist() == [False]


def test_a_checkpoint_has_the_rows_of_its_training(tmp_path: Path) -> None:
    write_trained_rows(tmp_path, [numbers(3)])
    (tmp_path / "checkpoint-7").mkdir()
    assert read_trained_rows(tmp_path / "checkpoint-7").tolist() == [3]
    assert trained_rows_file(tmp_path / "checkpoint-7") == tmp_path / TRAINED_ROWS


def test_examples_are_looked_up_below_between_and_above_the_rows() -> None:
    examples = numbers(0, 3, 4, 9, 2**64 - 1, 3)
    assert contains(numbers(3, 9), examples).tolist() == [False, True, False, True, False, True]


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.array([(1,), (1,)], FIELD), "row 2"),
        (np.array([(1,), (5,), (4,)], FIELD), "row 3"),
        (np.zeros(3, np.uint64), "uint64"),
        (np.array([(1,)], [("xxh3", "<u4")]), "u4"),
        (np.array([(1,)], [("xxh3", ">u8")]), ">u8"),
        (np.array([(1, 2)], [("xxh3", "<u8"), ("group", "<u4")]), "group"),
        (np.array([[(1,)]], FIELD), "xxh3"),
        (np.array([(1.5,)], [("xxh3", "<f8")]), "f8"),
    ],
)
def test_a_foreign_file_is_refused_with_its_place(tmp_path: Path, array: "np.ndarray", found: str) -> None:
    np.save(tmp_path / TRAINED_ROWS, array)
    with raises(ContentError, tmp_path / TRAINED_ROWS, found):
        read_trained_rows(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04.", b"\x93NUMPY\x01\x00v\x00"])
def test_a_broken_file_is_refused_with_its_place(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TRAINED_ROWS).write_bytes(content)
    with raises(ContentError, tmp_path / TRAINED_ROWS, "remove it"):
        read_trained_rows(tmp_path)


@pytest.mark.parametrize(("rows", "row"), [([1, 2, 2, 3], 3), ([1, 2, 3, 4, 3], 5), ([5, 4, 3, 2], 2)])
def test_rows_are_compared_over_the_ends_of_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[int], row: int
) -> None:
    monkeypatch.setattr("tuneyard.core.datasets.trained_examples._BLOCK", 2)
    np.save(tmp_path / TRAINED_ROWS, np.array([(value,) for value in rows], FIELD))
    with raises(ContentError, tmp_path / TRAINED_ROWS, f"row {row}"):
        read_trained_rows(tmp_path)


def sparse(path: Path, rows: int) -> None:
    """A file of so many rows, all of them one hole."""
    with path.open("wb") as file:
        header = {"descr": FIELD, "fortran_order": False, "shape": (rows,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 8 * rows)


@pytest.mark.parametrize(
    ("rows", "found"), [(1 << 26, "row 2"), (MOST_ROWS + 1, "134,217,729"), (1 << 34, "rows")]
)
def test_a_sparse_file_is_refused_before_it_is_read(tmp_path: Path, rows: int, found: str) -> None:
    sparse(tmp_path / TRAINED_ROWS, rows)
    with raises(ContentError, tmp_path / TRAINED_ROWS, found):
        read_trained_rows(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    write_trained_rows(tmp_path, [numbers(3)])
    (tmp_path / "mailed").mkdir()
    (tmp_path / "mailed" / TRAINED_ROWS).symlink_to(tmp_path / TRAINED_ROWS)
    with raises(ContentError, tmp_path / "mailed" / TRAINED_ROWS, "link"):
        read_trained_rows(tmp_path / "mailed")


def test_a_union_has_the_rows_of_all_and_is_not_made_where_one_is_unknown(tmp_path: Path) -> None:
    for name, rows in (("a", numbers(1, 5)), ("b", numbers(5, 2)), ("sum", numbers()), ("out", numbers())):
        (tmp_path / name).mkdir()
        if len(rows):
            write_trained_rows(tmp_path / name, [rows])
    assert write_union(tmp_path / "sum", [tmp_path / "a", tmp_path / "b"]) == []
    assert read_trained_rows(tmp_path / "sum").tolist() == [1, 2, 5]
    assert write_union(tmp_path / "out", [tmp_path / "a", tmp_path / "none"]) == []
    assert write_union(tmp_path / "out", []) == []
    (tmp_path / "b" / TRAINED_ROWS).write_bytes(b"")
    (note,) = write_union(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    printed(note, tmp_path / "b" / TRAINED_ROWS, "no record")
    assert list((tmp_path / "out").iterdir()) == []


def test_max_samples_takes_the_first_of_each_dataset_and_val_size_leaves_rows_out(registry: Path) -> None:
    datasets = [{"dataset": "two"}, {"dataset": "one"}]
    fingerprints, problems = trained_examples(datasets, {"max_samples": 3}, registry)
    assert (numbers_of(fingerprints), problems) == ([10, 11, 12, 0, 1, 2], {})
    parts = pytest.importorskip("datasets").Dataset.from_dict({"n": [10, 11, 12, 0, 1, 2]})
    expected = parts.train_test_split(test_size=0.5, seed=7)["train"]["n"]
    settings = {"max_samples": 3, "val_size": 0.5, "seed": 7}
    assert sorted(numbers_of(trained_examples(datasets, settings, registry)[0])) == sorted(expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"val_size": 5, "streaming": True},
        {"val_size": 0.5, "mix_strategy": "interleave_over"},
        {"val_size": "half"},
        {"val_size": float("nan")},
        {"val_size": -1},
        {"val_size": 0.5, "seed": "7"},
        {"val_size": 0.5, "seed": -7},
        {"max_samples": "many"},
        {"max_samples": -1},
    ],
)
def test_rows_that_no_setting_decides_count(registry: Path, settings: dict[str, object]) -> None:
    fingerprints, problems = trained_examples([{"dataset": "one"}], settings, registry)
    assert (numbers_of(fingerprints), problems) == (list(range(10)), {})


def test_rows_that_are_drawn_at_random_all_count(registry: Path) -> None:
    data = [{"dataset": "one", "num_samples": 4, "rows": 10}]
    assert len(trained_examples(data, {"max_samples": 2, "val_size": 1}, registry)[0]) == 10
    assert is_drawn(data[0])
    assert not is_drawn({"dataset": "one", "num_samples": 20, "rows": 10})
    assert not is_drawn({"dataset": "one", "rows": 10})
    assert is_drawn({"dataset": "one", "num_samples": 20})


def test_which_settings_decide_the_rows() -> None:
    assert has_known_rows({})
    assert has_known_rows({"val_size": 0.1})
    assert has_known_rows({"streaming": True})
    assert has_known_rows({"mix_strategy": "interleave_over"})
    assert not has_known_rows({"mix_strategy": "interleave_under"})
    assert not has_known_rows({"val_size": 10, "streaming": True})


def test_a_dataset_that_is_gone_has_its_reason(registry: Path) -> None:
    data = [{"dataset": "one", "file": str(registry / "gone.json")}, {"dataset": "two"}]
    fingerprints, problems = trained_examples(data, {}, registry)
    assert numbers_of(fingerprints) == list(range(10, 20))
    printed(problems["one"], registry / "gone.json")
