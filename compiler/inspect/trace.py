"""A kept row on its way: raw → checked columns → records → with a template, the text the model sees."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from tuneyard.compiler.engine.row_loop import FileResult, Reading, RowLoop, SourceRows
from tuneyard.compiler.read.dataset_reader import raw_text, single_records
from tuneyard.compiler.read.inputs import spec_with_inputs
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.rows.counts import Counts
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.changes import SpecChanges, changed_spec
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.model import Spec
from tuneyard.compiler.write.entries import entry_of
from tuneyard.compiler.write.render import Renderer
from tuneyard.core.datasets import find_dataset, read_registry, registry_folder
from tuneyard.core.errors import ProblemsError, RequestError, nearest_name
from tuneyard.core.language.message import _, counted, tr

T = TypeVar("T")


class KeptRow(NamedTuple):
    """A kept row: its spec, its split, the raw row, and the checked row as a batch of one."""

    spec: Spec
    split: str
    raw: object
    batch: Batch


class ShowRequest(NamedTuple):
    """What a user asks `data show` for. `row` counts kept rows from 1.

    - `name`: a spec, or a registered dataset, which has neither `sources` nor `columns`.
    - `columns`: those of `--column`, as TARGET=SOURCE. `template`: one of LLaMA-Factory's, or None.
    """

    name: str
    sources: Sequence[str] = ()
    columns: tuple[str, ...] = ()
    row: int = 1
    template: str | None = None


class ShownRow(NamedTuple):
    """A row as (title, text) for each step of its way: one, the record, if the dataset is registered."""

    is_registered: bool
    steps: Iterator[tuple[str, str]]


def show(request: ShowRequest) -> ShownRow:
    """The row of a spec's sources, or of a registered dataset that no spec of this name makes."""
    name = request.name
    is_spec = name in known_specs() or name.endswith((".yaml", ".yml"))
    folder = registry_folder(None, name)
    registered = {} if is_spec else read_registry(folder)
    nearest = name
    if not (name in registered or request.sources or Path(name).is_file()):
        nearest = nearest_name(name, [*known_specs(), *registered])
    if nearest not in registered:
        spec = changed_spec(name, SpecChanges(request.columns))
        return ShownRow(False, trace(spec, request.sources, request.row, request.template))
    if request.sources or request.columns:
        raise RequestError(_("{name} is a registered dataset: leave --source and --column out", name=name))
    return ShownRow(True, registered_row(name, folder, request.row, request.template))


def trace(spec: Spec, sources: Sequence[str], row: int, template: str | None) -> Iterator[tuple[str, str]]:
    """Yield (title, text) for the steps of a kept row, numbered from 1 over all inputs.

    In a mixture the rows of all parts count, before shares are drawn. `template` is one of LLaMA-Factory's.
    `RequestError` if fewer rows are kept, `ProblemsError` if earlier rows cannot be read.
    """
    from tuneyard.compiler.inspect.template import seen_by_model

    kept_row = _numbered(row, kept_rows(spec, sources), spec.name)
    yield _("raw row, {place}", place=kept_row.batch.location(0)), raw_text(kept_row.raw, 2)
    columns = {name: values[0] for name, values in kept_row.batch.columns.items()}
    yield tr("columns"), raw_text(columns, 2)
    for output in kept_row.spec.outputs:
        (rendered,) = Renderer(kept_row.spec, output).render(kept_row.batch)
        record = rendered.decode()
        yield _("record in {file}", file=output.file_of(kept_row.split)), record
        if template and output.dataset:
            entry = entry_of(kept_row.spec, output, output.file)
            yield _seen_with(template), seen_by_model(json.loads(record), entry, template)


def _seen_with(template: str) -> str:
    return _("what the model sees with template {template}, loss tokens between ⟦ and ⟧", template=template)


def _numbered(row: int, items: Iterator[T], name: str) -> T:
    """The item with the number `row` (from 1). `RequestError` if there are fewer."""
    number = 0
    for number, item in enumerate(items, 1):
        if number == row:
            return item
    raise RequestError(
        _(
            "no row {row}: {name} has {count}; name one of 1 to {number}",
            row=row,
            name=name,
            count=counted(number, "row", "rows"),
            number=number,
        )
    )


def registered_row(name: str, folder: Path, row: int, template: str | None) -> Iterator[tuple[str, str]]:
    """Yield (title, text) for the record of a registered dataset with the number `row`, from 1.

    `RequestError` if it has fewer, `ProblemsError` if earlier ones cannot be read.
    """
    from tuneyard.compiler.inspect.template import seen_by_model

    dataset = find_dataset(name, folder)
    location, record = _numbered(row, single_records(dataset.path, name), name)
    yield _("record {number}, {place}", number=row, place=location), raw_text(record, 2)
    if template:
        yield _seen_with(template), seen_by_model(record, dataset.entry, template)


def kept_rows(spec: Spec, sources: Sequence[str]) -> Iterator[KeptRow]:
    """Yield the kept rows one by one, in order.

    `ProblemsError` if a file lacks a column, and after the last row if others are wrong.
    """
    problems = Problems()
    spec, inputs = spec_with_inputs(spec, sources)
    rows_before: Counter[str] = Counter()  # by split; rows without ids are numbered over all its files
    for item in inputs:
        input_spec = spec.of_input(item.input_name)
        split = item.input_name
        if spec.mix or (spec.split and not spec.split.is_given):
            split = spec.splits[0]
        rows_shown = 0
        before = FileResult(Problems(), counts=Counts(read=rows_before[item.input_name]))
        for reading in RowLoop(input_spec, SourceRows.of(item, input_spec), before).readings(Problems):
            for number, (row, batch) in enumerate(_each_row(reading), 1):
                if number > rows_shown:  # all are read again if a later row shows what the earlier ones are
                    rows_shown = number
                    yield KeptRow(input_spec, split, row, batch)
        rows_before[item.input_name] += reading.complete(split).counts.read
        problems_of_file = reading.result.problems
        if problems_of_file.fatal:
            raise ProblemsError(problems_of_file.errors, spec.name)
        problems.add(problems_of_file)
    if problems.errors:
        raise ProblemsError(problems.errors, spec.name)


def _each_row(reading: Reading) -> Iterator[tuple[object, Batch]]:
    """Yield each kept row as it is read, and as a batch of one."""
    for rows, batch in reading.batches():
        lines = list(rows.lines)
        for number in range(len(batch)):
            row = batch.keep([number])
            yield rows.row(lines.index(row.lines[0])), row
