"""Comparisons in any metric: figures and p against scipy, sacrebleu and plain loops; what is refused."""

import math
import random
from functools import partial

import numpy as np
import pytest
from scipy.stats import permutation_test

from tests.cli.scoring import invoke
from tests.fake_runs import VALID, verdict
from tests.folders import names
from tests.json_files import read_json, write_json, write_lines
from tests.messages import printed, printed_line, raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.language.number_format import number
from tuneyard.eval.compare.__main__ import cli, compare_results
from tuneyard.eval.figures.text import bleu, bleu_parts
from tuneyard.eval.judge.questions.choice import choose_on_half
from tuneyard.eval.report.tables import markdown
from tuneyard.eval.runs.find import ScoredRunSource
from tuneyard.eval.statistics.family import estimates, units_of
from tuneyard.eval.statistics.rates import ratio

N = 60


def run(folder, model, rows, dataset="talks"):
    place = folder / model / dataset
    place.mkdir(parents=True)
    write_json(place / "results.json", {"model": model, "dataset": dataset, "eval_loss": 1.0})
    write_lines(place / "predictions.jsonl", [{"row": number, **row} for number, row in enumerate(rows)])
    return folder


def losses(seed, shift=0.0, n=N):
    draw = random.Random(seed)
    tokens = [random.Random(7).randrange(1, 30) for _ in range(n)]
    spent = [of * (2 + shift + draw.gauss(0, 0.4)) for of in tokens]
    return [
        {"loss": loss, "tokens": of, "reference": f"r{i}", "cluster": f"{i // 2}"}
        for i, (loss, of) in enumerate(zip(spent, tokens, strict=True))
    ]


def compared(folder, metric, **options):
    return compare_results([ScoredRunSource(folder)], metric=metric, **options).comparison


@pytest.mark.parametrize("rows", [1, 2])
def test_nothing_is_detectable_where_equal_values_are_of_too_few_clusters(tmp_path, rows):
    equal = [{"score": 1.0, "cluster": "one"}] * rows
    run(run(tmp_path, "base", equal), "mine", equal)
    comparison = compared(tmp_path, "score")
    assert comparison.datasets[0].against_base[0].smallest == math.inf
    assert "nan" not in markdown(comparison)
    assert all(figure.unparsed == 0 for figure in comparison.datasets[0].figures.values())


def test_a_loss_is_that_of_all_tokens_together_and_lower_is_better(tmp_path):
    base, mine = losses(1), losses(2, shift=-0.5)
    run(run(tmp_path, "base", base), "mine", mine)
    (section,) = compared(tmp_path, "eval_loss").sections
    for model, rows in (("base", base), ("mine", mine)):
        plain = sum(row["loss"] for row in rows) / sum(row["tokens"] for row in rows)
        assert section.figures[model].value == pytest.approx(plain)
    (test,) = section.against_base
    assert test.value == pytest.approx(section.figures["mine"].value - section.figures["base"].value)
    assert test.better == sum(a["loss"] < b["loss"] for a, b in zip(mine, base, strict=True))
    assert verdict(section).startswith("Ship mine: eval_loss 1.")


def test_p_of_one_candidate_is_scipys_permutation_test(tmp_path):
    draw = np.random.default_rng(3)
    scores = [draw.normal(0.55 + shift, 0.3, size=N) for shift in (0, 0.12)]
    for model, own in zip(("base", "mine"), scores, strict=True):
        run(tmp_path, model, [{"reference": "", "chrf": float(value)} for value in own])
    (section,) = compared(tmp_path, "chrf").sections
    theirs = permutation_test(
        (scores[1], scores[0]), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples",
        n_resamples=50_000, rng=np.random.default_rng(1),
    )  # fmt: skip
    assert 0.001 < theirs.pvalue < 0.2
    assert section.against_base[0].p == pytest.approx(theirs.pvalue, abs=0.01)


def test_rows_counted_by_weight_are_rows_repeated_as_often():
    steps = np.array([[0.5], [-0.25], [0.75], [0.1]])
    counts = np.array([3.0, 1.0, 2.0, 4.0])
    groups = [0, 1, 2, 3]
    (weighted,) = estimates(units_of([steps], [groups], [counts], math.inf))
    again = np.repeat(np.arange(4), counts.astype(int))
    (repeated,) = estimates(units_of([steps[again]], [[groups[i] for i in again]], None, math.inf))
    assert (weighted.value, weighted.p) == pytest.approx((repeated.value, repeated.p))
    assert (weighted.low, weighted.high) == pytest.approx((repeated.low, repeated.high))


