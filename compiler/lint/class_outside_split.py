"""W217: a class that a drawn split has no row of."""

from collections.abc import Iterator

from tuneyard.compiler.lint import Splits, split_lint
from tuneyard.compiler.spec.model import UNLABELLED
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.errors import Problem, show_values
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, marked

CLASS_OUTSIDE_SPLIT = ProblemCode(
    "W217",
    _("a class without rows in a split"),
    _("Add rows of this class, or leave it out of `labels`."),
    template=marked("{split}: no row of {classes}"),
)


@split_lint(CLASS_OUTSIDE_SPLIT)
def class_outside_split(splits: Splits) -> Iterator[Problem]:
    """Yield a problem for each split that lacks classes, if the rows were drawn and not stratified."""
    drawn = splits.spec.split
    if drawn is None or drawn.is_given or drawn.stratify or len(splits.summaries) < 2:
        return
    for split, summary in splits.summaries.items():
        counts = summary.get("labels", {})
        missing = [label for label in splits.spec.labels if label != UNLABELLED and not counts.get(label)]
        in_others = [
            label
            for label in missing
            if any(other.get("labels", {}).get(label) for other in splits.summaries.values())
        ]
        if in_others:
            message = CLASS_OUTSIDE_SPLIT.message(split=split, classes=show_values(in_others))
            hint = _("add rows of it: its answers are not measured")
            if split == TRAIN_SPLIT:
                hint = _("add rows of it: it is not learned")
            yield Problem(CLASS_OUTSIDE_SPLIT, splits.spec.name, message, "label", hint)
