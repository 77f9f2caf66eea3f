"""W208: inputs that are trained on and are in another split."""

from collections.abc import Iterator

from tuneyard.compiler.lint import Splits, split_lint
from tuneyard.compiler.lint.matching import matches
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, marked

LEAK = ProblemCode(
    "W208",
    _("a training input that stands in another split"),
    _("Delete one of both, or write `drop_leaks: true` into the spec."),
    _("A score on that row measures memory."),
    template=marked("the same input is also in {split} ({place}); `drop_leaks: true` in the spec drops it"),
)


@split_lint(LEAK, columns=["prompts"])
def leaks(splits: Splits) -> Iterator[Problem]:
    """Yield the training rows whose input is in another split."""
    for training, name, others in splits.pairs():
        for row, other in matches(training.values("prompts"), others.values("prompts")):
            message = LEAK.message(split=name, place=others.location(other))
            yield Problem(LEAK, training.location(row), message)
