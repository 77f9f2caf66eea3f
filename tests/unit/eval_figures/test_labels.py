"""Labels and their measures, against figures worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.figures.labels import (
    check_labels,
    class_scores,
    confusion,
    find_labels,
    parse_choices,
    parse_counts,
    spellings,
    summary,
)
from tuneyard.eval.statistics.rates import wilson

EXPECTED = ["yes", "yes", "yes", "no", "no", "maybe"]
PREDICTED = ["yes", "yes", "no", "no", "unknown", "yes"]


def rows():
    return [{"expected_output": e, "predicted_output": p} for e, p in zip(EXPECTED, PREDICTED, strict=True)]


def test_summary_by_hand() -> None:
    found = summary(rows())
    assert found["accuracy"] == 0.5
    assert found["n"] == 6
    assert found["stderr"] == pytest.approx((0.25 / 5) ** 0.5)
    assert found["ci95"] == pytest.approx(list(wilson(3, 6)))
    assert found["majority"] == 0.5
    assert found["unparsed"] == 1
    assert found["classes"]["yes"] == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    )
    assert found["classes"]["maybe"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.5 + 0) / 3)


EXPECTED_LABELS = st.sampled_from(["yes", "no", "maybe"])
ANSWERS = st.sampled_from(["yes", "no", "maybe", "unknown", "网络"])


@given(st.lists(st.tuples(EXPECTED_LABELS, ANSWERS), min_size=1))
def test_precision_recall_and_f1_are_those_of_scikit_learn(pairs):
    """Bit for bit, also of labels that nobody predicts and of predictions that are no label."""
    from sklearn.metrics import precision_recall_fscore_support

    expected, predicted = map(list, zip(*pairs, strict=True))
    labels = sorted(set(expected))
    columns = precision_recall_fscore_support(expected, predicted, labels=labels, zero_division=0.0)
    scores = class_scores(expected, predicted)
    assert list(scores) == labels
    for label, *row in zip(labels, *(column.tolist() for column in columns), strict=True):
        assert list(scores[label].values()) == row
        assert [type(value) for value in scores[label].values()] == [float, float, float, int]
        assert list(scores[label]) == ["precision", "recall", "f1", "support"]


def test_confusion_counts_every_row_once() -> None:
    table = confusion(EXPECTED, PREDICTED)
    assert table["yes"] == {"maybe": 0, "no": 1, "unknown": 0, "yes": 2}
    assert sum(sum(row.values()) for row in table.values()) == 6


def test_spellings() -> None:
    assert spellings("yes") == ["yes", "Yes", " yes", " Yes"]
    assert spellings("Yes") == ["Yes", "yes", " Yes", " yes"]
    assert spellings("yes", variants=False) == ["yes"]
    assert spellings("A") == ["A", " A"]
    assert spellings("不确定") == ["不确定", " 不确定"]


def test_labels_are_found_or_refused() -> None:
    assert find_labels(["yes", "no", "yes"], "f") == ["no", "yes"]
    with raises(ContentError, "21", "`tuneyard eval text`"):
        find_labels([str(i) for i in range(21)], "f")
    with raises(ContentError, "record 1", "--choices no,yes"):
        check_labels(["no", "yes"], ["true", "false"], "f")


@pytest.mark.parametrize("text", ["yes", "yes,yes", ",", ""])
def test_choices_must_be_two_different_ones(text) -> None:
    with raises(RequestError, "--choices"):
        parse_choices(text)


def test_one_label_counts_as_another_and_both_are_labels():
    labels = ["yes", "no", "maybe"]
    assert parse_counts(["maybe=no"], labels) == {"maybe": "no"}
    for wrong in ("maybe=perhaps", "perhaps=maybe", "maybe"):
        with raises(RequestError, "--count", "yes, no, maybe"):
            parse_counts([wrong], labels)
