"""How flat the top of a sweep is: who is not shown to be worse than the best on the rows that choose."""

from dataclasses import replace

import pytest

from tests.fake_runs import by_dataset, fake_run
from tuneyard.eval.judge.questions.choice import choose_on_half
from tuneyard.eval.report.answers import answer_fields, answer_tables
from tuneyard.eval.report.tables import as_json

HALVES = [True] * 100 + [False] * 100, [False] * 100 + [True] * 100


def run(model, correct, dataset="s", values=()):
    """100 rows that choose, `correct` of them correct, and 100 others, on which every answer is wrong."""
    answers = [*[row < correct for row in range(100)], *[False] * 100]
    records = [{"loss": value, "tokens": 1} for value in values]
    return replace(fake_run(model, answers, dataset), records=records)


def answered(runs, metric="accuracy"):
    choosing, held_out = ([run.only(rows) for run in runs] for rows in HALVES)
    answer = choose_on_half(by_dataset(choosing), "base", metric, by_dataset(held_out)).answer
    return as_json(answer_fields([answer]).get("flat_top")), next(iter(answer_tables([answer]).items()))


def test_points_within_the_noise_of_the_best_are_counted():
    runs = [run("base", 40), run("low", 60), run("best", 90), run("level", 88), run("tied", 90)]
    top, (caption, table) = answered(runs)
    assert top["best"] == "best" and top["not_shown_worse"] == ["tied", "level"]
    assert [test["model"] for test in top["comparisons"]] == ["tied", "level", "low", "base"]
    level = top["comparisons"][1]
    assert level["value"] == pytest.approx(-0.02) and level["n"] == 100
    assert caption.startswith("2 of the 4 other points") and caption.endswith("best")
    assert [row[0] for row in table.rows] == ["tied", "level"]


def test_a_sharp_top_names_the_nearest_point():
    top, (caption, table) = answered([run("base", 10), run("low", 60), run("best", 90)])
    assert caption.startswith("Every other point")
    assert [row[0] for row in table.rows] == ["low"]
    assert top["not_shown_worse"] == []


def test_datasets_count_alike():
    runs = [run("base", 10), run("a", 90), run("b", 60), run("base", 10, "t"), run("a", 60, "t")]
    top, _ = answered([*runs, run("b", 92, "t")])
    assert top["best"] == "b" and top["not_shown_worse"] == ["a"]
    assert top["comparisons"][0]["value"] == pytest.approx(-0.01) and top["comparisons"][0]["n"] == 200


def test_of_a_metric_whose_lowest_value_is_the_best_larger_is_worse():
    noise = [0.01 * (row % 7) for row in range(200)]
    runs = []
    for model, value in (("base", 0.9), ("near", 0.301), ("best", 0.3)):
        runs.append(run(model, 50, values=[value + part for part in noise]))
    runs[1] = run("near", 50, values=[0.301 + part for part in reversed(noise)])
    top, _ = answered(runs, "eval_loss")
    assert top["best"] == "best" and top["not_shown_worse"] == ["near"]
    assert all(test["value"] > 0 for test in top["comparisons"])


def test_a_single_point_has_no_neighbours():
    top, (caption, _) = answered([run("base", 40)])
    assert top is None and caption.startswith("Chosen on")
