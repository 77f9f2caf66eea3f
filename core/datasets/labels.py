"""Are the answers of a dataset labels, or free text? One answer for training, scoring and comparing."""

from collections.abc import Collection, Sequence

MOST_LABELS = 20
"""Of more different answers each has a few examples, and scoring their probabilities takes as many passes."""
LONGEST_LABEL = 40
"""Characters. A longer answer is a sentence."""
FEWEST_ROWS_A_LABEL = 1.5
"""A label is the answer to several prompts. Answers that hardly repeat belong to their own prompts."""


def labels_of(answers: Sequence[str], *, declared: bool = False) -> list[str]:
    """The labels of a dataset, sorted: its different answers. [] if the answers are free text.

    Labels are 2 to 20 different answers, short and repeated. With `declared` a spec, a command or the user
    says that they are labels: then they may be long, and each may occur once.

    >>> labels_of(["yes", "no", "yes"])
    ['no', 'yes']
    >>> labels_of(["Paris", "Rome"]), labels_of(["Paris", "Rome"], declared=True)
    ([], ['Paris', 'Rome'])
    """
    labels = sorted(set(answers))
    if "" in labels or not 2 <= len(labels) <= MOST_LABELS:
        return []
    if declared or _are_short_and_repeated(labels, len(answers)):
        return labels
    return []


def _are_short_and_repeated(labels: Collection[str], rows: int) -> bool:
    if any(len(label) > LONGEST_LABEL or "\n" in label for label in labels):
        return False
    return rows >= FEWEST_ROWS_A_LABEL * len(labels)
