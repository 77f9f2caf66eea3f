"""The whole promise: p, interval and verdict of a page agree as they are printed, whatever the design."""

import re
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fake_runs import by_dataset, compare, labelled, verdict
from tuneyard.core.training.metrics import ACCURACY, Metric
from tuneyard.eval.judge.conclusions import Comparison, PairedTest, Section
from tuneyard.eval.judge.questions.slices import compare_slices
from tuneyard.eval.report.differences import differences
from tuneyard.eval.report.verdict import decisions
from tuneyard.eval.runs.scored_run import ScoredRun
from tuneyard.eval.statistics.family import DifferenceTest

LABELS = ["yes", "no", "maybe"]
MODELS = ["base", "a", "b", "c"]
METRICS = {
    "score": Metric("share", True, "score"),
    "eval_loss": Metric("nats", False, "eval_loss"),
    "points": Metric("points", True, "points"),
}


def page(generator: np.random.Generator, clusters: int, models: int, dataset: str) -> list[ScoredRun]:
    """Runs on clusters of 1 to 60 rows that are answered more or less alike, with values in each metric."""
    keys = np.repeat(np.arange(clusters), generator.integers(1, 61, clusters))
    gold = generator.choice(LABELS, len(keys), p=generator.dirichlet([2, 2, 1])).tolist()
    alike = generator.choice([0.0, 0.5, 0.95])
    tokens = np.ceil(np.exp(generator.random(len(keys)) * 5))
    runs: list[ScoredRun] = []
    for name in MODELS[:models]:
        whole = generator.random(clusters)[keys]
        chance = np.where(generator.random(len(keys)) < alike, whole, generator.random(len(keys)))
        said = np.where(chance < generator.random(), gold, generator.choice(LABELS, len(keys))).tolist()
        loss = np.exp(2 * chance) * tokens
        columns = {"label": gold, "score": chance, "loss": loss, "tokens": tokens, "points": 10 * chance - 5}
        records = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        groups = [str(key) for key in keys]
        runs.append(labelled(name, gold, said, dataset, groups=groups, records=records))
    return runs


def agree(one: PairedTest | DifferenceTest) -> bool:
    return (one.p < 0.05) == (one.low > 0 or one.high < 0)


def printed_number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", "").replace("< ", ""))


def printed_limits(text: str, then: str = "") -> list[float]:
    text = text.replace("(too few rows for an interval)", "(-inf to inf)")
    return [printed_number(limit) for limit in re.search(rf"\((\S+) to (\S+)\){then}", text).groups()]


def check(section: Section) -> None:
    tests = [*section.against_base, *section.between]
    for test in tests:
        assert agree(test) and test.significant == (test.p < 0.05)
    assert all(agree(test.macro_f1) for test in tests if test.macro_f1 is not None)
    for table in differences(section).values():
        place = table.header.index("p")
        assert len(table.rows) == len(tests)
        for row in table.rows:
            low, high = printed_limits(row[1])
            assert (printed_number(row[place]) < 0.05) == (low > 0 or high < 0), row
    text = verdict(replace(section, decided_by=""))
    assert "default" not in text
    sign = 1 if section.metric.higher else -1
    better = {test.model for test in section.against_base if test.significant and sign * test.value > 0}
    assert text.startswith("Ship") == bool(better)
    check_printed(text, section)
    if section.conclusion.best is not None:
        assert section.conclusion.best in better and not section.below_majority(section.conclusion.best)


P = r"p (?:= )?(< 0\.001|[\d.]+\d)"


def check_printed(text: str, section: Section) -> None:
    """A verdict claims nothing that its own figures deny."""
    first = re.search(P, text)
    if text.startswith("Ship"):
        first = re.search(P, text[re.search("The difference between|Ship none", text).start() :])
    chance = printed_number(first.group(1))
    decided = text.startswith("Ship") or "all others are worse" in text
    if decided:
        assert chance < 0.05
    else:
        exact = chance == 0.05 and any(test.p == 0.05 for test in section.against_base)
        assert chance > 0.05 or exact
    pair = re.search(r"([\d.,−e+-]+\d)(?: %)?, against ([\d.,−e+-]+\d)", text)
    if pair is not None:
        ours, theirs = map(printed_number, pair.groups())
        assert (ours > theirs) == section.metric.higher and ours != theirs
    if not decided:
        low, high = printed_limits(text, ", p")
        assert low <= 0 <= high
    for rivals in re.findall(r"not shown to be better than (.*?)(?:, which|\. |\.$)", text):
        for rival in re.findall(P, rivals):
            assert printed_number(rival) >= 0.05


def check_first_line(comparison: Comparison) -> None:
    (text,) = decisions(comparison)
    (section,) = comparison.deciding
    shipped = re.match(r"Ship (?!none:)(\w+):", text)
    assert (shipped and shipped[1]) == section.conclusion.best
    assert "default" not in text
    if comparison.mean and comparison.mean.conclusion.best is not None:
        assert not any(one.below_majority(comparison.mean.conclusion.best) for one in comparison.datasets)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    clusters=st.integers(1, 20),
    models=st.integers(2, 4),
    metric=st.sampled_from(["", "", *METRICS]),
    several=st.booleans(),
)
def test_p_interval_and_verdict_of_a_page_agree_as_they_are_printed(
    seed: int, clusters: int, models: int, metric: str, several: bool
) -> None:
    generator = np.random.default_rng(seed)
    runs = page(generator, clusters, models, "s")
    if several:
        runs += page(generator, 23 - clusters, models, "t")
    comparison = compare(runs, "base", metric=METRICS.get(metric, ACCURACY))
    for section in comparison.sections:
        check(section)
    check_first_line(comparison)
    for one in compare_slices(by_dataset(runs), "base", "label"):
        assert all(map(agree, one.tests))
