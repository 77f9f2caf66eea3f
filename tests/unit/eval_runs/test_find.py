"""RunFinding and reading runs: levels, names, order, and everything that a damaged folder can be."""

import json
import math
from pathlib import Path

import pytest

from tests.fake_runs import GOLD, answers, change_line, demo, read_runs, write_run
from tests.json_files import read_json, read_lines, write_json, write_lines
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.runs.findings import UnfinishedRun
from tuneyard.eval.runs.scored_run import ScoredRun


def names(runs: list[ScoredRun]) -> list[tuple[str, str]]:
    return [(run.model, run.dataset) for run in runs]


def test_order_is_that_of_run_json(tmp_path: Path) -> None:
    demo(tmp_path)
    models, datasets = ["base", "rte", "mnli", "merge"], ["demo_rte_eval", "demo_mnli_eval"]
    asked = {
        "settings": {},
        "models": {model: {} for model in models},
        "datasets": {name: {} for name in datasets},
    }
    write_json(tmp_path / "run.json", asked)
    runs = read_runs(tmp_path)[0]
    assert list(dict.fromkeys(run.model for run in runs)) == models
    assert list(dict.fromkeys(run.dataset for run in runs)) == datasets


BOTH = [("base", "s"), ("a", "s")]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["{}"], BOTH),
        (["{}/a"], [("a", "s")]),
        (["{}/a/s"], [("a", "s")]),
        (["{}", "{}/a", "{}"], BOTH),
        (["before={}/base", "after/t={}/a/s"], [("before", "s"), ("after", "t")]),
        (["a/one={}/a/s", "a/two={}/a/s"], [("a", "one"), ("a", "two")]),
        (["{}", "again={}/a/s"], [*BOTH, ("again", "s")]),
    ],
)
def test_runs_of_any_level_are_read_once_under_each_of_the_names_given(
    two_runs: Path, given: list[str], found: list[tuple[str, str]]
) -> None:
    assert names(read_runs(*(text.format(two_runs) for text in given))[0]) == found


def test_a_log_that_two_paths_name_has_both_names(tmp_path: Path) -> None:
    rows = [{"id": number, "gold": "yes", "prediction": "no"} for number in range(4)]
    (tmp_path / "one.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "two.jsonl").symlink_to(tmp_path / "one.jsonl")
    assert len(names(read_runs(tmp_path / "one.jsonl", tmp_path / "two.jsonl")[0])) == 2


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path) -> None:
    write_run(tmp_path / "lr=1e-4", "a", "s", GOLD, GOLD)
    assert names(read_runs(tmp_path / "lr=1e-4")[0]) == [("a", "s")]


def test_one_name_for_several_models_is_refused(two_runs: Path) -> None:
    with raises(RequestError, "x", "base", "a"):
        read_runs(f"x={two_runs}")


def test_the_same_answers_of_two_folders_count_once_and_others_get_their_folder(tmp_path: Path) -> None:
    same = answers(GOLD, 11, 1)
    for out, model, predicted in [("one", "base", same), ("one", "a", GOLD), ("two", "base", same)]:
        write_run(tmp_path / out, model, "s", GOLD, predicted)
    write_run(tmp_path / "two", "a", "s", GOLD, answers(GOLD, 3, 4))
    assert [model for model, _ in names(read_runs(tmp_path / "one", tmp_path / "two")[0])] == [
        "base",
        "one/a",
        "two/a",
    ]


def test_two_folders_of_one_name_need_names(tmp_path: Path) -> None:
    for parent, right in [("x", 12), ("y", 13)]:
        write_run(tmp_path / parent / "run", "a", "s", GOLD, answers(GOLD, right, right))
    with raises(RequestError, "run/a", "s", "first="):
        read_runs(tmp_path / "x/run", tmp_path / "y/run")


def test_unfinished_runs_are_left_out_and_named(two_runs):
    (two_runs / "a/s/results.json").unlink()
    runs, findings = read_runs(two_runs)
    assert names(runs) == [("base", "s")]
    assert findings == [UnfinishedRun(two_runs / "a/s")]


