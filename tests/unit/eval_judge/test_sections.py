"""The judgement of fake runs whose truth is known: figures, families, decisions."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.fake_runs import NEW, OLD, compare, fake_run, flags, labelled, two_datasets
from tests.messages import raises
from tuneyard.core.errors import RequestError
from tuneyard.core.training.metrics import Metric, metric_of
from tuneyard.eval.defect.reports import report_summary
from tuneyard.eval.figures.free_answers import qa_summary
from tuneyard.eval.figures.labels import summary
from tuneyard.eval.judge.conclusions import Comparison, Section
from tuneyard.eval.judge.findings import RareLabels, SkewedDifference
from tuneyard.eval.report.plots import kinds_chart
from tuneyard.eval.runs.scored_run import ScoredRun
from tuneyard.eval.statistics.rates import Z95, wilson
from tuneyard.eval.statistics.spread import student_deviate


def judge(*runs: ScoredRun) -> Comparison:
    return compare(runs, "base")


def only(comparison: Comparison) -> Section:
    (section,) = comparison.datasets
    assert comparison.mean is None
    return section


def test_rows_that_were_trained_on_are_counted_where_they_are_known() -> None:
    runs = [fake_run(name, [True, False]) for name in ("base", "a", "b")]
    known, unknown = {"trained_on": {"examples": 2}}, {"trained_on": {"not checked": "no run.json"}}
    section = only(judge(runs[0], replace(runs[1], facts=known), replace(runs[2], facts=unknown)))
    assert [figure.trained_on for figure in section.figures.values()] == [0, 2, 0]
    setting = replace(runs[1], trainings=[runs[2], replace(runs[1], facts=known)])
    section = only(judge(runs[0], setting))
    assert section.figures["a"].trained_on == 2


def test_the_mean_decides_unless_a_dataset_is_named() -> None:
    runs = two_datasets()
    assert [section.decided_by for section in judge(*runs).sections] == ["", "mean", "mean"]
    assert [section.decided_by for section in compare(runs, "base", "t").sections] == ["", "t", "t"]
    assert only(judge(*runs[:2])).decided_by == ""
    with raises(RequestError, "--decide-on x"):
        compare(runs, "base", "x")


def test_a_model_is_paired_with_the_constant_answer() -> None:
    """45 of 100 are `no`: a model that is right on 20 more examples than `yes` is shown to beat it."""
    gold = ["yes"] * 55 + ["no"] * 45
    said = ["yes"] * 50 + ["no"] * 30 + ["yes"] * 20
    over = only(judge(labelled("base", gold, said))).baseline.tests["base"]
    assert (over.better, over.worse, over.value) == (25, 5, pytest.approx(0.2)) and over.significant


@pytest.mark.parametrize("order", ["abc", "cba"])
def test_the_best_is_named_with_those_it_cannot_be_told_from_as_seen_from_it(order: str) -> None:
    right = {"a": [True] * 100, "b": [True] * 58 + [False] * 2 + [True] * 40}
    right["c"] = [True] * 30 + [False] * 30 + [True] * 40  # a is shown to be better
    base = fake_run("base", [False] * 60 + [True] * 40)
    section = only(judge(base, *(fake_run(model, right[model]) for model in order)))
    assert section.conclusion.best == "a"
    (rival,) = section.conclusion.rivals
    assert (rival.model, rival.against, rival.better, rival.worse) == ("a", "b", 2, 0)
    assert rival.value == pytest.approx(0.02) and rival.low < rival.value < rival.high


def test_the_mean_takes_models_that_have_every_set() -> None:
    first = [fake_run("base", OLD, "s"), fake_run("a", NEW, "s"), fake_run("b", NEW, "s")]
    comparison = judge(*first, fake_run("base", OLD, "t"), fake_run("a", NEW, "t"))
    assert list(comparison.mean.figures) == ["base", "a"]
    figure, single = comparison.mean.figures["a"], comparison.datasets[0].figures["a"]
    assert figure.value == single.value and figure.n == 200
    assert figure.value - figure.low == pytest.approx((single.value - single.low) / math.sqrt(2))
    (test,) = comparison.mean.against_base
    assert test.value == pytest.approx(0.25) and test.significant
    single = only(judge(*first[:2])).against_base[0]
    assert test.high - test.low == pytest.approx((single.high - single.low) / math.sqrt(2), rel=0.05)


def test_what_the_mean_could_show_is_never_less_than_if_a_row_differed() -> None:
    """Two sets of 100 rows, 35 of which differ in the first and none in the second, judged by hand."""
    runs = [fake_run(*run) for run in (("base", OLD), ("a", NEW), ("base", OLD, "t"), ("a", OLD, "t"))]
    mean = judge(*runs).mean
    error = math.sqrt(0.35 / 100 + 0.01 / 100) / 2
    assert mean.against_base[0].smallest == pytest.approx((1.959964 + 0.841621) * error, rel=0.03)
    same = judge(*(fake_run(model, OLD, name) for name in "st" for model in ("base", "a"))).mean
    assert same.against_base[0].smallest == pytest.approx((1.959964 + 0.841621) * 0.01 / 2, rel=0.03)


def test_groups_widen_the_intervals() -> None:
    old, new = flags(60, 10, 20, 30)
    plain = only(judge(fake_run("base", old), fake_run("a", new)))
    groups = [str(i // 10) for i in range(120)]
    grouped = only(judge(fake_run("base", old, groups=groups), fake_run("a", new, groups=groups)))
    assert (plain.groups, grouped.groups) == (None, 12)
    assert grouped.figures["a"].high - grouped.figures["a"].low > 1.5 * (
        plain.figures["a"].high - plain.figures["a"].low
    )
    assert grouped.against_base[0].p > plain.against_base[0].p
    assert grouped.against_base[0].smallest > plain.against_base[0].smallest


def test_a_run_has_one_interval_wherever_it_is_told() -> None:
    """Four groups, all about half right: more even than chance, which must not narrow an interval."""
    right = ([True, False] * 25 + [True] * 1 + [False] * 1) * 4
    groups = [str(i // 52) for i in range(208)]
    run = fake_run("base", right, groups=groups)
    rows = [
        {"expected_output": g, "predicted_output": p, "group": x, "subtype": "k", "type": "t",
         "similarity": 0.0, "token_f1": 0.0}
        for g, p, x in zip(run.gold, run.predicted, groups, strict=True)
    ]  # fmt: skip
    figure = only(judge(run)).figures["base"]
    told = summary(rows)
    report = report_summary(rows)
    chart = kinds_chart([replace(run, records=rows)], "type").series["base"][0]
    assert (
        [figure.low, figure.high]
        == told["ci95"]
        == qa_summary(rows)["ci95"]
        == qa_summary(rows)["types"]["t"]["exact_match"]["ci95"]
        == report["subtypes"]["k"]["ci95"]
        == report["types"]["t"]["ci95"]
        == pytest.approx(list(wilson(104, 208, float(student_deviate(Z95, np.array(3.0))))))
    )
    assert figure.stderr == told["stderr"]
    assert chart == (figure.value, figure.low, figure.high)


def test_without_the_base_only_the_others_are_compared() -> None:
    section = only(judge(fake_run("a", OLD), fake_run("b", NEW)))
    assert section.against_base == [] and len(section.between) == 1 and section.conclusion.best is None


@pytest.mark.parametrize(("labels", "compared"), [(1, False), (2, True), (20, True), (21, False)])
def test_macro_f1_is_compared_where_there_are_labels_and_not_free_texts(labels, compared) -> None:
    gold = [f"label {n % labels}" for n in range(63)]
    section = only(judge(labelled("base", gold, gold[1:] + gold[:1]), labelled("tuned", gold, gold)))
    (test,) = section.against_base
    assert (test.macro_f1 is not None) == (section.figures["tuned"].macro_f1 is not None) == compared


def test_labels_of_few_examples_are_named_in_a_caution() -> None:
    gold = ["yes"] * 30 + ["no"] * 30 + ["maybe"] * 4
    runs = [labelled("base", gold, gold[::-1]), labelled("a", gold, gold)]
    assert only(judge(*runs)).cautions == [RareLabels("s", ("maybe",), expected=5)]
    enough = [labelled(run.model, [*run.gold, "maybe"], [*run.predicted, "maybe"]) for run in runs]
    assert only(judge(*enough)).cautions == []


@pytest.mark.parametrize(("tail", "warned"), [(0.3, False), (2.0, True)])
def test_very_skewed_differences_are_named_in_a_caution(tail: float, warned: bool) -> None:
    generator = np.random.default_rng(8)
    base = generator.normal(size=100)
    runs = [
        replace(fake_run(model, [False] * 100), records=[{"score": value} for value in values])
        for model, values in (("base", base), ("a", base + np.exp(tail * generator.normal(size=100))))
    ]
    section = only(compare(runs, "base", metric=Metric("points", True, "score")))
    assert section.cautions == [SkewedDifference("s")] * warned


@pytest.mark.parametrize(
    ("gold", "facts", "has_f1"),
    [
        (["yes", "no"] * 4, {}, True),
        ([f"sentence {number}" for number in range(8)], {}, False),
        (["yes", "", "no"] * 4, {}, False),
        (["yes", "no"], {}, False),
        (["yes", "no"], {"classes": {}}, True),
    ],
)
def test_macro_f1_is_for_labels(gold, facts, has_f1) -> None:
    runs = [labelled(model, gold, gold, facts=facts) for model in ("base", "one")]
    (section,) = compare(runs, "base").datasets
    assert (section.figures["one"].macro_f1 is not None) is has_f1


def test_a_loss_is_that_of_all_tokens() -> None:
    records = [{"loss": 6.0, "tokens": 3}, {"loss": 1.0, "tokens": 1}] * 4
    runs = [replace(fake_run(model, [True] * 8), records=records) for model in ("base", "one")]
    section = only(compare(runs, "base", metric=metric_of("eval_loss")))
    assert section.figures["one"].value == 7 / 4  # the mean of the rows is 3/2
