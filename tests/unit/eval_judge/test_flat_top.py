"""How flat the top of a sweep is: who is not shown to be worse than the best on the rows that choose."""

import pytest

from tuneyard.eval.judge.questions.choice import HeldOutChoice
from tuneyard.eval.judge.questions.flat_top import NotShownWorse
from tuneyard.eval.read.scored_run import ScoredRun, by_dataset

CHOOSING = [str(row) for row in range(100)]


def run(model, correct, dataset="s", values=()):
    """100 rows that choose, `correct` of them correct, and 100 others, on which every answer is wrong."""
    answers = [*[row < correct for row in range(100)], *[False] * 100]
    predicted = ["yes" if answer else "no" for answer in answers]
    rows = [str(row) for row in range(200)]
    return ScoredRun(model, dataset, model, rows, ["yes"] * 200, predicted, answers, values={"brier": values})


def answered(runs, metric="accuracy"):
    rows = dict.fromkeys(("s", "t"), CHOOSING)
    question = NotShownWorse(HeldOutChoice(metric, rows, base_is_candidate=True))
    return question.answer(by_dataset(runs), "base")


def test_points_within_the_noise_of_the_best_are_counted():
    answer = answered([run("base", 40), run("low", 60), run("best", 90), run("level", 88), run("tied", 90)])
    (top,) = answer.records
    assert top.best == "best"
    assert [test.model for test in top.tests] == ["tied", "level", "low", "base"]
    assert [test.model for test in top.level] == ["tied", "level"]
    level = top.tests[1]
    assert level.value == pytest.approx(-0.02) and level.n == 100
    ((caption, table),) = answer.tables().items()
    assert caption.startswith("2 of the 4 other points") and caption.endswith("best")
    assert [row[0] for row in table.rows] == ["tied", "level"]
    fields = answer.json()["flat_top"]
    assert fields["best"] == "best" and fields["not_shown_worse"] == ["tied", "level"]
    assert len(fields["comparisons"]) == 4
    assert answer.runs["s"]["best"].rows[-1] == "199", "the next question has every row"


def test_a_sharp_top_names_the_nearest_point():
    answer = answered([run("base", 10), run("low", 60), run("best", 90)])
    ((caption, table),) = answer.tables().items()
    assert caption.startswith("Every other point")
    assert [row[0] for row in table.rows] == ["low"]
    assert answer.json()["flat_top"]["not_shown_worse"] == []


def test_datasets_count_alike():
    runs = [run("base", 10), run("a", 90), run("b", 60), run("base", 10, "t"), run("a", 60, "t")]
    (top,) = answered([*runs, run("b", 92, "t")]).records
    assert top.best == "b" and [test.model for test in top.level] == ["a"]
    assert top.tests[0].value == pytest.approx(-0.01) and top.tests[0].n == 200


def test_of_a_metric_whose_lowest_value_is_the_best_larger_is_worse():
    noise = [0.01 * (row % 7) for row in range(200)]
    runs = []
    for model, value in (("base", 0.9), ("near", 0.301), ("best", 0.3)):
        runs.append(run(model, 50, values=[value + part for part in noise]))
    runs[1] = run("near", 50, values=[0.301 + part for part in reversed(noise)])
    (top,) = answered(runs, "brier").records
    assert top.best == "best" and [test.model for test in top.level] == ["near"]
    assert [test.value > 0 for test in top.tests] == [True, True]


def test_a_single_point_has_no_neighbours():
    answer = answered([run("base", 40)])
    assert answer.records == [] and answer.tables() == {} and answer.json() == {}
