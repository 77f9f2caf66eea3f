"""Compile rows that are sampled, split, mixed or dropped: all are read first, and then written.

A first pass (`FirstPass`) writes its rows into one file for each output. Between the passes memory holds
numbers of rows, and the keys by which rows are compared. A check needs only these: it writes no rows.
"""

import random
import shutil
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tuneyard.compiler.engine.compile_file import fragment_files, rows_of_sources
from tuneyard.compiler.engine.request import HashedRows
from tuneyard.compiler.engine.run import EMPTY_SPLIT, Run
from tuneyard.compiler.engine.splits import Order, sampled, split_rows
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.matching import matches
from tuneyard.compiler.rows.draw import ROW_TYPE
from tuneyard.compiler.spec.model import WHOLE, Spec, Split
from tuneyard.compiler.write.record_file import BLOCK, RecordFile, keys_in
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.datasets.compiled import SPLIT, TRAINED
from tuneyard.core.errors import ContentError, Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.execution import Executor
from tuneyard.core.files import named
from tuneyard.core.language.message import _, marked

UNFILLED_SOURCE = ProblemCode(
    "W210",
    _("a part of a mixture that could not be filled"),
    _("Lower its share or `total`, or give it more rows."),
)
LONE_CLASS = ProblemCode(
    "W211",
    _("a class of one row in a stratified split"),
    _("Add rows of this class: its only row is not trained on."),
)


ROWS = ".rows"
"""The folder with a folder for the rows of each first pass, until they are written."""
LEAKED = 255  # in place of a split's number: the row is in none


@dataclass
class FirstPass:
    """The rows of the first pass: their files and fingerprints, and the numbers of those to write.

    `order_by_input` has these numbers for each input of a split that is given: 4 bytes a row.
    """

    files: list[RecordFile]
    fingerprints: Fingerprints
    order: Order
    order_by_input: dict[str, Order]


def write_in_two_passes(run: Run, executor: Executor | None) -> None:
    """Read all rows, choose those of each split, and write these."""
    spec = run.spec
    first_passes = _first_passes(run, executor)
    orders = {name: first_pass.order for name, first_pass in first_passes.items()}
    if run.job.request.keeps_hashed_rows and spec.split and spec.split.by_hash:
        run.report.hashed_rows = _hashed_rows(first_passes[TRAIN_SPLIT])
    if run.report.failed:
        run.report.kept = sum(map(len, orders.values()))
        return
    if spec.split:
        whole = first_passes[TRAIN_SPLIT]
        orders = _orders_of_splits(run, spec.split, whole)
        first_passes = dict.fromkeys(orders, whole)
    run.fingerprints = {
        split: first_passes[split].fingerprints.take(order) for split, order in orders.items()
    }
    if spec.drop_leaks:
        _drop_leaks(run, first_passes, orders)
    run.report.kept = sum(map(len, orders.values()))
    for split, order in orders.items():
        _write(run, split, first_passes[split], order)
    if spec.split and spec.outputs_of(WHOLE):
        order, splits = _with_splits(whole, list(orders.values()))
        _write(run, WHOLE, whole, order)
        if run.staged:
            run.drawn = {TRAINED: _trained(spec, whole, order, run.staged / ROWS), SPLIT: splits}
    if run.staged:
        shutil.rmtree(run.staged / ROWS)


def _hashed_rows(whole: FirstPass) -> HashedRows:
    """A copy of the keys and classes of the rows, which later steps make room of."""
    rows = whole.fingerprints.take(whole.order)
    return HashedRows(
        keys=array("Q", rows.values("stable")),
        class_numbers=array("L", rows.values("labels")),
        classes=tuple(map(str, rows.names("labels"))),
    )