def test_the_parts_of_corpus_bleu_have_its_value_and_its_spread():
    draw = random.Random(2)
    words = ["the", "cat", "dog", "sat", "ran", "on", "under", "a", "mat", "house", "tree"]
    expected = [" ".join(draw.choices(words, k=draw.randrange(6, 15))) for _ in range(150)]
    said = [
        " ".join(w if draw.random() < 0.8 else draw.choice(words) for w in text.split()) for text in expected
    ]
    whole, _ = bleu(expected, said, range(150))
    parts = bleu_parts(expected, said)
    assert sum(parts) / 150 == pytest.approx(whole.value, abs=1e-9)
    assert ratio(parts, [1] * 150, range(150)).stderr == pytest.approx(whole.stderr, rel=0.08)


def test_where_lower_is_better_the_lowest_is_shipped_and_higher_ones_are_worse(tmp_path):
    for dataset in "ab":
        for seed, (model, shift) in enumerate(
            (("base", 0.0), ("mine", -0.5), ("other", -0.28), ("bad", 0.9))
        ):
            run(tmp_path, model, losses(seed, shift), dataset)
    found = compared(tmp_path, "eval_loss")
    assert [*found.mean.conclusion.better] == found.mean.conclusion.ranked[
        :2
    ] and found.mean.conclusion.best in ("mine", "other")
    (rival,) = found.mean.conclusion.rivals
    assert f"It is not shown to be better than {rival.against} (" in verdict(found.mean)
    told = markdown(found)
    assert told.startswith(f"Ship {found.mean.conclusion.best}: eval_loss ") and "default" not in told
    assert "majority" not in told and "points" not in told


def test_rows_without_a_value_are_left_out_and_counted(tmp_path):
    base, mine = losses(1), losses(2)
    mine[3] = {"reference": "r3", "too_long": "too long", "cluster": "1"}
    base[5] = {**base[5], "loss": None}
    run(run(tmp_path, "base", base), "mine", mine)
    graded = compared(tmp_path, "eval_loss")
    assert (graded.sections[0].n, graded.sections[0].left_out) == (N - 2, 2)
    assert "Left out: 2 rows without a value." in verdict(graded.sections[0])


def test_anybodys_numbers_in_json_lines(tmp_path):
    for name, shift in (("old", 0.0), ("new", 0.3)):
        draw = random.Random(1)
        rows = [{"id": f"q{i}", "grade": draw.random() + shift + 0.01 * (i % 3)} for i in range(30)]
        write_lines(tmp_path / f"{name}.jsonl", rows)
    named = [ScoredRunSource(tmp_path / f"{name}.jsonl", name) for name in ("old", "new")]
    graded = compare_results(named, metric="grade").comparison
    assert graded.base == "old" and graded.sections[0].against_base[0].value == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("change", "error", "facts"),
    [
        (lambda rows: rows[:-1], RequestError, "59; 60 rows; row 59"),
        (
            lambda rows: [{**rows[0], "loss": "x"}, *rows[1:]],
            ContentError,
            "x; loss",
        ),
        (lambda rows: [{**row, "loss": None} for row in rows], RequestError, "eval_loss"),
        (
            lambda rows: [{**row, "reference": "?"} for row in rows],
            RequestError,
            "",
        ),
    ],
)
def test_what_cannot_be_paired_or_is_no_number_is_refused(tmp_path, change, error, facts):
    run(run(tmp_path, "base", losses(1)), "mine", change(losses(2)))
    with raises(error, facts):
        compared(tmp_path, "eval_loss")


@pytest.mark.parametrize("metric", ["eval_loss", "rougeL"])
def test_a_figure_that_another_tools_rows_state_is_taken_as_it_is_for_each_of_its_models(tmp_path, metric):
    stated = {"base": [0.5, 0.7, 0.9], "mine": [0.25, 0.5, 0.75]}
    rows = [
        {"id": place, "model": model, metric: value}
        for model, values in stated.items()
        for place, value in enumerate(values)
    ]
    write_lines(tmp_path / "log.jsonl", rows)
    (section,) = compare_results([ScoredRunSource(tmp_path / "log.jsonl")], metric=metric).comparison.datasets
    means = {model: figure.value for model, figure in section.figures.items()}
    assert means == pytest.approx({"base": 0.7, "mine": 0.5})


def test_a_run_without_an_accuracy_is_refused_with_the_metrics_that_it_has(tmp_path):
    run(run(tmp_path / "runs", "base", losses(1)), "mine", losses(2, -0.5))
    runs, out = str(tmp_path / "runs"), ["--out", str(tmp_path / "t")]
    done = invoke(cli, runs, *out)
    assert "--metric: eval_loss, loss, tokens" in str(done.exception)
    done = invoke(cli, tmp_path / "runs", "--metric", "eval_loss", "--out", tmp_path / "t")
    assert done.exit_code == 0, done.output
    table = read_json(tmp_path / "t/table.json")
    assert (table["metric"], table["higher_is_better"], table["unit"]) == ("eval_loss", False, "nats")
    sentences = table["datasets"]["talks"]["verdict"].partition(" The difference between")
    text = (tmp_path / "t/table.md").read_text(encoding="utf-8")
    assert sentences[0] in done.output and sentences[2] in text and table["plots"] == []
    assert (
        table["datasets"]["talks"]["models"]["mine"]["value"]
        < table["datasets"]["talks"]["models"]["base"]["value"]
    )
    printed_line(text, "30 clusters", "p", "intervals")
    assert names(tmp_path / "t") == ["table.json", "table.md"]
    done = invoke(cli, tmp_path, "--metric", "x", "--margin", "1", "--out", tmp_path / "t")
    printed(str(done.exception), "--by", "--margin", "accuracy")


