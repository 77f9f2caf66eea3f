"""Compile the rows of a dataset: read → check → filter → lint → render → write, into splits.

If rows are sampled, split, mixed or dropped, the first pass reads all of them, and the second one writes.
Between the passes memory holds numbers of rows only.
"""

import contextlib
import gc
import random
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import Any

from tuneyard.compiler.check.checker import Checker
from tuneyard.compiler.check.filters import RowFilter
from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.kinds import KeptValues, kind_of
from tuneyard.compiler.lint.duplicates import imbalance, leaks, warn_of_duplicates
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.matching import numbered
from tuneyard.compiler.lint.retyped import LINES, RetypedWatch
from tuneyard.compiler.lint.row_checks import Lint
from tuneyard.compiler.lint.spool import Spool
from tuneyard.compiler.problems import KEPT, Problems
from tuneyard.compiler.progress import Progress
from tuneyard.compiler.read import read, reading
from tuneyard.compiler.read.inputs import Input, Sources, with_rivals
from tuneyard.compiler.request import CompileReport, CompileRequest, Counts
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.spec.model import PART, REJECTED, UNLABELLED, WHOLE, Spec, Split
from tuneyard.compiler.write.entries import entry_of
from tuneyard.compiler.write.readback import Written
from tuneyard.compiler.write.record_file import RecordFile, rearrange
from tuneyard.compiler.write.render import Renderer
from tuneyard.core.errors import ContentError, Problem, RequestError
from tuneyard.core.splits import IN_REST, ROW_TYPE, apportioned, draw_sample, draw_splits

Order = Sequence[int]


def sampled(order: Order, size: float, seed: int) -> Order:
    """Draw a sample of rows by a seed, in their old order; `size` is a share below 1, or a number of rows."""
    rows = round(size * len(order)) if isinstance(size, float) else min(size, len(order))
    if rows == len(order):
        return order
    return array(ROW_TYPE, compress(order, draw_sample(len(order), rows, seed)))


def split_rows(split: Split, seen: Fingerprints, order: Order, seed: int) -> dict[str, Order]:
    """Draw the rows of each split; `train` is the rows that the others leave. Order is kept within each.

    Memory: 4 bytes a row for the result and up to 17 while it is made.
    """
    units = numbered(seen.units.take(order)) if split.group else None
    if split.by_hash:
        keys_of_rows = seen.stable.take(order)
        keys = keys_of_rows if units is None else _firsts(keys_of_rows, units)
        homes = _homes_by_hash(split.shares, keys)
    else:
        if split.seed is not None:
            seed = split.seed
        homes = _drawn(split, seen, order, units, seed)
    homes_of_rows = homes if units is None else map(homes.__getitem__, units)
    rows_of_split = [array(ROW_TYPE) for _ in (PART, *split.shares)]
    for row, home in zip(order, homes_of_rows, strict=True):
        rows_of_split[home].append(row)
    return dict(zip((PART, *split.shares), rows_of_split, strict=True))


def _firsts(values: Spool, units: Spool) -> "array[int]":
    """Take the value of each unit's first row; units are numbered as they first come."""
    firsts = array(values.typecode)
    for value, unit in zip(values, units, strict=True):
        if unit == len(firsts):
            firsts.append(value)
    return firsts


def _homes_by_hash(shares: Mapping[str, float], keys: Iterable[int]) -> "array[int]":
    """Number the split of each key (64 bits) by where it falls between 0 and 1."""
    homes = array("I")
    for key in keys:
        place = key / 2**64
        home = IN_REST
        for number, share in enumerate(shares.values(), start=1):
            if place < share:
                home = number
                break
            place -= share
        homes.append(home)
    return homes