def _first_passes(run: Run, executor: Executor | None) -> dict[str, FirstPass]:
    """Read all files: into one `FirstPass` if rows are drawn into splits or mixed, otherwise one a split."""
    spec = run.spec
    inputs_of_pass = {TRAIN_SPLIT: spec.input_names}
    if not (spec.mix or spec.split):
        inputs_of_pass = {
            input_name: (input_name,) for input_name in spec.input_names if run.inputs_of(input_name)
        }
    with run.workers(list(chain.from_iterable(inputs_of_pass.values())), executor):
        return {name: _first_pass(run, name, input_names) for name, input_names in inputs_of_pass.items()}


def _orders_of_splits(run: Run, split: Split, whole: FirstPass) -> dict[str, Order]:
    """The rows of each split: those of its own files if the split is given, otherwise drawn."""
    orders = whole.order_by_input
    if not split.is_given:
        orders = split_rows(split, whole.fingerprints, whole.order, run.job.seed)
        if whole.order and not orders[TRAIN_SPLIT]:
            message = _(
                "none of the {number} rows is drawn into {split}, so it is not written",
                number=len(whole.order),
                split=TRAIN_SPLIT,
            )
            fix = _(
                "rows with the same prompt stay on one side: take `split` out of the spec, or add other rows"
            )
            run.report.problems.warn(Problem(EMPTY_SPLIT, run.spec.name, message, "", fix))
        if split.stratify:
            _warn_of_lone_classes(run, whole, split.stratify, next(iter(split.shares)))
    whole.fingerprints.forget("classes")
    return orders


def _first_pass(run: Run, name: str, input_names: Sequence[str]) -> FirstPass:
    """The first pass over the files of some inputs."""
    folder = run.staged / ROWS / name if run.staged else None
    if folder:
        folder.mkdir(parents=True)
    fingerprints = Fingerprints()
    order = array(ROW_TYPE)
    order_by_input: dict[str, Order] = {}
    mix = run.spec.mix
    rows_by_input = rows_of_sources(run.spec)
    with ExitStack() as stack:
        files = [stack.enter_context(file) for file in fragment_files(run.spec, folder)]
        for input_name in input_names:
            first = fingerprints.rows
            run.compile_input(input_name, fingerprints, files)
            rows: Order = range(first, fingerprints.rows)
            if not run.report.failed:
                rows = _chosen(
                    run,
                    input_name,
                    _without_duplicates(run, fingerprints, rows),
                    rows_by_input.get(input_name),
                )
            order.extend(rows)
            if run.spec.split and run.spec.split.is_given:
                order_by_input[input_name] = rows
    if mix and mix.shuffle is not None:
        random.Random(mix.shuffle).shuffle(order)
    elif len(order) == fingerprints.rows:
        return FirstPass(files, fingerprints, range(fingerprints.rows), order_by_input)
    return FirstPass(files, fingerprints, order, order_by_input)


def _without_duplicates(run: Run, fingerprints: Fingerprints, rows: Order) -> Order:
    """The rows that are not the same as an earlier one, if the spec drops those that are."""
    if not run.spec.drop_duplicates:
        return rows
    duplicates = {row for row, _unused in fingerprints.repeats()[0]}
    kept = array(ROW_TYPE, (row for row in rows if row not in duplicates))
    run.report.drop(marked("duplicate"), len(rows) - len(kept))
    return kept


def _chosen(run: Run, input_name: str, rows: Order, expected: int | None) -> Order:
    """Draw the rows of an input: so many as are `expected` in a mixture, or the sample of the spec."""
    size: float | None = expected
    if expected is None and input_name == TRAIN_SPLIT:
        size = run.spec.sample
    if size is None:
        return rows
    chosen = sampled(rows, size, run.job.seed)
    run.report.not_sampled += len(rows) - len(chosen)
    if expected is None and size > len(rows):
        run.report.problems.notes.append(
            _("sample: all {rows} rows, since there are not {size}", rows=len(rows), size=size)
        )
    if expected is not None:
        run.report.problems.notes.append(
            _(
                "{part}: {number} rows of {expected} wanted",
                part=input_name,
                number=len(chosen),
                expected=expected,
            )
        )
        if len(chosen) < expected:
            message = _(
                "too few rows for this part: found {rows}, expected {expected}; a smaller "
                "`total` keeps the shares",
                rows=len(chosen),
                expected=expected,
            )
            run.report.problems.warn(Problem(UNFILLED_SOURCE, input_name, message))
    return chosen


