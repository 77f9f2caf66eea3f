"""python -m eval.code against a server that writes known programs."""

from pathlib import Path

import pytest

from tests.cli import scoring
from tests.cli.scoring import call
from tests.conftest import ROOT
from tests.json_files import read_json, read_lines, write_json, write_lines
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.code import cli, program_of
from tuneyard.eval.compare import cli as compare
from tuneyard.eval.statistics.rates import wilson

TASKS = ROOT / "eval/suites/toolkit-code.jsonl"
ROWS = read_lines(TASKS)


def ask(data: Path, out: Path, said: dict[str, str], *more: str) -> None:
    scoring.ask(cli, lambda text: said.get(text, "I cannot."), "--data", data, "--out", out, *more)


def test_solutions_pass_and_everything_else_says_why(tmp_path, capsys) -> None:
    said = {row["instruction"]: f"Here it is:\n```python\n{row['output']}```\nDone." for row in ROWS[:15]}
    said[ROWS[15]["instruction"]] = "```py\ndef transpose(matrix):\n    return matrix\n```"
    ask(TASKS, tmp_path / "out", said, "--run-code")
    folder = tmp_path / "out/m/toolkit-code"
    rows = read_lines(folder / "predictions.jsonl")
    assert [row["correct"] for row in rows] == [True] * 15 + [False] * 5
    assert rows[15]["why"] == "failed: transpose([[1, 2], [3, 4], [5, 6]]) == [[1, 3, 5], [2, 4, 6]]"
    assert rows[16]["why"].startswith("SyntaxError")
    found = read_json(folder / "results.json")
    assert (found["accuracy"], found["n"], found["ci95"]) == (0.75, 20, list(wilson(15, 20)))
    assert found["failures"] == {"SyntaxError": 4, "failed": 1}
    assert "pass@1 75.0%" in capsys.readouterr().out
    call(compare, tmp_path / "out", "--out", tmp_path / "table")
    assert "75.0 %" in (tmp_path / "table/table.md").read_text()


def test_a_kept_reason_that_is_no_text_is_a_reason(tmp_path) -> None:
    write_lines(tmp_path / "two.jsonl", ROWS[:2])
    ask(tmp_path / "two.jsonl", tmp_path / "out", {}, "--run-code")
    file = tmp_path / "out/m/two/predictions.jsonl"
    first, second = read_lines(file)
    write_lines(file, [first, {**second, "too_long": 2048}])
    again = ("--rescore", tmp_path / "out", "--data", tmp_path / "two.jsonl", "--run-code")
    call(cli, *again, "--out", tmp_path / "new")
    assert read_json(tmp_path / "new/m/two/results.json")["failures"] == {"2048": 1, "SyntaxError": 1}


def test_nothing_runs_unless_it_is_agreed_to(tmp_path, refused) -> None:
    with refused(RequestError, "--run-code"):
        ask(TASKS, tmp_path / "out", {})


@pytest.mark.parametrize("tests", [None, [], "f() == 1", [1]])
def test_a_task_without_tests_is_named(tmp_path, tests) -> None:
    data = tmp_path / "tasks.jsonl"
    write_json(data, {"instruction": "a", "output": "b", "tests": tests})
    with raises(ContentError, "record 1", "tasks.jsonl", "tests"):
        ask(data, tmp_path / "out", {}, "--run-code")


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("x = 1", "x = 1"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("a\n```python\nx = 1\n```\nb\n```python\ny = 2\n```", "x = 1\n"),
        ("```python\nx = 1", "x = 1"),
        ("<think>```python\ny\n```</think>```python\nx = 1\n```", "x = 1\n"),
    ],
)
def test_the_program_in_an_answer(answer: str, program: str) -> None:
    assert program_of(answer) == program
