"""How do the models compare with the base on each slice of a dataset?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneyard.core.errors import RequestError, nearest
from tuneyard.core.language.message import _, joined, tr
from tuneyard.core.language.number_format import Table, percent
from tuneyard.core.training.metrics import ACCURACY
from tuneyard.eval.figures.labels import MOST
from tuneyard.eval.judge.conclusions import PairedTest, difference_table
from tuneyard.eval.judge.question import AnsweredQuestion
from tuneyard.eval.judge.sections import differences_of, paired_rows, paired_tests
from tuneyard.eval.runs.scored_run import KINDS, RunsByDataset, RunsByModel
from tuneyard.eval.statistics.family import sliced


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows of a dataset with the same value of a field.

    `accuracy` is each model's share of correct rows. `tests` are against the base; their p and limits hold
    for all slices and models of the dataset together.
    """

    dataset: str
    value: str
    n: int
    accuracy: dict[str, float]
    tests: Sequence[PairedTest]


def by_slices(runs: RunsByDataset, base: str, by: str) -> AnsweredQuestion:
    """Compare every model with the base on the rows of each value of the field `by`."""
    header = [tr("slice"), "", tr("accuracy"), *difference_table((), ACCURACY).header[1:5]]
    slices = compare_slices(runs, base, by)
    rows = []
    for part in slices:
        name = tr("{value} of {dataset}, n = {n:,}", value=part.value, dataset=part.dataset, n=part.n)
        base_share = percent(part.accuracy[base])
        cells_of_tests = difference_table(part.tests, ACCURACY).rows
        for test, (models, *cells) in zip(part.tests, cells_of_tests, strict=True):
            shares = f"{percent(part.accuracy[test.model])} − {base_share}"
            rows.append([name, models, shares, *cells[:4]])
    tables = {tr("By {field}", field=by): Table(header, rows)}
    return AnsweredQuestion(runs, base, tables, {"slices": slices})


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
                fields.update(name for name in names if 1 < len(set(run.kinds(name))) <= MOST)
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
    if len(values) > MOST:
        raise RequestError(
            _(
                "--by {field}: {number} values on {dataset}, expected at most {most}",
                field=by,
                number=len(values),
                dataset=base_run.dataset,
                most=MOST,
            )
        )
    others = [model for model in runs if model != base]
    if not others:
        return []
    data = paired_rows(base_run.dataset, runs, ACCURACY)
    pairs = [(base, model) for model in others]
    (steps,), _unused = differences_of(pairs, [data], ACCURACY)
    differences = sliced(steps, labels, data.groups)
    slices = []
    for value in values:
        in_slice = np.array(labels) == value
        tests = paired_tests(pairs, steps[in_slice], differences[value])
        accuracy = {model: float(flags[in_slice].mean()) for model, flags in data.values.items()}
        slices.append(Slice(base_run.dataset, value, int(in_slice.sum()), accuracy, tests))
    return slices