def _drawn(split: Split, seen: Fingerprints, order: Order, units: Spool | None, seed: int) -> "array[int]":
    """Draw units for each split: exact shares of rows, in each class if the split is stratified."""
    classes: array[int] | None = None
    if split.stratify:
        codes = seen.classes.rows.take(order)
        classes = codes.whole() if units is None else _firsts(codes, units)
    if units is None:
        return draw_splits(array("B", [1]) * len(order), classes, split.shares, seed)
    sizes = array(ROW_TYPE)
    for unit in units:
        if unit == len(sizes):
            sizes.append(0)
        sizes[unit] += 1
    return draw_splits(sizes, classes, split.shares, seed)


@dataclass(frozen=True, slots=True)
class Context:
    """Shared state of a compile: the request, and the collectors of problems, columns and bytes."""

    request: CompileRequest
    problems: Problems
    unused: Unused
    progress: Progress


class PartReader:
    """Reads the files of one part, and writes each kept row into one file for each output."""

    def __init__(
        self,
        spec: Spec,
        name: str,
        context: Context,
        prints: Fingerprints,
        watch: RetypedWatch | None = None,
    ) -> None:
        self.spec = spec
        self.name = name
        self.context = context
        self.prints = prints
        self.watch = watch
        self.problems = context.problems
        self.renderers = [Renderer(spec, output) for output in spec.outputs]
        self.lint = Lint(spec, context.problems)
        self.row_filter = RowFilter(spec)
        self.source = reading(spec)
        self.types: dict[str, str] = {}
        self.kept_values: dict[str, KeptValues] = {}
        for column in spec.columns:
            follow = kind_of(column.kind).kept_values
            if follow:
                self.kept_values[column.name] = follow()
        self.limit = context.request.limit or sys.maxsize
        self.read = self.kept = self.not_written = 0

    def run(self, inputs: Sequence[Input], files: Sequence[RecordFile], enough: int = sys.maxsize) -> Counts:
        """Read all files, or until `enough` rows are kept, and write the rows. Returns their counts."""
        dropped: Counter[str] = Counter()
        for item in inputs:
            if self.kept < enough and self.read < self.limit:
                dropped += self._read_file(item, files, enough)
        dropped += self.row_filter.dropped
        if self.read and not self.kept and not self.problems.stopped:
            message = f"none of the {self.read} rows of {self.name} is kept, so it is not written"
            self.problems.warn(Problem("W209", inputs[0].display_path, message))
        all_read = min(self.limit, enough) == sys.maxsize
        if inputs and not self.problems.stopped:
            place = inputs[0].display_path
            for values in self.kept_values.values():
                problem = values.problem(place)
                if problem and all_read:
                    self.problems.lead([problem])
                note = values.note()
                if note and not self.problems.stopped:
                    self.problems.notes.append(f"{place}: {note}")
        return Counts(self.read, self.kept, not_written=self.not_written, dropped=dict(dropped))

    def _read_file(self, item: Input, files: Sequence[RecordFile], enough: int) -> Counter[str]:
        """Read one file. Returns the rows that are dropped before the filter sees them, by reason."""
        unused = self.context.unused
        checker = Checker(self.spec, item.display_path, self.problems, unused, self.types, self.read)
        bad_before = self.problems.bad_rows
        room = self.limit - self.read
        rows_read = column_missing = 0
        path = self.context.progress.watch(item.path)
        for rows in read(path, item.display_path, self.source, self.problems, self.name):
            if room - rows_read < len(rows.lines):
                rows = rows.head(room - rows_read)
            rows_read += len(rows.lines)
            batch = checker.check(rows)
            if batch is None:  # reading goes on, for the counts
                column_missing += len(rows.lines)
            else:
                self._keep(batch, "idx" in checker.sources, files)
            if rows_read == room or self.kept >= enough:
                break
        self.problems.settle()
        self.problems.notes += checker.notes()
        unreadable = self.problems.bad_rows - bad_before - checker.bad
        self.read += rows_read + unreadable
        return Counter({"column missing": column_missing, "no gold label": checker.unlabelled})

    def _keep(self, batch: Batch, has_ids: bool, files: Sequence[RecordFile]) -> None:
        """Filter, lint, render and write a batch of checked rows."""
        if not self.problems.stopped:
            batch = self.row_filter.kept(batch)
        if self.problems.stopped:
            self.not_written += len(batch.lines)
        if self.problems.stopped or not batch.lines:
            return
        self.kept += len(batch)
        for name, values in self.kept_values.items():
            values.add(batch.columns[name])
        self.lint.see(self.prints, batch, has_ids)
        for renderer, file in zip(self.renderers, files, strict=False):  # a check writes no files
            file.add(renderer.render(batch))
        if self.watch:
            for renderer in self.renderers:
                output = renderer.output
                if output.dataset and output.file.endswith(LINES):
                    columns = entry_of(self.spec, output, output.file)["columns"]
                    self.watch.see(renderer, batch, columns)


