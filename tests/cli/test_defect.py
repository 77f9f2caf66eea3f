"""python -m eval.defect on compiled reports, against a server that says known things, in this process."""

import json
from pathlib import Path

import pytest

from tests.cli import scoring
from tests.cli.scoring import call
from tests.conftest import ROOT
from tests.folders import names
from tests.json_files import read_json, read_lines, write_json, write_lines
from tests.messages import printed_line
from tuneyard.compiler.cli import cli as compiler
from tuneyard.core.errors import ContentError
from tuneyard.eval.compare.__main__ import cli as compare
from tuneyard.eval.defect.__main__ import cli
from tuneyard.eval.statistics.rates import wilson

REPORTS = [  # subtype, event, judgement, what the server answers
    ("内存溢出", "甲", "主机", "判断:主机\n\n原因：溢出"),
    ("内存溢出", "乙", "主机", "**判断**：主机。\n原因：溢出"),
    ("内存溢出", "丙", "中间件", "判断：主机 原因：溢出"),
    ("断线", "丁", "网络", "<think>判断:主机</think>判断:网络"),
    ("断线", "戊", "网络", "我不知道"),
]
SAID = {event: said for _, event, _, said in REPORTS}


def raw(subtype: str, event: str, judgement: str) -> dict[str, object]:
    return {
        "instruction": [{"subtype": subtype}],
        "input": {"task": "判断故障组件", "event": event, "output_format": "判断:<组件>\n\n原因：<原因>"},
        "output": {"judgement": judgement, "reason": "见上"},
    }


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """The document's own JSON Lines: a user's and an assistant's message under `text`."""
    path = tmp_path / "reports.jsonl"
    asked = "任务：判断\n\n事件：\n{}\n\n输出格式：\n判断:<组件>"
    rows = [
        {
            "subtype": subtype,
            "text": [
                {"role": "user", "content": asked.format(event)},
                {"role": "assistant", "content": f"判断:{judgement}\n\n原因：见上"},
            ],
        }
        for subtype, event, judgement, _ in REPORTS
    ]
    write_lines(path, rows)
    return path


def ask(out: Path, *sets: object, said: dict[str, str] = SAID) -> Path:
    def answer(text: str) -> str:
        return said[text.partition("事件：\n")[2][0]]

    scoring.ask(cli, answer, "--out", out, *sets)
    return out / "m"


def test_judgements_are_scored_and_the_documents_file_holds_shares_and_rows(
    reports, tmp_path, capsys
) -> None:
    folder = ask(tmp_path / "out", "--data", reports) / "reports"
    rows = read_lines(folder / "predictions.jsonl")
    assert [row["predicted_output"] for row in rows] == ["主机", "主机", "主机", "网络", "unknown"]
    assert rows[0]["expected_reason"] == "见上" and rows[0]["reason"] == "溢出"
    found = read_json(folder / "results.json")
    assert (found["accuracy"], found["n"], found["unparsed"], found["majority"]) == (0.6, 5, 1, 0.4)
    printed_line(capsys.readouterr().out, "60.0% [23.1%, 88.2%]", "n 5", "majority 40.0%", "unparsed 1")
    written = set(names(folder)) - {"subtype_accuracy.txt"}  # without a Chinese font
    assert sorted(written) == [
        "evaluation_results.json",
        "predictions.jsonl",
        "results.json",
        "subtype_accuracy.png",
    ]
    details = read_json(folder / "evaluation_results.json")
    assert (details["overall_accuracy"], details["correct"], details["total"]) == (0.6, 3, 5)
    assert details["subtype_accuracy"]["内存溢出"] == {
        "accuracy": 2 / 3,
        "correct": 2,
        "total": 3,
        "ci95": list(wilson(2, 3)),
    }
    types = {name: (part["correct"], part["total"]) for name, part in details["type_accuracy"].items()}
    assert types == {"主机": (2, 2), "网络": (1, 2), "中间件": (0, 1)}
    assert [row["is_correct"] for row in details["results"]] == [True, True, False, True, False]
    assert details["results"][2]["user"].startswith("任务：判断\n\n事件：\n丙")


@pytest.mark.usefixtures("unrendered")
def test_a_compiled_set_is_judged_and_two_runs_compared(working_folder) -> None:
    reports = [raw(subtype, f"{event}。", judgement) for subtype, event, judgement, _ in REPORTS * 4]
    write_json(working_folder / "raw.json", reports)
    spec = ROOT / "compiler/specs/defect.yaml"
    call(compiler, "compile", spec, "--source", "raw.json")
    folder = ask(working_folder / "new", "--dataset", "defect_test") / "defect_test"
    assert read_json(folder / "results.json")["subtypes"].keys() == {"内存溢出", "断线"}
    ask(working_folder / "old", "--dataset", "defect_test", said=dict.fromkeys(SAID, "判断:主机"))
    call(compare, "old=old", "new=new", "--out", "both")
    for name in ("model_comparison", "overall_accuracy_comparison", "type_accuracy_comparison"):
        assert (working_folder / "both" / f"{name}.png").is_file()


BAD = {
    "empty": (dict.clear, ""),
    "no subtype": (lambda row: row.pop("subtype"), "record 1; subtype"),
    "no judgement": (
        lambda row: row["text"][1].update(content="主机坏了"),
        "主机坏了; record 1; 判断",
    ),
    "no answer": (lambda row: row["text"].pop(), "record 1; 判断"),
    "reserved": (lambda row: row["text"][1].update(content="判断:unknown"), "unknown"),
}


@pytest.mark.parametrize(("spoil", "facts"), BAD.values(), ids=BAD)
def test_bad_data_is_refused_before_anything_is_asked(reports, tmp_path, refused, spoil, facts) -> None:
    row = json.loads(reports.read_text().splitlines()[0])
    spoil(row)
    reports.write_text(json.dumps(row) if row else "")
    with refused(ContentError, "reports.jsonl", facts):
        call(cli, "--model", "m", "--data", reports, "--out", tmp_path / "out")
