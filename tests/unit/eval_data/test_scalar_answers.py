"""Numbers and truth values as answers of --data files."""

import json
from pathlib import Path

import pytest

from tests.cli.scoring import ask, results
from tests.json_files import write_json, write_lines
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.eval import nli
from tuneyard.eval.data.dataset import read_datasets
from tuneyard.eval.defect import __main__ as defect
from tuneyard.eval.preference import read_rejected
from tuneyard.eval.qa import __main__ as qa

VALUES = [
    (5, "5"), (-3, "-3"), (0, "0"), (5.0, "5"), (-0.0, "0"), (7.5, "7.5"), (1e30, "1e+30"), (True, "true"),
    (False, "false"), ("1.0", "1.0"), (12345678901234567890, "12345678901234567890"),
]  # fmt: skip
FORMS = {
    "alpaca": lambda value: {"instruction": "Q", "output": value},
    "question": lambda value: {"question": "Q", "answer": value},
    "prompt": lambda value: {"prompt": "Q", "response": value},
    "messages": lambda value: {
        "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": value}]
    },
    "sharegpt": lambda value: {
        "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": value}]
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("value", "text"), VALUES)
def test_an_answer_is_its_text(form, value, text, tmp_path) -> None:
    path = tmp_path / "a.json"
    write_json(path, [FORMS[form](value)])
    (dataset,) = read_datasets((), (path,))
    assert dataset.answers == [text]


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
@pytest.mark.parametrize("form", ["messages", "sharegpt"])
def test_other_values_are_still_refused_with_their_place(form, value, tmp_path) -> None:
    write_json(tmp_path / "a.json", [FORMS[form]("fine"), FORMS[form](value)])
    with raises(ContentError, "record 2", "turn 2"):
        read_datasets((), (tmp_path / "a.json",))


def test_earlier_answers_of_a_conversation_are_texts_too_and_questions_are_not_changed(tmp_path) -> None:
    turns = [
        {"role": "user", "content": "1 + 1"},
        {"role": "assistant", "content": 2},
        {"role": "user", "content": "And 1 more?"},
        {"role": "assistant", "content": 3.0},
    ]
    write_json(tmp_path / "a.json", [{"messages": turns}])
    (dataset,) = read_datasets((), (tmp_path / "a.json",))
    assert [turn["content"] for turn in dataset.conversations[0].messages] == ["1 + 1", "2", "And 1 more?"]
    turns[0]["content"] = 11
    write_json(tmp_path / "b.json", [{"messages": turns}])
    with raises(ContentError, "turn 1", "11"):
        read_datasets((), (tmp_path / "b.json",))


def test_a_registered_dataset_has_texts_alone_as_in_training(tmp_path) -> None:
    write_json(tmp_path / "a.json", [FORMS["alpaca"](5)])
    write_json(tmp_path / "dataset_info.json", {"a": {"file_name": "a.json"}})
    with raises(ContentError, "record 1", "output", "5"):
        read_datasets(("a",), (), folder=tmp_path)


def test_a_pair_of_numbers_is_a_pair(tmp_path) -> None:
    write_lines(tmp_path / "pairs.jsonl", [{"instruction": "2 + 2?", "chosen": 4, "rejected": True}])
    (dataset,) = read_datasets((), (tmp_path / "pairs.jsonl",))
    assert dataset.answers == ["4"] and read_rejected(dataset) == ["true"]


COMMANDS = {
    "labels": (nli.cli, [{"instruction": f"Q {n}", "output": n % 2 == 0} for n in range(4)], "True", 0.5),
    "numbers": (nli.cli, [{"instruction": f"Q {n}", "output": n % 3} for n in range(6)], "It is 2.", 1 / 3),
    "qa": (qa.cli, [{"instruction": f"Q {n}", "output": n} for n in range(4)], "3", 0.25),
}
OPTIONS = {"labels": ("--mode", "generate"), "numbers": ("--mode", "generate")}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_score_such_answers(name: str, tmp_path: Path) -> None:
    command, rows, answer, accuracy = COMMANDS[name]
    write_lines(tmp_path / "a.jsonl", rows)
    words = ["--data", tmp_path / "a.jsonl", "--out", tmp_path / "out", *OPTIONS.get(name, ())]
    ask(command, lambda _: answer, *words)
    assert results(tmp_path / "out/m/a")["accuracy"] == pytest.approx(accuracy)


def test_a_report_of_defects_that_is_a_number_is_named(tmp_path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"instruction": "Q", "output": 5, "subtype": "s"}])
    words = ["--data", tmp_path / "a.jsonl", "--out", tmp_path / "out"]
    with raises(ContentError, "record 1", json.dumps("5")):
        ask(defect.cli, lambda _: "x", *words)
