"""Warnings about a model that was trained on examples of the dataset that scores it."""

from collections.abc import Mapping, Sequence
from typing import Any

from tuneyard.core.errors import counted
from tuneyard.core.language import tr, tr_counted


def training_warnings(model: str, n: int, found: Mapping[str, Any] | None, metric: str = "") -> list[str]:
    """Return what to bear in mind of `trained_on` in results.json, for a model scored on `n` examples."""
    if not found:
        return []
    said = []
    if found["examples"]:
        at_most = bool(found.get("at_most"))
        said = [contamination(model, found["examples"], n, found["sources"], metric, at_most=at_most)]
    same = "{model} was trained on a dataset of this name ({source})"
    unknown = "{model}: training examples not checked: {reason}"
    said += [tr(same, model=model, source=source) for source in found["same_name"]]
    return said + [tr(unknown, model=model, reason=reason) for reason in found["not_checked"]]


def training_rows_warning(model: str, n: int, rows: Mapping[str, Any] | None) -> list[str]:
    """Return what `training_rows` in results.json says of `n` examples that any model is scored on."""
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
    """Return how many of `n` examples a model was trained on, and what its accuracy (or metric) is then.

    `at_most`: the examples are in its training data, but the training may not have read all of them.
    """
    where = f" ({', '.join(sources)})" if sources else ""
    told = "{model} was trained on {count:,} of these {examples}{where}: {what}"
    if at_most:
        told = (
            "{model} was trained on up to {count:,} of these {examples}{where}; "
            "no record says how many of them the training read: {what}"
        )
    every_one = examples == n and not at_most
    what = tr("this is training accuracy" if every_one else "its accuracy on them is training accuracy")
    if metric:
        what = tr("its {metric} on them is that of training", metric=metric)
    return tr(told, model=model, count=examples, examples=tr_counted(n, "example"), where=where, what=what)