def table(folder, metric, out):
    done = invoke(cli, folder, "--metric", metric, "--out", out)
    assert done.exit_code == 0, done.output
    told = read_json(out / "table.json")
    assert VALID(told)
    return told, (out / "table.md").read_text(encoding="utf-8")


def test_its_table_fits_the_schema_and_one_row_leaves_the_limits_open(tmp_path):
    run(run(tmp_path / "many", "base", losses(1)), "mine", losses(2, shift=-0.5))
    told, _ = table(tmp_path / "many", "eval_loss", tmp_path / "a")
    assert told["datasets"]["talks"]["models"]["mine"].keys() == {
        "value", "low", "high", "stderr", "n", "trained_on", "trained_on_at_most",
    }  # fmt: skip
    run(run(tmp_path / "one", "base", losses(1, n=1)), "mine", losses(2, n=1))
    told, shown = table(tmp_path / "one", "eval_loss", tmp_path / "b")
    (test,) = told["datasets"]["talks"]["comparisons"]
    assert (test["low"], test["high"]) == (None, None)
    assert "(too few rows for an interval)" in shown


def test_what_a_model_was_trained_on_is_told_of_any_metric(tmp_path):
    run(run(tmp_path / "runs", "base", losses(1)), "mine", losses(2, shift=-0.5))
    place = tmp_path / "runs/mine/talks/results.json"
    seen = {"examples": 30, "sources": ["rte"], "same_name": [], "not_checked": []}
    write_json(place, {**read_json(place), "trained_on": seen})
    told, shown = table(tmp_path / "runs", "eval_loss", tmp_path / "out")
    assert told["datasets"]["talks"]["models"]["mine"]["trained_on"] == 30
    printed_line(shown, "mine", "trained on 30 of these 60", "eval_loss")
    assert "accuracy" not in shown


def test_two_that_never_differ_have_no_minus_nought(tmp_path):
    for model, shift in (("base", 0), ("x", -0.5), ("y", -0.5)):
        run(tmp_path / "runs", model, losses(2, shift))
    _, shown = table(tmp_path / "runs", "eval_loss", tmp_path / "out")
    assert (
        "not shown to be better than y (0, p = 1.00)" in shown and "−0 " not in shown and "−0)" not in shown
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-0.0, "0"), (0.12345, "+0.123"), (999.6, "+1,000"), (-9999.6, "−10,000"), (2e7, "+2e+07")],
)
def test_a_number_has_three_digits_or_all_before_the_point(value, shown):
    assert number(value, "+") == shown


def costs(folder, **higher):
    for model, most in (("base", 2), ("cheap", 1), ("dear", 3)):
        run(folder, model, [{"cost": most + i % 2 / 10} for i in range(N)])
        facts = {"value": most, "unit": "dollars", "higher_is_better": higher.get(model, False)}
        place = folder / model / "talks/results.json"
        write_json(place, {**read_json(place), "metrics": {"cost": facts}})
    return folder


def test_a_field_has_the_direction_that_its_runs_declare(tmp_path):
    _, shown = table(costs(tmp_path / "runs"), "cost", tmp_path / "out")
    assert "cost (dollars, lower is better)" in shown and "Ship cheap" in shown
    (half,) = compared(tmp_path / "runs", "cost", questions=[partial(choose_on_half, metric="cost")]).datasets
    assert "Ship cheap" in verdict(half)
    with raises(RequestError, "--metric cost"):
        compared(costs(tmp_path / "odd", dear=True), "cost")


def test_what_no_metric_can_be_made_of_is_refused(tmp_path):
    run(tmp_path / "marks", "base", [
        {"expected_output": mark, "answer_logp": -2.0, "answer_tokens": 2} for mark in ("good", "bad")
    ])  # fmt: skip
    with raises(RequestError, "auc"):
        compared(tmp_path / "marks", "auc")
    run(tmp_path / "huge", "base", [{"gain": 1e300}])
    with raises(ContentError, "jsonl:1", "gain", "1e+300", "1e100"):
        compared(tmp_path / "huge", "gain")


def test_a_single_model_has_its_figure_in_a_metric(tmp_path):
    rows = [{"score": score, "cluster": f"{number}"} for number, score in enumerate((0.25, 0.5, 0.75, 1.0))]
    section = compared(run(tmp_path, "base", rows), "score").datasets[0]
    assert section.figures["base"].value == pytest.approx(0.625)
    assert (section.n, section.groups, section.left_out, list(section.against_base)) == (4, 4, 0, [])