def _warn_of_lone_classes(run: Run, whole: FirstPass, column: str, other_split: str) -> None:
    """Warn of classes with a single row: it goes to the other split, and the class is not trained on."""
    rows = whole.fingerprints.take(whole.order)
    names = rows.names("classes")
    for number, size in sorted(Counter(rows.column("classes")).items()):
        if size == 1:
            message = _(
                "one row alone has {column} {value}: it goes to {other_split}",
                column=column,
                value=names[number],
                other_split=other_split,
            )
            run.report.problems.warn(
                Problem(LONE_CLASS, run.spec.name, _("{message}, and none is trained on", message=message))
            )


def _drop_leaks(run: Run, first_passes: dict[str, FirstPass], orders: dict[str, Order]) -> None:
    """Drop training rows whose prompt is in another split as well."""
    spec = run.spec
    if TRAIN_SPLIT not in spec.splits:
        splits = ", ".join(spec.splits)
        raise ContentError(
            _(
                "{name}: `drop_leaks` drops rows of {train_split!r}, of which there is none ({splits})",
                name=spec.name,
                train_split=TRAIN_SPLIT,
                splits=splits,
            )
        )
    if TRAIN_SPLIT not in orders:
        return
    leaked: set[int] = set()
    for split, fingerprints in run.fingerprints.items():
        if split != TRAIN_SPLIT:
            same = matches(run.fingerprints[TRAIN_SPLIT].values("prompts"), fingerprints.values("prompts"))
            leaked.update(row for row, _unused in same)
    rows = array(
        ROW_TYPE, (row for position, row in enumerate(orders[TRAIN_SPLIT]) if position not in leaked)
    )
    run.report.drop(marked("leak"), len(leaked))
    orders[TRAIN_SPLIT] = rows
    run.fingerprints[TRAIN_SPLIT] = first_passes[TRAIN_SPLIT].fingerprints.take(rows)


def _with_splits(whole: FirstPass, orders: Sequence[Order]) -> tuple[Order, "array[int]"]:
    """The rows of all splits in the order in which they would be without splits, and each row's split."""
    split_of_row = bytearray([LEAKED]) * whole.fingerprints.rows
    for split, rows in enumerate(orders):
        for row in rows:
            split_of_row[row] = split
    order = whole.order
    if sum(map(len, orders)) < len(order):
        order = array(ROW_TYPE, (row for row in order if split_of_row[row] != LEAKED))
    return order, array("B", map(split_of_row.__getitem__, order))


def _trained(spec: Spec, whole: FirstPass, order: Order, folder: Path) -> "array[int] | memoryview[int]":
    """The fingerprints of rows in the dataset that is trained on, 0 if the spec writes none.

    They are written into a file of the folder and mapped: no memory until the row index is written.
    """
    for file, output in zip(whole.files, spec.outputs, strict=True):
        if output.dataset and file.keys is not None and order:
            path = folder / TRAINED
            keys_of_rows = keys_in(file.keys)
            with path.open("wb") as trained, named(path):
                for first in range(0, len(order), BLOCK):
                    rows = order[first : first + BLOCK]
                    array("Q", map(keys_of_rows.__getitem__, rows)).tofile(trained)
            return keys_in(path)
    return array("Q", [0]) * len(order)


def _write(run: Run, split: str, first_pass: FirstPass, order: Order) -> None:
    """Write the rows of a split in their order."""
    with run.open(split) as files:
        for (number, _unused), file in zip(run.spec.outputs_of(split), files, strict=True):
            if order:
                file.add_rows(first_pass.files[number], order)
