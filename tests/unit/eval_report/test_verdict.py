"""Verdicts: the sentence for each decision, by figures that are known."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.fake_runs import (
    NEW,
    OLD,
    VALID,
    by_dataset,
    compare,
    fake_run,
    flags,
    labelled,
    table_json,
    verdict,
)
from tests.messages import golden_text, raises
from tuneyard.core.errors import RequestError
from tuneyard.core.language.reader import in_language
from tuneyard.core.training.metrics import ACCURACY
from tuneyard.eval.judge import sections
from tuneyard.eval.judge.conclusions import (
    Baseline,
    Comparison,
    Conclusion,
    ModelScore,
    PairedTest,
    Section,
    conclude,
)
from tuneyard.eval.report.tables import markdown
from tuneyard.eval.report.verdict import called, decision, decisions
from tuneyard.eval.runs.scored_run import ScoredRun

WEAK, NEARLY = [False] * 60 + [True] * 40, [True] * 58 + [False] * 2 + [True] * 40
"""Answers of a base, and of a model that is not shown to be worse than one with all of them correct."""


def first_lines(comparison: Comparison) -> str:
    return "\n".join(decisions(comparison))


def told(*runs: ScoredRun) -> str:
    comparison = compare(runs, "base")
    return verdict(comparison.mean or comparison.datasets[0])


def section_of(
    name: str,
    figures: dict[str, ModelScore],
    against_base: Sequence[PairedTest],
    baseline: Baseline,
    between: Sequence[PairedTest] = (),
    datasets: Sequence[Section] = (),
) -> Section:
    """A section of accuracies with its conclusion."""
    n = next(iter(figures.values())).n
    unconcluded = Conclusion([], {}, None, "", [], [], [])
    section = Section(
        name, n, None, ACCURACY, "base", figures, against_base, between, baseline, unconcluded,
        datasets=datasets,
    )  # fmt: skip
    return changed(section)


def changed(section: Section, **changes: Any) -> Section:
    """The section with other tests, and the conclusion from them."""
    section = replace(section, **changes)
    baselines = [section.baseline, *(dataset.baseline for dataset in section.datasets)]
    conclusion = conclude(
        section.figures, section.against_base, section.between, baselines, section.metric, section.base,
        section.margin, has_verdict=True,
    )  # fmt: skip
    return replace(section, conclusion=conclusion)


def test_figures_and_verdict_of_a_small_difference_do_not_contradict_each_other() -> None:
    """70.02 % against 69.98 %; a lower limit of −5.02 points beside a margin of 5."""
    figures = {
        "base": ModelScore(0.6998, 0.6, 0.8, 9000, 0.05),
        "a": ModelScore(0.7002, 0.6, 0.8, 9000, 0.05),
    }
    test = PairedTest(0.0004, 0.0001, 0.0007, 0.0499, 0.0002, "a", "base", 9000, 40, 10)
    section = section_of("s", figures, [test], Baseline(0.2, "yes"))
    text = verdict(section)
    golden_text(text, "Ship a", "70.02", "69.98", "+0.04", "+0.01", "+0.1", "0.0499")
    unknown = changed(section, against_base=[replace(test, low=-0.0001, p=0.0502)])
    text = verdict(unknown)
    golden_text(text, "+0.04", "−0.01", "+0.1", "0.0502", "9,000", "0.02")
    loss = PairedTest(0.03, 0.02, 0.0502, 0.01, 0.0002, "a", "base", 9000, 40, 10)
    text = verdict(changed(section, against_base=[loss], margin=0.05))
    golden_text(text, "5", "−3.0", "−5.02", "−2.0", "not shown")
    text = verdict(changed(section, against_base=[replace(loss, high=0.04996)], margin=0.05))
    golden_text(text, "5", "−3.0", "−4.996", "−2.0", "is shown")


@pytest.mark.parametrize(
    ("table", "facts"),
    [
        ((40, 5, 30, 25), "Ship a; 70.0; 45.0; +25.0; +14.3; +35.7; 0.001"),
        ((60, 10, 14, 16), "+4.0; −5.7; +13.7; 0.42; 100; 13.8; no evidence"),
        ((60, 10, 10, 20), "0.0; −8.9; +8.9; 0.91; 100"),
        ((40, 30, 5, 25), "Keep the base; −25.0; 0.001"),
    ],
    ids=["ship", "no evidence", "no difference", "keep the base"],
)
def test_the_verdict_on_one_model(table: tuple[int, int, int, int], facts: str) -> None:
    old, new = flags(*table)
    golden_text(told(fake_run("base", old), fake_run("a", new)), facts)


@pytest.mark.parametrize(("value", "p", "told"), [(0.1, 0.06, True), (-0.1, 0.06, True), (0.1, 0.04, False)])
def test_a_model_beats_the_majority_class_only_if_their_paired_test_shows_it(
    value: float, p: float, told: bool
) -> None:
    figures = {"base": ModelScore(0.4, 0.3, 0.5, 100, 0.05, 0), "a": ModelScore(0.7, 0.6, 0.8, 100, 0.05, 0)}
    test = PairedTest(0.3, 0.2, 0.4, 0.001, 0.1, "a", "base", 100, 40, 10)
    over = PairedTest(value, -0.2, 0.2, p, 0.1, "a", "majority", 100, 40, 30)
    section = section_of("s", figures, [test], Baseline(0.6, "yes", {"a": over}))
    caveat = " But it is not shown to beat the majority-class baseline (60.0 %)."
    assert decision(section).endswith(caveat) == told
    assert (
        caveat in markdown(Comparison("base", ["base", "a"], [section], None, [section], [section]))
    ) == told


def below(base_p: float = 0.4) -> Section:
    """A model that is better than the base, and both worse than the majority class."""
    figures = {"base": ModelScore(0.1, 0.0, 0.2, 100, 0.05), "a": ModelScore(0.267, 0.2, 0.3, 100, 0.05)}
    test = PairedTest(0.167, 0.1, 0.2, 0.001, 0.1, "a", "base", 100, 20, 3)
    over = {
        "a": PairedTest(-0.233, -0.3, -0.1, 6e-9, 0.1, "a", "majority", 100, 10, 33),
        "base": PairedTest(-0.4, -0.5, -0.3, base_p, 0.1, "base", "majority", 100, 0, 40),
    }
    return section_of("s", figures, [test], Baseline(0.5, "yes", over))


def test_a_model_that_is_worse_than_the_majority_class_is_never_shipped() -> None:
    section = below()
    assert (section.conclusion.best, *section.conclusion.better, section.below_majority("a")) == (
        None,
        "a",
        [section],
    )
    text = verdict(section)
    golden_text(text, "Ship none", "26.7", "10.0", "is better", "50.0", "0.001")
    comparison = Comparison("base", ["base", "a"], [section], None, [section], [section])
    golden_text(first_lines(comparison), "Ship none", "is better", "worse than")
    with in_language("zh"):
        assert verdict(section).startswith("都不采用：a") and first_lines(comparison).startswith(
            "都不采用：a"
        )
    one_answer = changed(section, baseline=Baseline())
    assert one_answer.conclusion.best == "a"  # where every expected answer is the same, nothing is a guess


def mean_of(*datasets: Section, figures: dict[str, float], over: dict[str, PairedTest]) -> Section:
    """The mean of datasets, on which every model but the base is shown to be better than the base."""
    scores = {
        model: ModelScore(value, value - 0.1, value + 0.1, 200, 0.05) for model, value in figures.items()
    }
    tests = [
        PairedTest(value - figures["base"], 0.05, 0.5, 0.001, 0.1, model, "base", 200, 60, 10)
        for model, value in figures.items()
        if model != "base"
    ]
    return section_of("mean", scores, tests, Baseline(0.5, "", over), datasets=datasets)


def test_the_mean_ships_no_model_that_is_worse_than_the_majority_class_on_one_dataset() -> None:
    """On s, a is at 26.7 % where the majority class is at 50 %. On t and on average it is far above."""
    bad, good = below(), replace(below(), name="t", baseline=Baseline(0.5, "yes"))
    mean = mean_of(bad, good, figures={"base": 0.4, "a": 0.6}, over={})
    assert (mean.conclusion.best, *mean.conclusion.better, mean.below_majority("a")) == (None, "a", [bad])
    text = verdict(mean)
    golden_text(
        text, "Ship none", "60.0", "40.0", "is better", "50.0", "0.001", "majority-class baseline on s"
    )
    sets = [replace(one, decided_by="mean") for one in (bad, good)]
    comparison = Comparison("base", ["base", "a"], sets, mean, [mean], [mean, *sets])
    golden_text(first_lines(comparison), "Ship none", "worse than", "majority-class baseline on s")
    both = changed(mean, datasets=(bad, replace(bad, name="t")))
    golden_text(verdict(both), "50.0", "0.001", "majority-class baseline on t")
    golden_text(
        decisions(replace(comparison, deciding=[both]), brief=True)[0], "Ship none", "worse on s and t"
    )


def test_the_mean_ships_the_best_model_that_is_above_the_majority_class_on_every_dataset() -> None:
    mean = mean_of(below(), figures={"base": 0.4, "a": 0.6, "b": 0.55}, over={})
    assert (mean.conclusion.best, *mean.conclusion.better) == ("b", "a", "b")
    text = verdict(mean)
    assert text.startswith("Ship b: 55.0 %, against 40.0 % for the base.")
    assert "a has a better figure" not in text


def test_a_base_that_is_worse_than_the_majority_class_on_one_dataset_is_named_by_the_mean() -> None:
    mean = mean_of(below(base_p=0.001), figures={"base": 0.6, "a": 0.4}, over={})
    mean = changed(mean, against_base=[replace(mean.against_base[0], value=-0.2, low=-0.3, high=-0.1)])
    text = verdict(mean)
    golden_text(text, "Keep the base", "50.0", "is worse", "majority-class baseline on s")


def test_the_verdict_of_one_dataset_names_a_model_that_is_worse_than_the_majority_class_on_another() -> None:
    """`--decide-on t`: a is at 90 % there, and at 20 % on s, where the majority class is at 50 %."""
    gold = ["yes", "no"] * 50
    runs = []
    for dataset, correct in {"s": {"base": 50, "a": 20}, "t": {"base": 50, "a": 90}}.items():
        for model, count in correct.items():
            predicted = gold[:count] + ["unknown"] * (100 - count)
            runs.append(labelled(model, gold, predicted, dataset))
    decided_on_t = compare(runs, "base", "t")
    texts = {section.name: verdict(section) for section in decided_on_t.datasets}
    assert texts["t"].startswith("Ship a: 90.0 %, against 50.0 % for the base.")
    golden_text(texts["t"], "But a is worse", "majority-class baseline on s", "50.0 %", "Something is wrong")
    golden_text(first_lines(decided_on_t), "Ship a", "a is worse than the majority-class baseline on s")
    with in_language("zh"):
        assert "s 上的多数类基线" in verdict(decided_on_t.datasets[1])
        assert "s 上的多数类基线" in first_lines(decided_on_t)
    decided_on_s = compare(runs, "base", "s")
    assert "baseline on" not in verdict(decided_on_s.datasets[0])


def test_a_dataset_with_one_expected_answer_gives_the_mean_no_majority_baseline() -> None:
    one_answer = changed(below(), baseline=Baseline())
    over = {"a": PairedTest(-0.2, -0.3, -0.1, 0.001, 0.1, "a", "majority", 200, 10, 50)}
    figures = {"base": 0.4, "a": 0.6}
    assert (
        mean_of(replace(below(), baseline=Baseline(0.5, "yes")), figures=figures, over=over).conclusion.best
        is None
    )
    assert mean_of(one_answer, figures=figures, over={}).conclusion.best == "a"


def test_a_base_that_is_worse_than_the_majority_class_is_not_kept_in_silence() -> None:
    worse = [PairedTest(-0.1, -0.2, -0.05, 0.001, 0.1, "a", "base", 100, 3, 20)]
    text = verdict(changed(below(base_p=0.001), against_base=worse))
    golden_text(text, "Keep the base", "is worse")
    assert "majority" not in verdict(changed(below(base_p=0.4), against_base=worse))


def test_a_better_figure_that_is_not_shown_to_be_better_is_named_as_a_rival() -> None:
    """B is 1.3 points ahead of A, but only A is shown to beat the base."""
    means = {"base": 0.41, "A": 0.547, "B": 0.56}
    figures = {model: ModelScore(value, 0.4, 0.6, 100, 0.05) for model, value in means.items()}
    tests = [
        PairedTest(0.137, 0.1, 0.2, 0.001, 0.1, "A", "base", 100, 20, 3, 0.1),  # B's gain may be luck
        PairedTest(0.15, -0.02, 0.3, 0.09, 0.1, "B", "base", 100, 40, 25),
    ]
    between = [PairedTest(0.013, -0.1, 0.12, 0.8, 0.1, "B", "A", 100, 9, 8)]
    text = verdict(section_of("s", figures, tests, Baseline(0.3, "yes"), between=between))
    golden_text(text, "Ship A", "54.7", "not shown to be better than B", "−1.3")


def test_the_first_line_says_what_is_to_be_done_and_names_the_alternative() -> None:
    base, a, b = WEAK, [True] * 100, NEARLY

    def said(**answers: list[bool]) -> str:
        return first_lines(compare([fake_run(model, right) for model, right in answers.items()], "base"))

    golden_text(said(base=base, a=a, b=b), "Ship a", "100.0", "40.0", "is not shown to be better than b")
    golden_text(said(base=base, a=a, b=base), "Ship a", "is better than b, the second best")
    golden_text(said(base=base, a=a), "Ship a: 100.0 %, against 40.0 % for the base.")
    golden_text(said(base=base, a=base), "Keep the base", "no evidence")
    two = [
        fake_run(model, right, name)
        for name in "st"
        for model, right in [("base", base), ("a", a), ("b", a[:-9] + [False] * 9)]
    ]
    golden_text(first_lines(compare(two, "base")), "Ship a", "100.0", "is better than b")


def test_the_first_line_names_three_alternatives_and_says_how_many_more() -> None:
    runs = [fake_run("base", [False] * 100), *(fake_run(f"m{n}", [True] * 100) for n in range(8))]
    golden_text(first_lines(compare(runs, "base")), "Ship m0", "m1", "m2", "m3", "4 more")


def test_different_tasks_have_a_line_each() -> None:
    runs = [
        fake_run(model, [right] * 50, name)
        for name in "st"
        for model, right in [("base", False), ("a", True)]
    ]
    found = sections.compare(by_dataset(runs), "base", has_mean=False)
    lines = decisions(found)
    assert [line.partition(":")[0] for line in lines] == ["On s", "On t"]
    assert all("Ship a" in line for line in lines)


def test_a_merge_is_called_by_its_adapters_and_a_single_one_is_the_simpler_choice() -> None:
    assert called("rte=0.5,mnli=0.5") == "the merge (rte=0.5,mnli=0.5)"
    assert [called(name) for name in ("rte", "rte=0.5", "a,b", "")] == ["rte", "rte=0.5", "a,b", ""]
    runs = [fake_run("base", WEAK), fake_run("rte=0.5,mnli=0.5", [True] * 100), fake_run("rte", NEARLY)]
    runs.append(fake_run("mnli", [True] * 20 + [False] * 80))
    comparison = compare(runs, "base")
    first_line = (
        "Ship the merge (rte=0.5,mnli=0.5): 100.0 %, against 40.0 % for the base. It is not shown "
        "to be better than rte alone (+2.0 points, p = 0.50), which is the simpler choice."
    )
    assert first_lines(comparison).startswith(first_line)
    page = markdown(comparison)
    assert page.startswith(first_lines(comparison)) and page.count("Ship") == 1 and "default" not in page
    with in_language("zh"):
        line = first_lines(comparison)
        assert line.startswith("建议采用合并模型（rte=0.5,mnli=0.5）：100.0%，基座模型为 40.0%。")
        assert "未证明它优于单独的 rte（+2.0 个百分点" in line
        assert "而后者更简单" in line


def test_some_worse_none_better() -> None:
    base, worse = flags(40, 30, 5, 25)
    text = told(fake_run("base", base), fake_run("a", worse), fake_run("b", base))
    golden_text(text, "0.0", "no evidence", "−25.0", "0.001", "is worse")


def test_nothing_to_compare() -> None:
    golden_text(told(fake_run("base", [True])), "Nothing to compare")
    golden_text(told(fake_run("a", [True]), fake_run("b", [False])), "Nothing to compare")
    two = [fake_run("base", [True] * 9), fake_run("a", [True] * 9, "t")]
    assert "| –" in markdown(compare(two, "base"))


def test_the_best_of_many_has_a_figure_without_its_luck() -> None:
    text = told(fake_run("base", OLD), fake_run("a", NEW), fake_run("b", OLD), fake_run("c", OLD[::-1]))
    golden_text(text, "best of 3", "overstates its gain")
    assert "overstates" not in told(fake_run("base", OLD), fake_run("a", NEW), fake_run("b", OLD))


def test_a_model_is_within_a_margin_if_its_lower_limit_is() -> None:
    """1,000 examples: `a` and `b` differ on 10, so that `b` is shown to lose less than 2 points."""
    base, a = [True] * 500 + [False] * 500, [True] * 900 + [False] * 100
    b = [False] * 6 + [True] * 894 + [True] * 4 + [False] * 96
    runs = [fake_run("base", base), fake_run("a", a), fake_run("b", b)]
    (section,) = compare(runs, "base", margin=0.02).datasets
    (test,) = (test for test in section.conclusion.against_top if test.model == "b")
    assert test.against == "a" and -0.02 < test.low < -0.005 < test.value == pytest.approx(-0.002)
    golden_text(verdict(section), "2", "−0.2", "−0.8", "+0.4", "is shown", "−40.0", "not shown")
    found = table_json(runs, margin=0.02)
    assert VALID(found) and found["datasets"]["s"]["within_margin"] == ["b"]
    (tight,) = compare(runs, "base", margin=0.005).datasets
    golden_text(verdict(tight), "0.5", "not shown")
    assert "within" not in verdict(compare(runs, "base").datasets[0])
    with raises(RequestError, "--margin"):
        compare(runs[:1], "base", margin=0.01)
