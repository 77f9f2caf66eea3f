"""Labels: which a set has, how each may be spelt, and how well each was found."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneyard.core.datasets.labels import MOST_LABELS, labels_of
from tuneyard.core.documents import is_number
from tuneyard.core.errors import ContentError, RequestError, unexpected
from tuneyard.core.language.message import _, relative
from tuneyard.eval.figures import metric, metric_over_rows
from tuneyard.eval.figures.accuracy import accuracy_figures
from tuneyard.eval.statistics.rates import (
    Mean,
    Row,
    Rows,
    groups_of,
    hits,
)

UNKNOWN = "unknown"
LOW_MASS = 0.5  # below this the model hardly says any of the labels, and comparing them means little
ROUNDED = 0.1  # the log of a probability is at most 0, and rounding may add this
LONGEST_LABEL = 60  # characters of an expected text that are printed


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels of a dataset, and which labels that no example expects count as which other.

    `label_of` has the label of each expected answer, which may be spelled differently.
    """

    labels: list[str]
    counts: Mapping[str, str]
    label_of: Mapping[str, str] = field(default_factory=dict)


def short(text: str, most: int = LONGEST_LABEL) -> str:
    """Shorten a text for a cell or a sentence: one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def label_logs(prediction: Row) -> Mapping[str, float]:
    """Log-probabilities of the labels in a prediction; `ContentError` for other values, such as NaN.

    That of an impossible label is -inf; one label at least is possible. `label_mass` may be missing.
    """
    logs: Any = prediction.get("choices")
    values = logs.values() if isinstance(logs, Mapping) else ()
    usable = [log == -math.inf or (is_number(log) and log <= ROUNDED) for log in values]
    place, mass = prediction.get("place", "choices"), prediction.get("label_mass", 1.0)
    if not all(usable) or max(values, default=-math.inf) == -math.inf:
        raise unexpected(place, "choices", logs, _("the labels' log-probabilities"))
    if not is_number(mass) or mass > 1 + ROUNDED:
        raise unexpected(place, "label_mass", mass, _("a probability"))
    kept_logs: Mapping[str, float] = logs
    return kept_logs


def find_labels(answers: Sequence[str], place: str) -> list[str]:
    """The labels of a dataset, whose answers the user calls labels. `ContentError` if they cannot be."""
    labels = labels_of(answers, declared=True)
    if labels:
        return labels
    if "" in answers:
        raise ContentError(
            _(
                "{place}: record {number} has no expected answer: give each record one",
                place=relative(place),
                number=answers.index("") + 1,
            )
        )
    different = len(set(answers))
    if different > MOST_LABELS:
        raise ContentError(
            _(
                "{place}: {number} different answers are no label set (at most {most}); name it: "
                "--choices; `tuneyard eval text` and `tuneyard eval qa` score free text",
                place=relative(place),
                number=different,
                most=MOST_LABELS,
            )
        )
    raise ContentError(
        _(
            "{place}: every answer is {label!r}; name what is to be chosen from: --choices",
            place=relative(place),
            label=answers[0],
        )
    )


def check_labels(answers: Sequence[str], labels: Sequence[str], place: str) -> None:
    """Raise `ContentError` with a record whose answer is not one of the labels."""
    others = sorted({*answers}.difference(labels))
    if others:
        choices = ",".join(sorted({*answers})[:MOST_LABELS])
        raise ContentError(
            _(
                "{place}: record {number}: answer {answer!r}, expected one of {labels}; "
                "its answers: --choices {choices}",
                place=relative(place),
                number=answers.index(others[0]) + 1,
                answer=others[0],
                labels=", ".join(labels),
                choices=choices,
            )
        )


def spellings(label: str, variants: bool = True) -> list[str]:
    """Spellings that count as the label: yes, Yes and both after a space. One letter keeps its case.

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
    """Parse `--choices yes,no,maybe`; `RequestError` for fewer than two labels or doubles."""
    labels = [label.strip() for label in text.split(",") if label.strip()]
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise RequestError(
            _("--choices {text!r}: expected two or more different labels, e.g. yes,no,maybe", text=text)
        )
    return labels


def parse_counts(texts: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Parse `--count maybe=no`; `RequestError` unless both are labels."""
    counted_as = {}
    for text in texts:
        label, _equals, other = text.partition("=")
        if label not in labels or other not in labels:
            raise RequestError(
                _(
                    "--count {text}: expected A=B with two of the labels {labels}",
                    text=text,
                    labels=", ".join(labels),
                )
            )
        counted_as[label] = other
    return counted_as


def summary(predictions: Rows) -> dict[str, object]:
    """Accuracy with its uncertainty, the majority-class baseline and the classes of scored rows.

    Rows with a `cluster` are not independent: error and interval are then by cluster.
    """
    expected = [line["expected_output"] for line in predictions]
    predicted = [line["predicted_output"] for line in predictions]
    majority, count = Counter(expected).most_common(1)[0]
    classes = class_scores(expected, predicted)
    return {
        **accuracy_figures(predictions),
        "majority": count / len(expected),
        "majority_label": majority,
        "unparsed": predicted.count(UNKNOWN),
        "macro_f1": sum(one["f1"] for one in classes.values()) / len(classes),
        "classes": classes,
        "confusion": confusion(expected, predicted),
    }


def _macro_f1_of_all(rows: Rows) -> Mean:
    from tuneyard.eval.statistics.f1 import macro_f1s

    expected = [row["expected_output"] for row in rows]
    predicted = [row["predicted_output"] for row in rows]
    return macro_f1s(expected, {"": predicted}, groups_of(rows)).figures()[""]


@metric_over_rows(
    "macro_f1",
    needs=("expected_output", "predicted_output"),
    of_all=_macro_f1_of_all,
    by_command=True,
    beside_accuracy=False,
)
def macro_f1(rows: Rows) -> list[float]:
    """1 for each correct answer. Macro-F1 is no mean of rows; its interval is of the cluster bootstrap."""
    return [float(is_correct) for is_correct in hits(rows)]


@metric("label_mass", needs=("label_mass",), by_command=True, beside_accuracy=False)
def label_mass(prediction: Row) -> float:
    """Probability of all labels together. The rest is on other texts."""
    return float(prediction["label_mass"])


def class_scores(expected: Sequence[str], predicted: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 (each 0 if undefined) and support of each label of the expected answers."""
    expected_counts, predicted_counts = Counter(expected), Counter(predicted)
    pairs = zip(expected, predicted, strict=True)
    correct_counts = Counter(label for label, answer in pairs if label == answer)
    scores = {}
    for label in sorted(expected_counts):
        correct, support, answers = correct_counts[label], expected_counts[label], predicted_counts[label]
        scores[label] = {
            "precision": correct / answers if answers else 0.0,
            "recall": correct / support,
            "f1": 2 * correct / (support + answers),
            "support": support,
        }
    return scores


def confusion(expected: Sequence[str], predicted: Sequence[str]) -> dict[str, dict[str, int]]:
    """Counts by expected answer, then by prediction. `unknown` is included if it was predicted."""
    counts = Counter(zip(expected, predicted, strict=True))
    labels = sorted({*expected, *predicted})
    table = {}
    for answer in sorted(set(expected)):
        table[answer] = {prediction: counts[answer, prediction] for prediction in labels}
    return table
