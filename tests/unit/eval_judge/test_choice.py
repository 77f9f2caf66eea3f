"""Choosing on one half: what is chosen, what the other half holds, that luck in choosing earns nothing."""

import random
from dataclasses import replace

import pytest

from tests.fake_runs import by_dataset, compare, fake_run
from tests.messages import raises
from tuneyard.core.errors import RequestError
from tuneyard.eval.judge.questions.choice import choose_on_half
from tuneyard.eval.report.answers import answer_fields, answer_tables
from tuneyard.eval.report.tables import as_json


def chosen(runs):
    """The runs left to the comparison, and the choices."""
    result = choose_on_half(by_dataset(runs), "base")
    return result.runs, result.answer.choices


def accuracies(choice):
    return {model: score.value for model, score in choice.choosing.models.items()}


def test_the_best_there_is_compared_on_the_rows_that_it_was_not_chosen_on():
    groups = [str(i // 2) for i in range(80)]
    runs = [
        fake_run("base", [i % 3 == 0 for i in range(80)], groups=groups),
        fake_run("good", [i % 8 != 0 for i in range(80)], groups=groups),
        fake_run("bad", [False] * 80, groups=groups),
    ]
    kept, (choice,) = chosen(runs)
    scores = accuracies(choice)
    assert choice.model == "good" and scores["bad"] == 0
    assert [one.model for one in kept["s"].values()] == ["base", "good"]
    base, good = kept["s"].values()
    held = set(base.rows)
    assert good.rows == base.rows and len(held) + choice.choosing.n == 80 and 20 < len(held) < 60
    inside = {groups[int(row)] for row in held}
    assert not inside & {groups[i] for i in range(80) if str(i) not in held}
    seen = [i for i in range(80) if str(i) not in held]
    assert scores["good"] == pytest.approx(sum(i % 8 != 0 for i in seen) / len(seen))
    assert choice.held_out.models["good"].value == pytest.approx(sum(good.correct) / len(held))


def test_luck_in_choosing_earns_nothing():
    draw, gains = random.Random(1), []
    for _ in range(60):
        runs = [fake_run(name, [draw.random() < 0.5 for _ in range(100)]) for name in ("base", *"abcdefgh")]
        kept, _ = chosen(runs)
        gains.append(compare([*kept["s"].values()], "base").datasets[0].against_base[0].value)
    assert abs(sum(gains) / len(gains)) < 0.035


def test_datasets_count_alike_and_each_has_its_halves():
    many, few = [True] * 200, [False] * 20
    runs = [fake_run("base", many, "a"), fake_run("base", few, "b")]
    runs += [fake_run("x", [True] * 120 + [False] * 80, "a"), fake_run("x", [True] * 20, "b")]
    runs += [fake_run("y", many, "a"), fake_run("y", few, "b")]
    kept, choices = chosen(runs)
    assert [(choice.dataset, choice.model) for choice in choices] == [("a", "y"), ("b", "x"), ("mean", "x")]
    scores = accuracies(choices[-1])
    assert 0.75 < scores["x"] < 0.85 and scores["y"] == 0.5
    assert {*kept} == {"a", "b"} and {*kept["a"]} == {"base", "x"}


@pytest.mark.parametrize(
    "models",
    [
        ["base", "x"],
        ["x", "y", "z"],
    ],
)
def test_nothing_to_choose_from_is_refused(models):
    with raises(RequestError, "--choose-on", *models):
        chosen([fake_run(model, [True] * 9) for model in models])


def test_a_model_that_was_not_scored_on_a_dataset_is_refused():
    runs = [fake_run(model, [True] * 9) for model in ("base", "x", "y")] + [fake_run("base", [True] * 9, "t")]
    with raises(RequestError, "t", "x, y"):
        chosen(runs)


def in_halves(runs):
    """The runs on their first six rows, which choose, and those on the others."""
    halves = []
    for chosen in (True, False):
        kept = [row.only([(int(name) < 6) == chosen for name in row.rows]) for row in runs]
        halves.append(by_dataset(kept))
    return halves


def graded(model, values):
    return replace(fake_run(model, [True] * 12), records=[{"loss": value, "tokens": 1} for value in values])


def test_the_base_may_be_chosen_where_it_is_a_candidate_and_the_first_of_equals_is():
    for models, chosen, compared in (
        ({"base": True, "a": True, "b": False}, "base", ["base", "a", "b"]),
        ({"a": False, "b": True, "c": True}, "b", ["b"]),
    ):
        runs, held_out = in_halves([fake_run(model, [correct] * 12) for model, correct in models.items()])
        result = choose_on_half(runs, "base", held_out=held_out)
        assert result.answer.choices[0].model == result.base == chosen
        assert [*result.runs["s"]] == compared


def test_a_metric_chooses_in_its_direction_on_the_rows_that_are_named():
    runs, held_out = in_halves(
        [
            graded("base", [0.9] * 12),
            graded("a", [0.1] * 6 + [0.9] * 6),
            graded("b", [0.4] * 6 + [0.0] * 6),
        ]
    )
    result = choose_on_half(runs, "base", "eval_loss", held_out)
    (choice,) = result.answer.choices
    assert choice.model == "a"  # the lowest on the first six rows
    assert choice.choosing.models["a"].value == pytest.approx(0.1)
    assert choice.held_out.models["a"].value == pytest.approx(0.9)
    assert result.runs["s"]["a"].rows == [str(row) for row in range(6, 12)]
    (fields,) = as_json(answer_fields([result.answer])["choice"])
    assert fields["choosing"]["models"]["a"]["value"] == pytest.approx(0.1)
    assert fields["metric"] == "eval_loss"
    cells = [cell for table in answer_tables([result.answer]).values() for row in table.rows for cell in row]
    assert "0.1 (0.1 to 0.1) ←" in cells
    by_accuracy = choose_on_half(runs, "base", held_out=held_out).answer
    cells = [cell for table in answer_tables([by_accuracy]).values() for row in table.rows for cell in row]
    assert "100.0 % (61.0–100.0)" in cells
