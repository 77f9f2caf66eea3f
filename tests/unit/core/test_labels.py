"""One answer to whether a dataset's answers are labels."""

import pytest

from tuneyard.core.datasets.labels import labels_of


@pytest.mark.parametrize(
    ("answers", "labels"),
    [
        (["yes", "no", "yes"], ["no", "yes"]),
        (["是", "否"] * 2, ["否", "是"]),
        (["x" * 40, "y"] * 2, ["x" * 40, "y"]),
        ([str(number) for number in range(10, 30)] * 2, [str(number) for number in range(10, 30)]),
        # free text: too many, too long, of several lines, hardly repeated
        ([str(number) for number in range(21)] * 9, []),
        (["x" * 41, "y"] * 9, []),
        (["a\nb", "y"] * 9, []),
        (["a", "b", "c", "d", "a"], []),
        # nothing to choose between, or no answer at all
        (["yes"] * 9, []),
        (["yes", "", "no"] * 9, []),
        ([], []),
    ],
)
def test_labels_are_few_short_and_repeated(answers, labels):
    assert labels_of(answers) == labels


def test_declared_labels_may_be_long_and_occur_once_but_are_few_and_different():
    long = ["The text follows from the premise, whatever else it says.", "It does not\nfollow."]
    assert labels_of(long) == []
    assert labels_of(long, declared=True) == sorted(long)
    assert labels_of(["a"], declared=True) == labels_of(["a", ""], declared=True) == []
    assert labels_of([str(number) for number in range(21)], declared=True) == []
