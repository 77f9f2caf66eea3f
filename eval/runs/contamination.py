"""Warnings about a model that was trained on examples of the dataset that scores it."""

from collections.abc import Sequence

from tuneyard.core.language.message import _, counted, listed, marked
from tuneyard.core.records.results_record import ResultFacts, TrainedOn, TrainingRows
from tuneyard.core.training.metrics import ACCURACY, Metric


def training_warnings(model: str, n: int, facts: ResultFacts, metric: Metric = ACCURACY) -> list[str]:
    """Warn about training examples among the `n` scored ones, from the facts in results.json."""
    warnings = []
    trained_on: TrainedOn = facts.get("trained_on") or {}
    training_rows = facts.get("training_rows")
    examples = trained_on.get("examples", 0)
    if examples:
        at_most = trained_on.get("at_most", False)
        warnings.append(
            contamination(model, examples, n, trained_on.get("sources", ()), metric, at_most=at_most)
        )
    elif training_rows:
        warnings.append(_of_training_split(model, n, training_rows))
    same = marked("{model} was trained on a dataset of this name ({source})")
    chose = marked("{model}: its checkpoint was chosen on these examples ({source}): score others, too")
    unknown = marked("{model}: training examples not checked: {reason}")
    warnings += [_(same, model=model, source=source) for source in trained_on.get("same_name", ())]
    warnings += [_(chose, model=model, source=source) for source in trained_on.get("chose", ())]
    warnings += [_(unknown, model=model, reason=reason) for reason in trained_on.get("not_checked", ())]
    return warnings


def _of_training_split(model: str, n: int, rows: TrainingRows) -> str:
    """Warn that `n` scored examples contain rows of a training split. It holds for every model."""
    warning = marked(
        "{model} is scored on training rows: {datasets} (a training split) contains {count:,} of these "
        "{examples}, and models that were trained on it have seen them"
    )
    scored = counted(n, "example", "examples")
    datasets = listed(rows["datasets"])
    text = _(warning, model=model, count=rows["examples"], examples=scored, datasets=datasets)
    if rows["drawn"]:
        text = _("{text}, unless their recipe had this very file with the same val_size and seed", text=text)
    if rows["held_out"]:
        option = " ".join(f"--dataset {name}" for name in rows["held_out"])
        text = _("{text}; score the held-out rows: {option}", text=text, option=option)
    return text


def contamination(
    model: str,
    examples: int,
    n: int,
    sources: Sequence[str],
    metric: Metric,
    *,
    at_most: bool,
) -> str:
    """Warn that a model was trained on `examples` of the `n` scored ones, and about the metric compared.

    `at_most`: the examples are in its training data, but the training may not have read all of them.
    """
    where = f" ({', '.join(sources)})" if sources else ""
    warning = marked("{model} was trained on {count:,} of these {examples}{where}: {what}")
    if at_most:
        warning = marked(
            "{model} was trained on up to {count:,} of these {examples}{where}; "
            "no record says how many of them the training read: {what}"
        )
    every_one = examples == n and not at_most
    if not metric.counts_correct:
        meaning = _("its {metric} on them is that of training", metric=metric.name)
    elif every_one:
        meaning = _("this is training accuracy")
    else:
        meaning = _("its accuracy on them is training accuracy")
    scored = counted(n, "example", "examples")
    return _(warning, model=model, count=examples, examples=scored, where=where, what=meaning)
