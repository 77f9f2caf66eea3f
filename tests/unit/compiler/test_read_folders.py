"""Folders that `datasets` saved, dictionaries of them, and zips with a README inside."""

import json

import pytest

from tests.json_files import write_json
from tests.messages import raises
from tests.unit.compiler.conftest import as_csv, as_zip, error_codes
from tuneyard.compiler.init.command import propose
from tuneyard.core.errors import ContentError, RequestError

ROWS = [{"question": f"question {n}", "answer": f"answer {n}"} for n in range(5)]


def save(rows, folder):
    """Save rows as `datasets` itself does."""
    from datasets import Dataset

    Dataset.from_list(rows).save_to_disk(str(folder), num_shards=2)
    return folder


def save_dict(splits, folder):
    from datasets import Dataset, DatasetDict

    DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()}).save_to_disk(str(folder))
    return folder


def questions(bench, name="qa.json"):
    return bench.values(name, "instruction")


def test_a_saved_dataset_is_read_in_the_order_of_its_files(bench):
    report = bench.compile("qa", save(ROWS, bench.folder / "saved"))
    assert questions(bench) == [row["question"] for row in ROWS]
    assert not report.problems.counts["W224"]


def test_a_saved_dataset_without_one_of_its_files_is_refused(bench):
    folder = save(ROWS, bench.folder / "saved")
    next(folder.glob("data-00001*")).unlink()
    with raises(ContentError, "state.json"):
        bench.compile("qa", folder)


def test_a_list_of_splits_that_is_none_is_a_file_as_any_other(bench):
    bench.write("rows/dataset_dict.json", '{"splits": 5}')
    assert bench.codes(bench.compile("qa", bench.folder / "rows")) == [("E101", "rows/dataset_dict.json:1")]


@pytest.mark.parametrize("name", ["../out.arrow", 3])
def test_a_state_that_names_no_file_of_the_folder_is_refused(bench, name):
    folder = save(ROWS, bench.folder / "saved")
    write_json(folder / "state.json", {"_data_files": [{"filename": name}]})
    with raises(ContentError, "_data_files"):
        bench.compile("qa", folder)


def test_another_state_json_is_a_file_as_any_other(bench):
    folder = bench.folder / "rows"
    bench.write("rows/state.json", json.dumps(ROWS[:1]).replace("[", '{"rows": [').replace("]", "]}"))
    bench.rows("rows/a.jsonl", ROWS[1:])
    bench.compile("qa", folder)
    assert len(questions(bench)) == 5


def test_the_splits_of_a_dictionary_go_to_those_of_the_spec(bench):
    pairs = [{"sentence1": f"a {n}", "sentence2": f"b {n}", "label": n % 2, "idx": n} for n in range(6)]
    folder = save_dict(
        {"train": pairs[:3], "validation": pairs[3:5], "test": pairs[5:]}, bench.folder / "rte"
    )
    report = bench.compile("rte", folder)
    assert report.read == 6
    assert [len(bench.records(f"alpaca_rte-{split}.json")) for split in ("train", "eval", "test")] == [
        3,
        2,
        1,
    ]


def test_a_bundled_spec_and_init_take_every_split_of_a_dictionary(bench):
    folder = save_dict({"train": ROWS[:3], "test": ROWS[3:]}, bench.folder / "dict")
    assert bench.compile(propose(folder)[0]).datasets == {"dict_train": 3, "dict_test": 2}
    assert bench.compile("qa", folder).datasets == {"qa": 3, "qa_test": 2}
    bench.compile("qa", f"train={folder / 'test'}", force=True)
    assert questions(bench) == ["question 3", "question 4"]


def test_a_split_of_a_dictionary_that_a_spec_does_not_have_is_named(bench):
    folder = save_dict({"train": ROWS[:3], "extra": ROWS[3:]}, bench.folder / "dict")
    report = bench.compile("qa", folder)
    assert report.datasets == {"qa": 3}
    ((code, place),) = bench.codes(report)
    assert (code, place) == ("W224", "dict/extra")


def test_a_dictionary_without_training_rows_asks_for_a_split(bench):
    folder = save_dict({"a": ROWS[:3], "b": ROWS[3:]}, bench.folder / "dict")
    with raises(RequestError, "a, b", "train"):
        bench.compile("qa", folder)


def test_a_dictionary_that_names_a_missing_split_is_refused(bench):
    folder = save_dict({"train": ROWS}, bench.folder / "dict")
    write_json(folder / "dataset_dict.json", {"splits": ["train", "gone"]})
    with raises(ContentError, "gone"):
        bench.compile("qa", folder)


@pytest.mark.parametrize(
    "name",
    [
        "README.txt",
        "data/readme.txt",
        "LICENSE.txt",
        "notes.txt",
        "README.md",
        "README",
        ".csv",
        "__MACOSX/data/._rows.csv",
    ],
)
def test_a_readme_in_a_zip_is_no_data(bench, name):
    source = bench.write("rows.zip", as_zip({name: "What this is\n", "data/rows.csv": as_csv(ROWS)}))
    report = bench.compile("qa", source)
    assert report.read == 5
    assert questions(bench) == [row["question"] for row in ROWS]


def test_a_zip_of_texts_alone_is_read_and_one_of_a_readme_alone_is_not(bench):
    bench.compile(
        "text", bench.write("t.zip", as_zip({"README.txt": "no data", "a.txt": "a line of text\n"}))
    )
    assert bench.values("text.jsonl", "text") == ["a line of text"]
    report = bench.compile("text", bench.write("r.zip", as_zip({"README.txt": "no data"})), force=True)
    assert error_codes(report) == ["E013"]


@pytest.mark.parametrize("name", ["README.txt", ".notes.md", "dataset_info.json"])
def test_a_readme_alone_in_a_folder_is_no_data(bench, name):
    bench.write(f"rows/{name}", "no data")
    with raises(RequestError, "no data files"):
        bench.compile("text", bench.folder / "rows")


def test_a_folder_beside_a_named_file_and_one_that_is_read_itself_are_not_warned_of(bench):
    bench.rows("rows/a.jsonl", ROWS[:1])
    bench.rows("rows/more/b.jsonl", ROWS[1:])
    bench.write("rows/about/README.md", "no data")
    rows = bench.folder / "rows"
    for sources, warnings in (([rows / "a.jsonl"], 0), ([rows, rows / "more"], 0), ([rows], 1)):
        assert bench.compile("qa", *sources, force=True).problems.counts["W224"] == warnings


def test_a_zip_of_a_saved_dataset_is_refused_with_the_way_out(bench):
    folder = save_dict({"train": ROWS[:3], "test": ROWS[3:]}, bench.folder / "dict")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report = bench.compile("qa", bench.write("dict.zip", as_zip(files)))
    ((code, hint),) = [(problem.code, problem.hint) for problem in report.problems.errors]
    assert (code, "unpack the archive" in hint) == ("E012", True)


def test_a_split_of_a_name_has_the_files_of_that_name(bench):
    source = "source: {splits: {train: [train, dev], dev: [dev, validation]}}\n"
    write = "write: [{dataset: 'q_{split}', file: 'q-{split}.json', format: alpaca, output: '{answer}'}]\n"
    spec = f"like: qa\n{source}{write}"
    for split in ("train", "dev"):
        bench.rows(f"rows/{split}.jsonl", [{"question": f"{split}?", "answer": split}])
    rows = bench.folder / "rows"
    for sources in ([rows], [rows / "train.jsonl", f"dev={rows / 'dev.jsonl'}"]):
        assert bench.compile(spec, *sources).datasets == {"q_train": 1, "q_dev": 1}