def test_truncated_predictions_are_refused(two_runs):
    path = two_runs / "a/s/predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    with raises(ContentError, "predictions.jsonl:20", "JSON"):
        read_runs(two_runs)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:19]))
    with raises(ContentError, "a/s", "19", "results.json", "20"):
        read_runs(two_runs)
    path.write_text("")
    with raises(ContentError):
        read_runs(two_runs)
    path.unlink()
    with raises(ContentError, "predictions.jsonl", "results.json"):
        read_runs(two_runs)


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"row": 0}, "row 0; predictions.jsonl:3; predictions.jsonl:1"),
        ({"row": True}, ":3; row"),
        ({"expected_output": None}, ":3; expected_output"),
        ({"predicted_output": 3}, ":3; predicted_output; 3"),
        ({"label_mass": math.nan}, ":3; label_mass; NaN"),
        ({"label_mass": 1.2}, ":3; label_mass; 1.2"),
        ({"predicted_output": "none of them"}, "0.700000; results.json; 0.75"),
        ({"group": "p"}, "predictions.jsonl:1; 1"),
    ],
)
def test_a_damaged_prediction_is_named(two_runs, fields, facts):
    change_line(two_runs / "a/s/predictions.jsonl", 3, **fields)
    with raises(ContentError, facts):
        read_runs(two_runs)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("{}", "model"),
        ('{"model": "a", "dataset": "s", "n": 20, "accuracy": NaN}', "results.json; NaN"),
        ('{"model": "a", "dataset": "s", "n": 20, "accuracy": "0.75"}', "0.75; results.json"),
        ('{"model": "a", "dataset": "s", "n": null, "accuracy": 0.75}', "results.json"),
    ],
)
def test_damaged_results_are_named(two_runs, text, facts):
    (two_runs / "a/s/results.json").write_text(text)
    with raises(ContentError, facts):
        read_runs(two_runs)


@pytest.mark.parametrize(
    ("part", "facts"),
    [
        ({"metrics": {"brier": {"value": None}}}, "results.json; brier.value; null"),
        ({"metrics": {"brier": {"value": 10**400}}}, "results.json; brier.value"),
        ({"metrics": {"brier": {"value": 0.1, "ci95": ["0", 1]}}}, "results.json; brier.ci95.0"),
        ({"trained_on": {"examples": "x"}}, "results.json; trained_on.examples; x"),
        ({"adapters": {"a": []}}, "results.json; adapters.a"),
        ({"weights": {"a": "x"}}, "results.json; weights.a; x"),
        ({"base": "\ud800"}, "results.json; half a character"),
    ],
)
def test_a_damaged_part_of_the_results_is_named(two_runs, part, facts):
    path = two_runs / "a/s/results.json"
    path.write_text(json.dumps({**read_json(path), **part}))
    with raises(ContentError, facts):
        read_runs(two_runs)


def test_metrics_are_found_behind_a_prompt_that_was_too_long(tmp_path: Path) -> None:
    place = write_run(tmp_path, "a", "s", ["yes", "no"] * 2, ["no"] * 4, metrics={"brier": {"value": 0}})
    change_line(place / "predictions.jsonl", 1, too_long="300 tokens", choices=None)
    ((run,), _) = read_runs(tmp_path)
    first, *others = run.column("brier")
    assert first is None and None not in others
    for logs in ({"yes": -(10**400), "no": 0}, {"yes": -math.inf}, {"yes": 0.2}, {"yes": math.nan}):
        change_line(place / "predictions.jsonl", 2, choices=logs)
        with raises(ContentError, "jsonl:2: choices"):
            read_runs(tmp_path)


def test_what_is_right_may_be_said_row_by_row(two_runs: Path) -> None:
    rows = [{"row": n, "correct": n < 3, "model_output": "free text"} for n in range(4)]
    place = two_runs / "a/qa"
    place.mkdir()
    write_lines(place / "predictions.jsonl", rows)
    write_json(place / "results.json", {"model": "a", "dataset": "qa", "n": 4, "accuracy": 0.75})
    (run,) = read_runs(place)[0]
    assert list(run.correct) == [True, True, True, False] and run.gold == [""] * 4


def test_confidence_is_the_share_of_the_chosen_label(two_runs):
    path = two_runs / "a/s/predictions.jsonl"
    logs = {"yes": math.log(0.6), "no": math.log(0.2)}
    write_lines(path, (row | {"choices": logs} for row in read_lines(path)))
    assert read_runs(two_runs / "a")[0][0].confidence == pytest.approx([0.75] * 20)


def test_two_results_of_the_guide_with_one_model_are_named_by_their_folders(tmp_path: Path) -> None:
    for name, predicted in (("a", "x"), ("b", "y")):
        (tmp_path / name).mkdir()
        row = {"expected": "y", "predicted": predicted, "is_correct": predicted == "y", "user": "?"}
        write_json(tmp_path / name / "evaluation_results.json", {"model": "m", "results": [row]})
    runs, _ = read_runs(*(tmp_path / name / "evaluation_results.json" for name in "ab"))
    assert [run.model for run in runs] == ["a/m", "b/m"]


def test_a_table_beside_somebody_elses_results_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").write_text('{"id": 1, "gold": "a", "prediction": "a"}\n')
    write_json(tmp_path / "results.json", {"acc": 1.0})
    ((run,), _) = read_runs(tmp_path / "predictions.jsonl")
    assert run.correct == [True]
