"""Choosing on one half: what is chosen, what the other half holds, that luck in choosing earns nothing."""

import random

import pytest

from tests.fake_runs import compare
from tests.messages import raises
from tuneyard.core.errors import RequestError
from tuneyard.eval.judge.questions.choice import HeldOutChoice, choose_on_half
from tuneyard.eval.read.scored_run import ScoredRun, by_dataset


def run(model, correct, dataset="s", groups=None):
    n = len(correct)
    said = ["y" if good else "n" for good in correct]
    return ScoredRun(model, dataset, model, [str(i) for i in range(n)], ["y"] * n, said, correct, groups)


def test_the_best_there_is_compared_on_the_rows_that_it_was_not_chosen_on():
    groups = [str(i // 2) for i in range(80)]
    runs = [
        run("base", [i % 3 == 0 for i in range(80)], groups=groups),
        run("good", [i % 8 != 0 for i in range(80)], groups=groups),
        run("bad", [False] * 80, groups=groups),
    ]
    kept, choice = choose_on_half(by_dataset(runs), "base")
    assert choice.model == "good" and choice.scores["bad"] == 0
    assert [one.model for one in kept["s"].values()] == ["base", "good"]
    base, good = kept["s"].values()
    held = set(base.rows)
    assert good.rows == base.rows and len(held) + choice.n == 80 and 20 < len(held) < 60
    inside = {groups[int(row)] for row in held}
    assert not inside & {groups[i] for i in range(80) if str(i) not in held}
    seen = [i for i in range(80) if str(i) not in held]
    assert choice.scores["good"] == pytest.approx(sum(i % 8 != 0 for i in seen) / len(seen))


def test_luck_in_choosing_earns_nothing():
    draw, gains = random.Random(1), []
    for _ in range(60):
        runs = [run(name, [draw.random() < 0.5 for _ in range(100)]) for name in ("base", *"abcdefgh")]
        kept, _ = choose_on_half(by_dataset(runs), "base")
        gains.append(compare([*kept["s"].values()], "base").sets[0].against_base[0].value)
    assert abs(sum(gains) / len(gains)) < 0.035


def test_datasets_count_alike_and_each_has_its_halves():
    many, few = [True] * 200, [False] * 20
    runs = [run("base", many, "a"), run("base", few, "b")]
    runs += [run("x", [True] * 120 + [False] * 80, "a"), run("x", [True] * 20, "b")]
    runs += [run("y", many, "a"), run("y", few, "b")]
    kept, choice = choose_on_half(by_dataset(runs), "base")
    assert choice.model == "x" and 0.75 < choice.scores["x"] < 0.85 and choice.scores["y"] == 0.5
    assert {*kept} == {"a", "b"}


@pytest.mark.parametrize(
    ("models", "facts"),
    [
        (["base", "x"], ""),
        (["x", "y", "z"], ""),
    ],
)
def test_nothing_to_choose_from_is_refused(models, facts):
    with raises(RequestError, *facts.split("; ")):
        choose_on_half(by_dataset([run(model, [True] * 9) for model in models]), "base")


def test_a_model_that_was_not_scored_on_a_dataset_is_refused():
    runs = [run(model, [True] * 9) for model in ("base", "x", "y")] + [run("base", [True] * 9, "t")]
    with raises(RequestError):
        choose_on_half(by_dataset(runs), "base")


def test_the_question_leaves_the_held_out_rows_to_the_comparison() -> None:
    runs = [run("base", [False] * 40), run("good", [True] * 40), run("bad", [False] * 40)]
    answer = HeldOutChoice().answer(by_dataset(runs), "base")
    (choice,) = answer.records
    assert [*answer.runs["s"]] == ["base", choice.model] == ["base", "good"]
    assert len(answer.runs["s"]["base"].rows) == 40 - choice.n
