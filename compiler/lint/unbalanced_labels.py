"""W222: labels of which one is far too common or too rare."""

from collections.abc import Collection, Iterator, Mapping

from tuneyard.compiler.lint import Splits, split_lint
from tuneyard.compiler.spec.model import UNLABELLED
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, marked

UNBALANCED_LABELS = ProblemCode(
    "W222",
    _("labels far out of balance"),
    _("Add rows of the rare labels, or leave rows of the common ones out."),
    _("Of at least 50 training rows one label has over 90 %, or another under a tenth of an equal share."),
    template=marked("far out of balance: {shares} of {rows} training rows"),
)
FEWEST = 50  # rows: of fewer, the shares of labels say little


@split_lint(UNBALANCED_LABELS)
def unbalanced_labels(splits: Splits) -> Iterator[Problem]:
    """Yield a problem of the dataset if labels of training rows are far out of balance."""
    if TRAIN_SPLIT not in splits.summaries:
        return
    training = splits.summaries[TRAIN_SPLIT]
    labels = [label for label in splits.spec.labels if label != UNLABELLED]
    shares = imbalance(training["labels"], labels)
    if shares:
        message = UNBALANCED_LABELS.message(shares=shares, rows=training["rows"])
        hint = _("add rows of the rare ones, or leave rows of the common ones out")
        yield Problem(UNBALANCED_LABELS, splits.spec.name, message, "label", hint)


def imbalance(counts: Mapping[str, int], labels: Collection[str]) -> str:
    """The shares of labels that are far out of balance, "" for others and for fewer than 50 rows.

    That is one label over 90 %, or another under a tenth of an equal share (of three labels: under 3.3 %).
    Always giving the most common answer is then hard to beat, and a model learns little else.
    """
    total = sum(counts.values())
    if total < FEWEST or len(labels) < 2:
        return ""
    by_size = sorted(labels, key=lambda label: -counts.get(label, 0))
    most, least = counts.get(by_size[0], 0), counts.get(by_size[-1], 0)
    if least * len(labels) * 10 >= total and most <= 0.9 * total:
        return ""
    return ", ".join(f"{label} {counts.get(label, 0) / total:.1%}".replace("%", " %") for label in by_size)