class TwoPassWriter:
    """Spools the rows of each source into one file for each output, then writes each split."""

    def __init__(self, spec: Spec, context: Context, inputs: list[Input], staged: Path | None) -> None:
        self.spec = spec
        self.context = context
        self.inputs = inputs
        self.staged = staged
        self.problems = context.problems
        self.counts = Counts()
        self.written = Written(spec, staged)
        self.prints: dict[str, Fingerprints] = {}
        self.spooled: dict[str, list[RecordFile]] = {}

    def run(self) -> tuple[Counts, Written]:
        """Write all splits. Returns the counts of rows, the files and the fingerprints of each split."""
        spec = self.spec
        parts_of_sources: dict[str, Sequence[str]] = {PART: spec.parts}
        if not (spec.mix or spec.split):
            parts_of_sources = {part: (part,) for part in spec.parts if self._files_of(part)}
        orders = {source: self._read(source, parts) for source, parts in parts_of_sources.items()}
        whole: Order = ()
        if spec.split:
            whole = orders[PART]
            orders = split_rows(spec.split, self.prints[PART], whole, self.context.request.seed)
            self._name_lone_classes(spec.split, whole)
        if spec.drop_leaks:
            self._drop_leaks(orders)
        self.counts.kept = sum(map(len, orders.values()))
        for split, order in orders.items():
            self._write(split, order)
        if spec.split:
            if self.counts.kept < len(whole):  # without the rows that leaked
                marks = bytearray(self.prints[PART].rows)
                for row in chain.from_iterable(orders.values()):
                    marks[row] = 1
                whole = array(ROW_TYPE, (row for row in whole if marks[row]))
            self._write(WHOLE, whole)
        whole = ()
        for source in self.spooled:
            for path in self._spool_paths(source):
                path.unlink()
        self.written.splits = self._prints_of(orders)
        return self.counts, self.written

    def _source_of(self, split: str) -> str:
        """The name of the source that has the rows of a split."""
        return PART if self.spec.split else split

    def _files_of(self, part: str) -> list[Input]:
        return [item for item in self.inputs if item.split == part]

    def _read(self, source: str, parts: Sequence[str]) -> Order:
        """Spool the rows of parts. Returns the rows to write, in their order."""
        order = array(ROW_TYPE)
        mix = self.spec.mix
        prints = self.prints.setdefault(source, Fingerprints())
        rows_of_part: dict[str, int] = {}
        if mix:
            rows_of_part = apportioned(mix.total, {name: part.share for name, part in mix.parts.items()})
        watch = None if self.staged else RetypedWatch()
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(RecordFile(path)) for path in self._spool_paths(source)]
            self.spooled[source] = files
            for name in parts:
                start = prints.rows
                spec = mix.parts[name] if mix else self.spec
                size = rows_of_part.get(name)
                enough = sys.maxsize
                if size is not None and spec.source.hub.get("stream"):
                    enough = size
                part = PartReader(spec, name, self.context, prints, watch)
                self.counts += part.run(self._files_of(name), files, enough)
                order.extend(self._chosen(name, range(start, prints.rows), prints, size))
        if watch and not self.problems.stopped:
            self.problems.lead(watch.problems(source))
        if mix and mix.shuffle is not None:
            random.Random(mix.shuffle).shuffle(order)
        return order

    def _chosen(self, name: str, rows: range, prints: Fingerprints, size_in_mixture: int | None) -> Order:
        """The rows of a part without duplicates and beyond its size, as the spec says."""
        order: Order = rows
        if self.problems.stopped:
            return order
        if self.spec.drop_duplicates:
            duplicates = {row for row, _ in prints.repeats()[0]}
            if duplicates:
                order = array(ROW_TYPE, (row for row in rows if row not in duplicates))
            self.counts += Counts(dropped={"duplicate": len(rows) - len(order)})
        size: float | None = size_in_mixture
        if size is None and name == PART:
            size = self.spec.sample
        if size is None:
            return order
        chosen = sampled(order, size, self.context.request.seed)
        self.counts += Counts(not_sampled=len(order) - len(chosen))
        if size_in_mixture is None:
            return chosen
        self.problems.notes.append(f"{name}: {len(chosen)} rows of {size_in_mixture} wanted")
        if len(chosen) < size_in_mixture:
            message = f"too few rows for this part: found {len(chosen)}, expected {size_in_mixture}"
            self.problems.warn(Problem("W210", name, message))
        return chosen

    def _name_lone_classes(self, split: Split, order: Order) -> None:
        """Warn of classes with a single row: it goes to the other split, and the class is not trained on."""
        if not split.stratify or self.problems.stopped:
            return
        other_split = next(iter(split.shares))
        classes = self.prints[PART].classes
        codes = classes.rows.whole()
        sizes = Counter(codes[row] for row in order)
        names = classes.names()
        for code, rows in sorted(sizes.items()):
            if rows == 1:
                message = f"one row alone has {split.stratify} {names[code]}: it goes to {other_split}"
                self.problems.warn(Problem("W211", self.spec.name, f"{message}, and none is trained on"))

    def _prints_of(self, orders: dict[str, Order]) -> dict[str, Fingerprints]:
        """The fingerprints of the rows of each split."""
        return {split: self.prints[self._source_of(split)].take(order) for split, order in orders.items()}

    def _drop_leaks(self, orders: dict[str, Order]) -> None:
        """Drop training rows whose prompt is in another split as well."""
        if PART not in self.spec.splits:
            splits = ", ".join(self.spec.splits)
            raise ContentError(
                f"{self.spec.name}: `drop_leaks` drops rows of {PART!r}, of which there is none ({splits})"
            )
        if PART not in orders:
            return
        prints = self._prints_of(orders)
        train = prints.pop(PART)
        leaked: set[int] = set()
        for other in prints.values():
            leaked.update(row for row, _ in leaks(train, other))
        rows = orders[PART]
        orders[PART] = array(ROW_TYPE, (row for position, row in enumerate(rows) if position not in leaked))
        self.counts += Counts(dropped={"leak": len(leaked)})

    def _spool_paths(self, source: str) -> list[Path]:
        if self.staged is None:
            return []
        return [self.staged / f".{source}-{number}.rows" for number in range(len(self.spec.outputs))]

    def _write(self, split: str, order: Order) -> None:
        if self.staged is None or self.problems.stopped:
            return
        source = self._source_of(split)
        spooled, rows = self.spooled[source], self.prints[source].rows
        with self.written.open(split) as files:
            for (number, _), file in zip(self.spec.outputs_of(split), files, strict=True):
                if order:
                    rearrange(spooled[number], rows, order, file)


