"""Warnings about a model that was trained on examples of the dataset that scores it."""

from collections.abc import Mapping, Sequence
from typing import Any

from tuneyard.core.errors import counted
from tuneyard.core.language import tr, tr_counted


def training_warnings(
    model: str, n: int, trained_on: Mapping[str, Any] | None, metric: str = ""
) -> list[str]:
    """Warn about training examples among the `n` scored ones, from `trained_on` in results.json."""
    if not trained_on:
        return []
    warnings = []
    examples = trained_on["examples"]
    if examples:
        at_most = bool(trained_on.get("at_most"))
        warnings.append(contamination(model, examples, n, trained_on["sources"], metric, at_most=at_most))
    same = "{model} was trained on a dataset of this name ({source})"
    unknown = "{model}: training examples not checked: {reason}"
    warnings += [tr(same, model=model, source=source) for source in trained_on["same_name"]]
    warnings += [tr(unknown, model=model, reason=reason) for reason in trained_on["not_checked"]]
    return warnings


def training_rows_warning(model: str, n: int, rows: Mapping[str, Any] | None) -> list[str]:
    """Warn if scored examples are rows of the training split, from `training_rows` in results.json."""
    if not rows:
        return []
    return [
        f"{model}: {rows['examples']:,} of these {counted(n, 'example')} are rows of {rows['dataset']}, the "
        "training split of the same compile: models that were trained on it have seen them; "
        "score its other split"
    ]


def contamination(
    model: str, examples: int, n: int, sources: Sequence[str], metric: str = "", *, at_most: bool = False
) -> str:
    """Warn that a model was trained on `examples` of the `n` scored ones, and about its accuracy or metric.

    `at_most`: the examples are in its training data, but the training may not have read all of them.
    """
    where = f" ({', '.join(sources)})" if sources else ""
    warning = "{model} was trained on {count:,} of these {examples}{where}: {what}"
    if at_most:
        warning = (
            "{model} was trained on up to {count:,} of these {examples}{where}; "
            "no record says how many of them the training read: {what}"
        )
    every_one = examples == n and not at_most
    if metric:
        meaning = tr("its {metric} on them is that of training", metric=metric)
    elif every_one:
        meaning = tr("this is training accuracy")
    else:
        meaning = tr("its accuracy on them is training accuracy")
    scored = tr_counted(n, "example")
    return tr(warning, model=model, count=examples, examples=scored, where=where, what=meaning)
