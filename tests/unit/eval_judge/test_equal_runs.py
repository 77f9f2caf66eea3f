"""Bit-equal log-probabilities of two models get a word, by hand; near ones and one adapter twice do not."""

import pytest

from tuneyard.eval.judge.ask import equal_log_probabilities
from tuneyard.eval.judge.findings import EqualLogProbabilities
from tuneyard.eval.runs.scored_run import ScoredRun

LABELS = [{"choices": {"yes": -0.1, "no": -2.5}}, {"choices": {"yes": -1.25, "no": -0.5}}]


def scored(model, records, confidence=None, **facts):
    count = len(records)
    rows = [str(row) for row in range(count)]
    answers = ["yes"] * count
    return ScoredRun(
        model, "rte", f"out/{model}", rows, answers, answers, [True] * count, confidence=confidence,
        records=records, facts=facts,
    )  # fmt: skip


@pytest.mark.parametrize(
    "records",
    [
        LABELS,
        [{"loss": 1.5}, {"loss": 2.25}],
        [{"chosen_logp": -3.5, "rejected_logp": -4.0}, {"chosen_logp": -1.0, "rejected_logp": -2.0}],
        [{"answer_logp": -3.5}, {"answer_logp": -7.5}],
        [{"loss": 1.5}, {"too_long": True}],
    ],
)
def test_equal_logs_of_base_and_adapter(records):
    runs = [scored("base", records), scored("tuned", records, adapters={"tuned": "saves/tuned"})]
    (finding,) = equal_log_probabilities(runs)
    assert finding == EqualLogProbabilities("rte", "tuned", "base", ("saves/tuned",))


def test_equal_logs_of_another_tool():
    records = [{"id": 1}, {"id": 2}]
    runs = [scored("a", records, [0.75, 0.5]), scored("b", records, [0.75, 0.5])]
    (finding,) = equal_log_probabilities(runs)
    assert finding == EqualLogProbabilities("rte", "b", "a", ())


def test_what_is_not_bit_equal_or_says_nothing_gets_no_word():
    last_digit = [LABELS[0], {"choices": {"yes": -1.25, "no": -0.5000000000000001}}]
    assert not list(equal_log_probabilities([scored("base", LABELS), scored("tuned", last_digit)]))
    same = [{"id": 1}, {"id": 2}]
    assert not list(
        equal_log_probabilities([scored("base", same, [1.0, 1.0]), scored("tuned", same, [1.0, 1.0])])
    )
    assert not list(equal_log_probabilities([scored("base", same), scored("tuned", same)]))


def test_one_adapter_under_two_names_is_equal_for_a_good_reason():
    facts = {"weights": {"x": 1.0}, "hashes": {"adapters": {"x": "abc"}}}
    assert not list(equal_log_probabilities([scored("one", LABELS, **facts), scored("two", LABELS, **facts)]))
    other = {"weights": {"x": 0.5}, "hashes": {"adapters": {"x": "abc"}}}
    assert (
        len(list(equal_log_probabilities([scored("one", LABELS, **facts), scored("two", LABELS, **other)])))
        == 1
    )
