"""Runs of one dataset are compared if they have the same rows. Other questions have a warning."""

import math
import shutil
from pathlib import Path

import pytest

from tests.fake_runs import GOLD, by_dataset, change_line, read_runs, write_run
from tests.json_files import read_json, write_json, write_lines
from tests.messages import printed, raises
from tuneyard.core.errors import RequestError
from tuneyard.eval.judge.ask import check_rows, compare_runs, unnamed_data, wrong_answers
from tuneyard.eval.judge.findings import (
    DifferentQuestions,
    DifferentSettings,
    FewClusters,
    NoCorrectAnswer,
    UnexpectedAnswers,
    UnnamedData,
)
from tuneyard.eval.report.tables import scores
from tuneyard.eval.report.verdict import decision
from tuneyard.eval.runs.find import parse_source, read_scored_runs
from tuneyard.eval.runs.findings import RunFinding
from tuneyard.eval.runs.logs import read_log


def replace_a(folder: Path, gold: list[str], predicted: list[str], **changes: object) -> None:
    """Write another run in the place of results/a/s."""
    shutil.rmtree(folder / "a")
    write_run(folder, "a", "s", gold, predicted, **changes)


def checked(folder: Path) -> list[RunFinding]:
    return check_rows(read_runs(folder)[0])


def test_other_data_is_refused_by_name(two_runs: Path) -> None:
    hashes = {"hashes": {"data": "b" * 64}}
    replace_a(two_runs, GOLD, GOLD, **hashes)
    with raises(RequestError, "a/s", "base/s"):
        checked(two_runs)


@pytest.mark.parametrize(
    ("gold", "facts"),
    [
        (GOLD[:12], "12; 20 rows; row 12; 13; 14; 15; 16"),
        ([*GOLD[:4], "no", *GOLD[5:]], "row 4 has different expected answers"),
    ],
)
def test_other_rows_and_other_expected_answers_are_refused_by_number(two_runs, gold, facts):
    replace_a(two_runs, gold, gold, hashes=read_json(two_runs / "base/s/results.json")["hashes"])
    with raises(RequestError, facts):
        checked(two_runs)


def test_as_many_but_other_rows_are_refused(two_runs):
    change_line(two_runs / "a/s/predictions.jsonl", 20, row=20)
    with raises(RequestError, "20 rows", "row 19", "20"):
        checked(two_runs)


def test_other_groups_are_refused(tmp_path: Path) -> None:
    for model, groups in [("base", list("ab") * 10), ("a", list("ba") * 10)]:
        write_run(tmp_path, model, "s", GOLD, GOLD, groups)
    with raises(RequestError, "a/s", "base/s", "--cluster"):
        checked(tmp_path)


def test_a_run_that_does_not_name_its_data_is_paired_with_a_warning(two_runs):
    path = two_runs / "a/s/results.json"
    told = read_json(path)
    write_json(path, told | {"hashes": {**told["hashes"], "data": None}})
    assert unnamed_data(by_dataset(read_runs(two_runs)[0])) == [UnnamedData(1, 2, str(two_runs / "a/s"))]


def test_other_ways_of_asking_are_warned_of(two_runs):
    path = two_runs / "base/s/results.json"
    hashes = read_json(path)["hashes"] | {"chat_template": "u"}
    asked = {"template": "qwen", "batch_tokens": 1, "model": "other"}
    facts = {"hashes": hashes, "settings": asked, "mode": "generate"}
    replace_a(two_runs, GOLD, GOLD, **facts)
    write_run(two_runs, "b", "s", GOLD, GOLD[::-1], **facts)
    before = {"template": None, "batch_tokens": 2, "model": "m"}
    write_json(path, read_json(path) | {"settings": before})
    change_line(two_runs / "a/s/predictions.jsonl", 3, instruction="another")
    base, a, b = (str(two_runs / model / "s") for model in ("base", "a", "b"))
    differences = (("mode", "generate", "choice"), ("template", "qwen", None), ("chat template", "u", "t"))
    assert checked(two_runs) == [
        DifferentQuestions((a, base), "2"),
        DifferentSettings((a, b, base), differences),
    ]


