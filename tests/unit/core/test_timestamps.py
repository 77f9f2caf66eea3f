"""Which texts LLaMA-Factory's loader reads as times, beside the loader itself (`datasets`)."""

import json
from pathlib import Path

import pytest

from tuneyard.core.timestamps import BATCH, looks_like_timestamp, timestamps_in_file, timestamps_in_records

TIMES = [
    "2023-05-02", "0000-01-01", "2023-05-02 10", "2023-05-02T10Z", "2023-05-02 10:11", "2023-05-02T10:11:12",
    "2023-05-02 10:11:12Z", "2023-05-02T10:11:12+0100", "2023-05-02T10:11:12-05:00",
]  # fmt: skip
TEXTS = [
    "2023-05-02.", " 2023-05-02", "2023-5-2", "2023-02-30", "20230502", "2023", "2023-05-02Z", "05/02/2023",
    "2023-05-02T10:11:12.5", "2023-05-02T24:00:00", "2023-05-02t10:11", "May 2, 2023", "10:11:12", "", "1",
]  # fmt: skip


def write(folder: Path, name: str, rows: list[dict]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def loaded_types(path: Path, cache: Path) -> dict[str, str]:
    """Return the type of each column as the loader has it."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    rows = load_dataset("json", data_files=[str(path)], split="train", cache_dir=str(cache))
    return {name: str(feature) for name, feature in rows.features.items()}


def test_single_texts_are_told_as_the_loader_has_them(tmp_path: Path) -> None:
    columns = {f"c{number}": text for number, text in enumerate([*TIMES, *TEXTS])}
    path = write(tmp_path, "a.jsonl", [columns, columns])
    theirs = {name for name, kind in loaded_types(path, tmp_path / "c").items() if "timestamp" in kind}
    assert set(timestamps_in_file(path, columns)) == theirs == {f"c{n}" for n in range(len(TIMES))}
    assert all(map(looks_like_timestamp, TIMES))


def talk(answer: str) -> list[dict]:
    return [{"from": "human", "value": "2023-05-02"}, {"from": "gpt", "value": answer}]


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        pytest.param([{"a": "2023-05-02"}, {"a": "soon"}], [], id="one text among dates"),
        pytest.param([{"a": "2023-05-02"}, {"a": ""}], [], id="an empty text among dates"),
        pytest.param([{"a": None}, {"a": "2023-05-02"}], ["a"], id="null beside dates"),
        pytest.param([{"a": "2023-05-02"}, {"b": "x"}], ["a"], id="a missing key"),
        pytest.param([{"a": talk("2023-05-03")}], ["a"], id="turns that are all dates"),
        pytest.param([{"a": talk("yes")}], [], id="turns"),
        pytest.param([{"a": []}, {"a": [["2023-05-02", "2023-05-03"]]}], ["a"], id="history"),
        pytest.param([{"a": {"from": "gpt", "value": "2023-05-02"}}], ["a"], id="the chosen answer"),
        pytest.param([{"a": 20230502}], [], id="numbers"),
    ],
)
def test_columns_are_told_as_the_loader_has_them(
    tmp_path: Path, rows: list[dict], columns: list[str]
) -> None:
    path = write(tmp_path, "a.jsonl", rows)
    assert list(timestamps_in_file(path, ["a", "none"])) == columns
    types = loaded_types(path, tmp_path / "c")
    assert ("timestamp" in types["a"]) == bool(columns)
    records = [json.dumps(row).encode() for row in rows]
    assert timestamps_in_records(records, ["a"]) == set(columns)


def test_an_array_keeps_its_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"a": time} for time in TIMES]))
    assert timestamps_in_file(path, ["a"]) == {} and loaded_types(path, tmp_path / "c") == {
        "a": "Value('string')"
    }
    lines = write(tmp_path, "b.json", [{"a": time} for time in TIMES])
    assert timestamps_in_file(lines, ["a"]) == {"a": 1}


def lines_of(text: str, count: int, width: int) -> str:
    """Return records of `width` bytes a line."""
    short = json.dumps({"a": text, "pad": ""})
    return f'{short[:-2]}{"x" * (width - len(short) - 1)}"}}\n' * count


@pytest.mark.parametrize("width", [1000, 1024])
@pytest.mark.parametrize("more", [0, 1])
def test_each_batch_of_the_loader_has_types_of_its_own(tmp_path: Path, width: int, more: int) -> None:
    """The first batch ends with the line that holds the byte BATCH; texts before dates, or one text more."""
    from datasets import load_dataset

    count = BATCH // width + 1 + more
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of("text", count, width) + lines_of("2023-05-02", 50, width))
    assert timestamps_in_file(path, ["a"]) == ({} if more else {"a": count + 1})
    rows = load_dataset("json", data_files=[str(path)], split="train", cache_dir=str(tmp_path / "c"))
    assert rows[-1]["a"] == ("2023-05-02" if more else "2023-05-02 00:00:00")


def test_dates_in_the_first_batch_alone_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of("2023-05-02", BATCH // 1000 + 1, 1000) + lines_of("text", 50, 1000))
    assert timestamps_in_file(path, ["a"]) == {"a": 1}


@pytest.mark.parametrize("content", ["", "\n", "{", "\ufeff{}", '{"a": 1}\n[', "3\n", '{"a": "2023-05-02"'])
def test_what_is_no_list_of_records_says_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    assert timestamps_in_file(path, ["a"]) == {}
