"""The registry as LLaMA-Factory reads it: what is not there is said, what is broken is refused."""

import json
from pathlib import Path

import pytest

from tuneyard.core.datasets import find_dataset, read_records, read_registry, registry_folder
from tuneyard.core.errors import ContentError, RequestError


def registry(folder: Path, text: str) -> Path:
    (folder / "dataset_info.json").write_text(text)
    return folder


def test_a_dataset_is_found_by_its_name(tmp_path: Path) -> None:
    registry(tmp_path, json.dumps({"a": {"file_name": "a/a.json"}}))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.json").write_text('[\n{"instruction": "x"}\n]')
    found = find_dataset("a", tmp_path)
    assert read_records(found.path) == [{"instruction": "x"}]


def test_an_unknown_name_lists_what_is_registered(tmp_path: Path) -> None:
    registry(tmp_path, '{"alpaca_rte_eval": {"file_name": "x"}}')
    with pytest.raises(RequestError, match=r'registered: alpaca_rte_eval\); did you mean "alpaca_rte_eval"'):
        find_dataset("alpaca_rte_evl", tmp_path)
    registry(tmp_path, json.dumps({f"set_{number}": {"file_name": "x"} for number in range(104)}))
    with pytest.raises(RequestError, match=r"registered: (set_\d+, ){10}… and 94 more\)"):
        find_dataset("set", tmp_path)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    registry(tmp_path, '{"a": {"file_name": "gone.json"}}')
    with pytest.raises(RequestError, match="gone.json: file of dataset 'a' not found"):
        find_dataset("a", tmp_path)


@pytest.mark.parametrize("text", ["[]", '{"a": 3}', "{", ""])
def test_a_broken_registry_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ContentError, match="dataset_info.json"):
        read_registry(registry(tmp_path, text))


def test_a_registry_with_equal_keys_is_refused(tmp_path: Path) -> None:
    registry(tmp_path, '{"mine": {"file_name": "a"}, "b": {}, "mine": {"file_name": "c"}}')
    with pytest.raises(ContentError, match=r"dataset_info\.json: the key 'mine' stands 2 times"):
        read_registry(tmp_path)


def test_no_registry_is_an_empty_one(tmp_path: Path) -> None:
    assert read_registry(tmp_path) == {}


def test_json_lines_may_hold_line_separators_in_strings(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a\u2028b"}\n\n{"text": "c"}\n', encoding="utf-8")
    assert [row["text"] for row in read_records(path)] == ["a\u2028b", "c"]


@pytest.mark.parametrize("text", ["[1]", "[{]", '{"a":1}\n3'])
def test_records_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ContentError, match=r"a\.json"):
        read_records(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1}\n{"a": }\n', r"broken\.jsonl:2: not JSON: Expecting value \(column 7\)"),
        ('{"a": 1}\n\n\n{"a"\n', r"broken\.jsonl:4: not JSON: Expecting ':' delimiter \(column 5\)"),
        ('[{"a": 1},\n{"a": }]', r"broken\.jsonl:2: not JSON: Expecting value \(column 7\)"),
        ('{"a": 1}\n{"a": ' + "9" * 5000 + "}", r"broken\.jsonl:2: a number of too many digits"),
        ('{"a": 1}\n' + "[" * 100_000, r"broken\.jsonl:2: nested too deep"),
    ],
)
def test_the_line_that_is_no_json_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(text)
    with pytest.raises(ContentError, match=said):
        read_records(path)


def test_a_name_that_one_of_both_folders_registers_is_found_there(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, name in (("data", "identity"), ("dataset_info", "alpaca")):
        (tmp_path / folder).mkdir()
        registry(tmp_path / folder, json.dumps({name: {"file_name": "x"}, "both": {"file_name": "x"}}))
    names = ("identity", "alpaca", "both", "neither", "")
    found = [str(registry_folder(name=name)) for name in names]
    assert found == ["data", "dataset_info", "dataset_info", "dataset_info", "dataset_info"]
    assert (
        "identity is not in dataset_info/dataset_info.json: reading data/dataset_info.json"
        in capsys.readouterr().err
    )
    assert str(registry_folder(Path("dataset_info"), "identity")) == "dataset_info"
    with pytest.raises(
        RequestError, match="it is in dataset_info/dataset_info.json: in a recipe `dataset_dir"
    ):
        find_dataset("alpaca", Path("data"))
    registry(tmp_path / "data", "{")
    assert str(registry_folder(name="identity")) == "dataset_info"


def test_a_folder_that_is_named_and_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset_info").mkdir()
    with pytest.raises(RequestError, match='dataset_inf: no such folder; did you mean "dataset_info"?'):
        registry_folder(tmp_path / "dataset_inf")