def test_few_groups_are_warned_of(tmp_path: Path) -> None:
    write_run(tmp_path, "base", "s", GOLD, GOLD, groups=list("abcde") * 4)
    assert checked(tmp_path) == [FewClusters("s", clusters=5, expected=6)]
    write_run(tmp_path / "six", "base", "s", GOLD, GOLD, groups=(list("abcdef") * 4)[:20])
    assert checked(tmp_path / "six") == []


@pytest.mark.parametrize(
    ("wrong", "findings"), [(11, [UnexpectedAnswers("s", 11, 20, ("yes!", "no!"))]), (10, [])]
)
def test_answers_of_another_tool_that_are_no_labels_are_warned_of(tmp_path, wrong, findings):
    lines = [f"{row},{gold},{gold}{'!' * (row < wrong)}" for row, gold in enumerate(GOLD)]
    (tmp_path / "s.csv").write_text("\n".join(["id,gold,prediction", *lines]), encoding="utf-8")
    (run,) = read_log(tmp_path / "s.csv")
    assert wrong_answers(run) == findings


@pytest.mark.parametrize("predicted", ["no", "unknown", "", "yes!"])
def test_a_run_without_a_correct_answer_is_warned_of(tmp_path, predicted):
    labels = ["yes"] * 15 + ["maybe"] * 5
    write_run(tmp_path, "base", "s", labels, labels)
    write_run(tmp_path, "a", "s", labels, [predicted] * 20)
    runs, _ = read_scored_runs([parse_source(str(tmp_path))])
    findings = compare_runs(runs).findings
    assert NoCorrectAnswer("a", "s", expected="yes", predicted=predicted) in findings


def test_a_metric_without_answers_is_not_warned_of(tmp_path):
    for model in ("base", "a"):
        folder = write_run(tmp_path, model, "s", GOLD, GOLD[::-1])
        for row in range(len(GOLD)):
            change_line(folder / "predictions.jsonl", row, score=row)
    runs, _ = read_scored_runs([parse_source(str(tmp_path))], "score")
    findings = compare_runs(runs, metric="score").findings
    assert not any(isinstance(finding, NoCorrectAnswer) for finding in findings)


@pytest.mark.parametrize("answer", ["yes", "", "0"])
def test_a_log_with_one_expected_answer_has_no_baseline_and_no_verdict(tmp_path, answer):
    for model, right in (("base", 2), ("tuned", 18)):
        rows = [{"id": n, "gold": answer, "prediction": (answer, "x")[n >= right]} for n in range(20)]
        write_lines(tmp_path / f"{model}.jsonl", rows)
    sources = [parse_source(f"{model}={tmp_path / model}.jsonl") for model in ("base", "tuned")]
    comparison = compare_runs(read_scored_runs(sources)[0]).comparison
    (section,) = comparison.sections
    assert math.isnan(section.baseline.accuracy)
    assert (section.baseline.label, section.baseline.tests) == ("", {})
    assert (section.conclusion.best, section.conclusion.recommended) == (None, "")
    assert section.figures["tuned"].value == 0.9
    printed(decision(section), "No verdict on accuracy", f'"{answer}"', "--metric")
    printed("\n".join(scores(comparison).rows[-1]), "none")


def test_tools_that_judge_have_a_verdict_on_their_own_figure(tmp_path):
    """As ifeval of lm-evaluation-harness: no expected answer, and a judgement of each instruction."""
    for model, right in (("base", 2), ("tuned", 18)):
        rows = [
            {"doc_id": n, "target": "", "filtered_resps": ["x"], "metrics": ["strict"], "strict": n < right}
            for n in range(20)
        ]
        (tmp_path / model).mkdir()
        write_lines(tmp_path / model / "samples_ifeval.jsonl", rows)
    source = parse_source(str(tmp_path))
    printed(decision(compare_runs(read_scored_runs([source])[0]).comparison.sections[0]), "No verdict")
    of_strict = compare_runs(read_scored_runs([source], "strict")[0], metric="strict")
    printed(decision(of_strict.comparison.sections[0]), "Ship tuned")
