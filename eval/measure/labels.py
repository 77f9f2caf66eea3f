"""Labels: which a set has, how each may be spelt, and how well each was found."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.errors import ContentError, RequestError
from eval.measure.statistics import clustered_stderr, stderr, wilson

UNKNOWN = "unknown"
LOW_MASS = 0.5  # below this the model hardly says any of the labels, and comparing them means little
MOST = 20  # more different answers than this are free text and no labels


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How one label fared: shares (0-1) and how often it is the right answer."""

    precision: float
    recall: float
    f1: float
    support: int


def find_labels(answers: Sequence[str], place: str) -> list[str]:
    """Return the labels of a set: its different answers, sorted. `ContentError` if they are free text."""
    labels = sorted(set(answers))
    if "" in labels:
        raise ContentError(f"{place}: record {answers.index('') + 1} has no expected answer")
    if len(labels) > MOST:
        raise ContentError(
            f"{place}: {len(labels)} different answers are no label set (at most {MOST}); name it: --choices"
        )
    if len(labels) < 2:
        raise ContentError(
            f"{place}: every answer is {labels[0]!r}; name what is to be chosen from: --choices"
        )
    return labels


def check_labels(answers: Sequence[str], labels: Sequence[str], place: str) -> None:
    """Raise `ContentError` naming the records whose answer is none of the labels."""
    wrong = [(n, answer) for n, answer in enumerate(answers, 1) if answer not in labels]
    if wrong:
        number, answer = wrong[0]
        raise ContentError(
            f"{place}: record {number}: answer {answer!r}, expected one of {', '.join(labels)} "
            f"({len(wrong)} such records)"
        )


def spellings(label: str, variants: bool = True) -> list[str]:
    """Return the texts that count as the label: yes, Yes and both after a space; one letter keeps its case.

    >>> spellings("yes")
    ['yes', 'Yes', ' yes', ' Yes']
    """
    forms = [label]
    if variants and len(label) > 1:
        forms += [label[0].upper() + label[1:], label[0].lower() + label[1:]]
    if variants:
        forms += [f" {form}" for form in forms]
    return list(dict.fromkeys(forms))


def parse_choices(text: str) -> list[str]:
    """Return the labels of `--choices yes,no,maybe`; `RequestError` for fewer than two or doubles."""
    labels = [label.strip() for label in text.split(",") if label.strip()]
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise RequestError(f"--choices {text!r}: expected two or more different labels, e.g. yes,no,maybe")
    return labels


def parse_counts(texts: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Return which label counts as which, from `--count maybe=no`; `RequestError` unless both are labels."""
    counts = dict(text.partition("=")[::2] for text in texts)
    for said, meant in counts.items():
        if said not in labels or meant not in labels:
            raise RequestError(f"--count {said}={meant}: expected two of the labels {', '.join(labels)}")
    return counts


def summary(predictions: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return accuracy with its uncertainty, the majority baseline and the classes of scored rows.

    Rows that carry a `group` are not independent: standard error and interval are then by group.
    """
    expected = [str(p["expected_output"]) for p in predictions]
    predicted = [str(p["predicted_output"]) for p in predictions]
    correct = [e == p for e, p in zip(expected, predicted, strict=True)]
    grouped = all("group" in p for p in predictions)
    error = stderr(correct)
    clustered = clustered_stderr(correct, [str(p["group"]) for p in predictions]) if grouped else error
    effect = max(1.0, (clustered / error) ** 2) if error else 1.0
    classes = class_scores(expected, predicted)
    return {
        "accuracy": sum(correct) / len(correct),
        "n": len(correct),
        "stderr": clustered,
        "ci95": list(wilson(sum(correct) / effect, len(correct) / effect)),
        "majority": Counter(expected).most_common(1)[0][1] / len(expected),
        "unparsed": predicted.count(UNKNOWN),
        "macro_f1": sum(c.f1 for c in classes.values()) / len(classes),
        "classes": {label: asdict(score) for label, score in classes.items()},
        "confusion": confusion(expected, predicted),
    }


def accuracy_line(results: Mapping[str, Any]) -> str:
    """Return accuracy, 95 % interval, n and the commonest answer's share, as commands print them."""
    low, high = results["ci95"]
    return (
        f"{results['accuracy']:.1%} [{low:.1%}, {high:.1%}]  n {results['n']}  "
        f"majority {results['majority']:.1%}"
    )


def class_scores(expected: Sequence[str], predicted: Sequence[str]) -> dict[str, ClassScore]:
    """Return precision, recall and F1 of each label among the right answers (0 where undefined)."""
    scores = {}
    for label in sorted(set(expected)):
        hit = sum(e == p == label for e, p in zip(expected, predicted, strict=True))
        said, support = predicted.count(label), expected.count(label)
        precision, recall = hit / said if said else 0.0, hit / support
        scores[label] = ClassScore(precision, recall, 2 * hit / (said + support), support)
    return scores


def confusion(expected: Sequence[str], predicted: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return counts by right answer and prediction, `unknown` included where it was predicted."""
    labels = sorted({*expected, *predicted})
    counts = Counter(zip(expected, predicted, strict=True))
    return {right: {said: counts[right, said] for said in labels} for right in sorted(set(expected))}
