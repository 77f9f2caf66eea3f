"""Prompts that come without answers: a text file of lines, and records with nothing but a question."""

import json
from pathlib import Path

import pytest

from tests.json_files import write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.data.dataset import _check_names, read_datasets


def test_a_text_file_has_a_prompt_in_every_line(tmp_path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeff什么是 LoRA？\r\n\n  Why?  \n", encoding="utf-8")
    (questions,) = read_datasets((), (path,))
    assert questions.name == "prompts"
    assert [talk.messages[-1]["content"] for talk in questions.conversations] == ["什么是 LoRA？", "Why?"]
    assert questions.answers == ["", ""]


@pytest.mark.parametrize(
    ("data", "facts"),
    [(b"\n \n", "prompts.txt"), ("问".encode("gbk"), "byte 0; prompts.txt; UTF-8")],
)
def test_an_empty_or_undecodable_text_file(tmp_path, data, facts) -> None:
    (tmp_path / "prompts.txt").write_bytes(data)
    with raises(ContentError, facts):
        read_datasets((), (tmp_path / "prompts.txt",))


@pytest.mark.parametrize(
    "record", [{"prompt": "Q", "id": 7}, {"question": "Q"}, {"instruction": "Q", "input": ""}]
)
def test_a_record_may_be_nothing_but_a_question(tmp_path, record) -> None:
    write_json(tmp_path / "p.json", [record])
    (questions,) = read_datasets((), (tmp_path / "p.json",))
    assert questions.conversations[0].messages == [{"role": "user", "content": "Q"}]
    assert questions.answers == [""]


def test_a_question_with_another_pairs_answer_is_not_guessed_at(tmp_path) -> None:
    write_json(tmp_path / "p.json", [{"prompt": "Q", "output": "A"}])
    with raises(ContentError, "instruction"):
        read_datasets((), (tmp_path / "p.json",))


def write(path, *records):
    path.write_text("\n".join(map(json.dumps, records)))
    return path


@pytest.mark.parametrize("field", ["instruction", "output", "idx"])
def test_half_a_character_is_refused_before_anything_is_asked(tmp_path, field) -> None:
    whole = {"instruction": "Q", "output": "A", "idx": ""}
    with raises(ContentError, "record 2", "ud800"):
        read_datasets((), (write(tmp_path / "p.jsonl", whole, {**whole, field: "\ud800"}),))


@pytest.mark.parametrize(
    ("record", "entry"),
    [({"instruction": "a", "ouput": "b"}, {}), ({"a": "b"}, {"columns": {"prompt": "a", "respnse": "a"}})],
)
def test_a_text_under_a_misspelt_name_is_not_taken_for_empty(record, entry) -> None:
    with raises(ContentError, "found"):
        _check_names(record, entry, "place")


def test_a_row_with_images_is_refused_before_anything_is_asked(tmp_path) -> None:
    record = {"instruction": "Q", "output": "A", "images": ["a.png"]}
    with raises(ContentError, "record 1", "images"):
        read_datasets((), (write(tmp_path / "p.jsonl", record),))


@pytest.mark.parametrize("missing", [{}, {"group": None}])
def test_groups_are_of_all_rows_or_of_none(tmp_path, missing) -> None:
    whole = {"instruction": "Q", "output": "A"}
    with raises(ContentError, "record 2", "1"):
        read_datasets((), (write(tmp_path / "p.jsonl", {**whole, "group": 0}, {**whole, **missing}),))
    (questions,) = read_datasets((), (write(tmp_path / "p.jsonl", {**whole, **missing}, whole),))
    assert (questions.cluster, questions.clusters) == (None, None)


@pytest.mark.parametrize("name", ["../../esc", "a/b", "..", ".hidden"])
def test_a_dataset_whose_results_would_lie_elsewhere_is_refused(working_folder, name) -> None:
    """Its results have a folder of its name below OUT, and compare looks for them there."""
    (working_folder / "data").mkdir()
    write_json(working_folder / "data/q.json", [{"instruction": "Q", "output": "A"}])
    write_json(working_folder / "data/dataset_info.json", {name: {"file_name": "q.json"}})
    with raises(RequestError, "dataset", "folder"):
        read_datasets((name,), ())


@pytest.mark.parametrize(("names", "files"), [(("data/q/a.json",), ()), ((), (Path("data/q"),))])
def test_a_compiled_file_or_its_folder_is_answered_with_its_name(working_folder, names, files) -> None:
    (working_folder / "data/q").mkdir(parents=True)
    write_json(working_folder / "data/q/a.json", [])
    write_json(working_folder / "data/dataset_info.json", {"q_eval": {"file_name": "q/a.json"}})
    with raises(RequestError, "--dataset q_eval"):
        read_datasets(names, files)
