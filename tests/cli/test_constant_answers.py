"""One expected answer for all rows, and runs in which no answer is right: both get a word."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.scoring import ask, call, results
from tests.json_files import read_json, write_lines
from tuneyard.eval import nli
from tuneyard.eval.compare import __main__ as compare
from tuneyard.eval.defect import __main__ as defect
from tuneyard.eval.qa import __main__ as qa
from tuneyard.eval.tools import __main__ as tools

COUNT = 15
REPORT = "判断：可采纳\n原因：好"
OTHER = "判断：不可采纳\n原因：坏"
TOOLS = json.dumps([{"name": "add"}])
SET_UPS = {
    "labels": (nli.cli, {"output": "yes"}, ("--mode", "generate", "--choices", "yes,no"), "yes", "no"),
    "qa": (qa.cli, {"output": "5"}, (), "5", "6"),
    "defect": (defect.cli, {"output": REPORT, "subtype": "s"}, (), REPORT, OTHER),
    "tools": (tools.cli, {"tools": TOOLS}, (), "Fine.", '{"name": "add", "arguments": {}}'),
}


def rows_of(name: str, fields: dict) -> list[dict]:
    if name == "tools":
        turns = [
            [{"role": "user", "content": f"Q {n}"}, {"role": "assistant", "content": "A"}]
            for n in range(COUNT)
        ]
        return [{"messages": pair, **fields} for pair in turns]
    return [{"instruction": f"Q {n}", **fields} for n in range(COUNT)]


@pytest.fixture
def score(tmp_path: Path) -> Callable[..., Path]:
    """Score a set-up with an answer to every third question and another to the rest."""

    def run(name: str, out: str, answer: str, other: str) -> Path:
        command, fields, options, *_ = SET_UPS[name]
        write_lines(tmp_path / "rows.jsonl", rows_of(name, fields))

        def answer_to(question: str) -> str:
            number = question.split()[-1]
            return answer if not number.isdigit() or int(number) % 3 == 0 else other

        ask(command, answer_to, "--data", tmp_path / "rows.jsonl", "--out", tmp_path / out, *options)
        return tmp_path / out / "m"

    return run


@pytest.mark.parametrize("name", SET_UPS)
def test_one_expected_answer_supports_no_verdict_on_accuracy(name, score, tmp_path, capsys) -> None:
    right, wrong = SET_UPS[name][3:]
    runs = [f"tuned={score(name, 'all', right, right)}", f"base={score(name, 'some', right, wrong)}"]
    shown = capsys.readouterr()
    assert results(tmp_path / "all/m/rows")["accuracy"] == 1.0
    assert results(tmp_path / "some/m/rows")["accuracy"] == pytest.approx(1 / 3)
    call(compare.cli, *runs, "--out", tmp_path / "verdict")
    verdict = capsys.readouterr().out.splitlines()[0]
    section = read_json(tmp_path / "verdict/table.json")["datasets"]["rows"]
    assert verdict.startswith("No verdict on accuracy") and section["majority"] is None
    assert "majority none" in shown.out
    assert shown.err.count("all expected answers are the same") == 2


@pytest.mark.parametrize("name", ["labels", "qa", "defect"])
def test_a_run_without_a_right_answer_gets_a_word(name, score, capsys) -> None:
    wrong = SET_UPS[name][4]
    score(name, "none", wrong, wrong)
    assert "no answer is correct" in capsys.readouterr().err


def test_a_run_without_a_right_call_gets_a_word_though_other_turns_are_right(tmp_path, capsys) -> None:
    call_text = '{"name": "add", "arguments": {"a": 1}}'
    expected = [{"from": "human", "value": "Q 1"}, {"from": "function_call", "value": call_text}]
    plain = [{"from": "human", "value": "Q 2"}, {"from": "gpt", "value": "A"}]
    write_lines(
        tmp_path / "rows.jsonl", [{"conversations": turns, "tools": TOOLS} for turns in (expected, plain)]
    )
    words = ["--data", tmp_path / "rows.jsonl", "--out", tmp_path / "out"]
    ask(tools.cli, lambda _: "add(1)", *words)
    assert results(tmp_path / "out/m/rows")["accuracy"] == 0.5
    assert "no call is correct" in capsys.readouterr().err
    ask(tools.cli, lambda _: call_text, *words, "--force")
    assert "no call is correct" not in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "warned"), [("6", 1), ("5", 0)])
def test_a_comparison_by_another_metric_names_a_run_without_any(
    answer, warned, score, tmp_path, capsys
) -> None:
    rows = [
        {"row": n, "rougeL": 0.0 if answer == "6" else n % 2, "id": n, "gold": "a b", "prediction": "c"}
        for n in range(9)
    ]
    for model, values in {"base": [{**row, "rougeL": 0.5} for row in rows], "tuned": rows}.items():
        write_lines(tmp_path / f"{model}.jsonl", values)
    call(
        compare.cli, f"base={tmp_path / 'base.jsonl'}", f"tuned={tmp_path / 'tuned.jsonl'}",
        "--metric", "rougeL", "--out", tmp_path / "verdict",
    )  # fmt: skip
    assert capsys.readouterr().err.count("rougeL is 0 for every row") == warned