def write_splits(
    spec: Spec, context: Context, inputs: list[Input], staged: Path | None
) -> tuple[Counts, Written]:
    """Read everything and write each split: in one pass if rows keep their order, otherwise in two.

    Returns the counts of rows, and the files and fingerprints of each split. Memory holds the fingerprints
    alone. Without a staged folder nothing is written.
    """
    if spec.arranged:
        return TwoPassWriter(with_rivals(spec, inputs), context, inputs, staged).run()
    counts, written = Counts(), Written(spec, staged)
    for split in spec.splits:
        files_of_split = [item for item in inputs if item.split == split]
        if not files_of_split:
            continue
        prints = Fingerprints(counted_only=not context.request.duplicates)
        written.splits[split] = prints
        watch = None if staged else RetypedWatch()
        with written.open(split) as files:
            counts += PartReader(spec, split, context, prints, watch).run(files_of_split, files)
        if watch and not context.problems.stopped:
            context.problems.lead(watch.problems(split))
    return counts, written


def run_pipeline(spec: Spec, request: CompileRequest, sources: Sources, staged: Path | None) -> CompileReport:
    """Take all rows through the steps of a compile and report on them; without `staged` write nothing."""
    if (spec.arranged or spec.near) and not request.duplicates:
        reason = "is sampled, split, mixed or searched for near rows: all are needed"
        raise RequestError(f"--no-duplicates: {spec.name} {reason}")
    inputs = sources.inputs
    rejected = staged / REJECTED if staged and request.reject else None
    problems = Problems(None if request.every_problem else KEPT, rejected)
    problems.notes += sources.notes
    for warning in sources.warnings:
        problems.warn(warning)
    context = Context(request, problems, Unused(), Progress([item.path for item in inputs]))
    duplicates: dict[str, object] = {}
    with _no_collection(), contextlib.closing(context.progress):
        counts, written = write_splits(spec, context, inputs, staged)
        problems.lead(context.unused.problems(spec, counts.read))
        if not problems.stopped:
            duplicates = warn_of_duplicates(written.splits, spec.group, problems, near=spec.near)
            _warn_of_labels(spec, duplicates, problems)
        if not problems.stopped:
            problems.lead(written.retyped())
    if problems.stopped:
        written.stop_readback()
    counts.rejected = problems.bad_rows
    if rejected:  # a second count, for `balance`
        counts.rejected = 0
        if rejected.exists():
            with rejected.open("rb") as file:
                counts.rejected = sum(1 for _ in file)
    report = CompileReport(
        read=counts.read,
        kept=counts.kept,
        rejected=counts.rejected,
        not_sampled=counts.not_sampled,
        not_written=counts.not_written,
        dropped=counts.dropped,
        name=spec.name,
        problems=problems,
        unused=context.unused,
        fit=duplicates,
    )
    if not problems.stopped:
        if staged:
            report.datasets, report.files = written.account(counts.kept)
        counts.balance(spec.name)
        if not counts.kept:
            message = "no rows: the source holds none"
            if counts.read:
                message = f"no rows left of {counts.read}"
            if counts.dropped:
                reasons = [f"{reason} {count}" for reason, count in counts.dropped.items()]
                message += f": {', '.join(reasons)}"
            place = ", ".join(item.display_path for item in inputs)
            problems.lead([Problem("E013", place, message)])
    problems.fatal |= request.strict and problems.count("W") > 0
    if report.failed:
        report.not_written += report.kept
        report.kept = 0
    return report


def _warn_of_labels(spec: Spec, duplicates: Mapping[str, Any], problems: Problems) -> None:
    """Warn if labels of training rows are far out of balance; `duplicates` is `fit` of the manifest."""
    training = duplicates.get(PART, {})
    labels = [label for label in spec.labels if label != UNLABELLED]
    shares = imbalance(training.get("labels", {}), labels)
    if shares:
        message = f"far out of balance: {shares} of {training['rows']} training rows"
        hint = "add rows of the rare ones, or leave rows of the common ones out"
        problems.warn(Problem("W222", spec.name, message, "label", hint))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Stop Python's garbage collector: rows are trees without cycles, and it would walk over them again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
