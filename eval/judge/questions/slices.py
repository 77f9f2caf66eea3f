"""How do the models compare with the base on each slice of a dataset?"""

import numpy as np

from tuneyard.core.errors import RequestError, nearest
from tuneyard.core.language.message import _, joined
from tuneyard.core.training.metrics import ACCURACY
from tuneyard.eval.judge.conclusions import ComparedSlices, QuestionResult, Slice
from tuneyard.eval.judge.sections import differences_of, paired_rows, paired_tests
from tuneyard.eval.runs.scored_run import KINDS, RunsByDataset, RunsByModel
from tuneyard.eval.statistics.family import sliced

MOST_SLICES = 20  # values of a field: with more, each has too few rows to show anything


def by_slices(runs: RunsByDataset, base: str, by: str) -> QuestionResult:
    """Compare every model with the base on the rows of each value of the field `by`."""
    return QuestionResult(runs, base, ComparedSlices(by, compare_slices(runs, base, by)))


def compare_slices(runs: RunsByDataset, base: str, by: str) -> list[Slice]:
    """Compare every model with the base on each slice of each dataset, a slice for every value of `by`.

    Datasets whose rows lack the field, or that the base did not answer, are left out. `RequestError` if no
    dataset has the field, or one has more than 20 values.
    """
    slices: list[Slice] = []
    for by_model in runs.values():
        if base in by_model and any(by_model[base].kinds(by)):
            slices += _slices(by_model, base, by)
    if not slices:
        fields: set[str] = set()
        for by_model in runs.values():
            for run in by_model.values():
                names = {*KINDS, *run.records[0]} - {"place"}
                fields.update(name for name in names if 1 < len(set(run.kinds(name))) <= MOST_SLICES)
        groups: str = joined(sorted(fields))
        if not fields:
            groups = _("none")
        message = _(
            "--by {field}: no dataset has this field (fields with groups: {groups})", field=by, groups=groups
        )
        hint = nearest(by, fields)
        if hint:
            message = _("{message}; {hint}", message=message, hint=hint)
        raise RequestError(message)
    return slices


def _slices(runs: RunsByModel, base: str, by: str) -> list[Slice]:
    base_run = runs[base]
    labels = base_run.kinds(by)
    values = sorted(set(labels), key=lambda value: (-labels.count(value), value))
    if len(values) > MOST_SLICES:
        raise RequestError(
            _(
                "--by {field}: {number} values on {dataset}, expected at most {most}",
                field=by,
                number=len(values),
                dataset=base_run.dataset,
                most=MOST_SLICES,
            )
        )
    others = [model for model in runs if model != base]
    if not others:
        return []
    data = paired_rows(base_run.dataset, runs, ACCURACY)
    pairs = [(base, model) for model in others]
    (differences,), _unused = differences_of(pairs, [data], ACCURACY)
    estimates_by_value = sliced(differences, labels, data.groups)
    slices = []
    for value in values:
        in_slice = np.array(labels) == value
        tests = paired_tests(pairs, differences[in_slice], estimates_by_value[value])
        accuracy = {model: float(flags[in_slice].mean()) for model, flags in data.values.items()}
        slices.append(Slice(base_run.dataset, value, int(in_slice.sum()), accuracy, tests))
    return slices
