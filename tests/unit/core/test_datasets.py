"""The registry as LLaMA-Factory reads it: what is not there is said, what is broken is refused."""

import json
from pathlib import Path

import pytest

from tests.messages import printed_line, raises
from tuneyard.core.datasets import (
    find_dataset,
    left_out_texts,
    read_records,
    read_registry,
    registry_folder,
)
from tuneyard.core.errors import ContentError, RequestError


def registry(folder: Path, text: str) -> Path:
    (folder / "dataset_info.json").write_text(text)
    return folder


def test_a_dataset_is_found_by_its_name(tmp_path: Path) -> None:
    registry(tmp_path, json.dumps({"a": {"file_name": "a/a.json"}}))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/a.json").write_text('[\n{"instruction": "x"}\n]')
    found = find_dataset("a", tmp_path)
    assert read_records(found.path) == [{"instruction": "x"}]


def test_an_unknown_name_lists_what_is_registered(tmp_path: Path) -> None:
    registry(tmp_path, '{"alpaca_rte_eval": {"file_name": "x"}}')
    for name in ("alpaca_rte_evl", "a" * 300):  # too long for a file
        with raises(RequestError, "alpaca_rte_eval", "registered"):
            find_dataset(name, tmp_path)
    registry(tmp_path, json.dumps({f"set_{number}": {"file_name": "x"} for number in range(104)}))
    with raises(RequestError, "set_0", "set_1", "94") as error:
        find_dataset("set", tmp_path)
    assert "set_9" not in str(error.value)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    registry(tmp_path, '{"a": {"file_name": "gone.json"}}')
    with raises(RequestError, "a", "gone.json"):
        find_dataset("a", tmp_path)


def test_a_folder_is_refused_with_what_to_register(tmp_path: Path) -> None:
    """LLaMA-Factory loads every file of it, in the order of the file system."""
    registry(tmp_path, '{"many": {"file_name": "many"}}')
    (tmp_path / "many").mkdir()
    (tmp_path / "many/rows.jsonl").write_text("{}\n")
    with raises(RequestError, "many", "is a folder", "register each file as a dataset of its own"):
        find_dataset("many", tmp_path)


def test_a_registry_with_equal_keys_is_refused(tmp_path: Path) -> None:
    registry(tmp_path, '{"mine": {"file_name": "a"}, "b": {}, "mine": {"file_name": "c"}}')
    with raises(ContentError, "mine", "dataset_info.json", "duplicate key"):
        read_registry(tmp_path)


def test_no_registry_is_an_empty_one(tmp_path: Path) -> None:
    assert read_registry(tmp_path) == {}


def test_json_lines_may_hold_line_separators_in_strings(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a\u2028b"}\n\n{"text": "c"}\n', encoding="utf-8")
    assert [row["text"] for row in read_records(path)] == ["a\u2028b", "c"]


@pytest.mark.parametrize(
    ("name", "text", "facts"),
    [
        ("a.json", "[1]", ""),
        ("a.json", "[{]", ""),
        ("a.json", '{"a":1}\n3', ""),
        ("broken.jsonl", '{"a": 1}\n{"a": }\n', ":2; column 7; JSON"),
        ("broken.jsonl", '{"a": 1}\n\n\n{"a"\n', ":4; :; column 5; JSON"),
        ("broken.jsonl", '[{"a": 1},\n{"a": }]', ":2; column 7; JSON"),
        ("broken.jsonl", '{"a": 1}\n{"a": ' + "9" * 5000 + "}", ":2"),
        ("broken.jsonl", '{"a": 1}\n' + "[" * 100_000, ":2"),
    ],
)
def test_what_are_no_records_is_named_with_its_line(tmp_path: Path, name: str, text: str, facts: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with raises(ContentError, f"{name}{facts}"):
        read_records(path)


def test_a_name_that_one_of_both_folders_registers_is_found_there(working_folder, capsys) -> None:
    for folder, name in (("data", "identity"), ("dataset_info", "alpaca")):
        (working_folder / folder).mkdir()
        registry(working_folder / folder, json.dumps({name: {"file_name": "x"}, "both": {"file_name": "x"}}))
    names = ("identity", "alpaca", "both", "neither", "")
    found = [str(registry_folder(name=name)) for name in names]
    assert found == ["data", "dataset_info", "dataset_info", "dataset_info", "dataset_info"]
    printed_line(
        capsys.readouterr().err,
        "identity",
        "dataset_info/dataset_info.json",
        "reading data/dataset_info.json",
    )
    assert str(registry_folder(Path("dataset_info"), "identity")) == "dataset_info"
    with raises(RequestError, "dataset_info/dataset_info.json", "dataset_dir"):
        find_dataset("alpaca", Path("data"))
    registry(working_folder / "data", "{")
    assert str(registry_folder(name="identity")) == "dataset_info"


def test_a_folder_that_is_named_and_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset_info").mkdir()
    with raises(RequestError, "dataset_inf", "dataset_info"):
        registry_folder(tmp_path / "dataset_inf")


STORY = "The river rose for three days before the bridge gave way."


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        (STORY, ["note"]),
        (f"What broke? {STORY}", ["note"]),  # the prompt is in it, the answer is not
        (f"{STORY} So it was: the bridge.", ["note"]),  # the answer is in it, the prompt is not
        (f"What broke? {STORY} So it was: the bridge.", []),  # a copy of the whole example
        ("the bridge gave way early", ["note"]),
        ("the bridge gave way", []),
        ("桥在第三天被水冲垮了", ["note"]),
        ("桥第三天被水冲垮了", []),
    ],
)
def test_what_is_left_out_is_no_copy_and_has_five_words_or_ten_ideographs(text: str, left_out: list) -> None:
    record = {"q": "What broke?", "a": "So it was: the bridge.", "note": text}
    assert left_out_texts(record, {"prompt": "q", "response": "a"}) == left_out
