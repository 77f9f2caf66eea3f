"""The parts of a dataset on their way: read → check → sift → look at → render → write, into splits.

Where rows are sampled, split, mixed or dropped, all are read before it is known which go where: as numbers.
"""

import contextlib
import random
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path
from typing import cast

from tuneyard.compiler.check.checker import Checker
from tuneyard.compiler.check.filters import Sieve
from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.kinds import KeptValues, kind_of
from tuneyard.compiler.lint.duplicates import leaks
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.matching import numbered
from tuneyard.compiler.lint.retyped import LINES, RetypedWatch
from tuneyard.compiler.lint.row_checks import Lint
from tuneyard.compiler.lint.spool import Spool
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.progress import Progress
from tuneyard.compiler.publish.registry import entry_of
from tuneyard.compiler.read import read, reading
from tuneyard.compiler.read.inputs import Input, with_rivals
from tuneyard.compiler.request import CompileRequest, Counts
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.spec.model import PART, WHOLE, Spec, Split
from tuneyard.compiler.write.readback import Written
from tuneyard.compiler.write.record_file import RecordFile, rearrange
from tuneyard.compiler.write.render import Renderer
from tuneyard.core.errors import ContentError, Problem
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
        keys = seen.stable.take(order)
        homes = _homes_by_hash(split.shares, keys if units is None else _firsts(keys, units))
    else:
        homes = _drawn(split, seen, order, units, split.seed if split.seed is not None else seed)
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
    """Draw units for each split: exact shares of rows, of each class where the split is stratified."""
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
    """What all stages of a compile are given: the request, and what collects problems, columns and bytes."""

    request: CompileRequest
    problems: Problems
    unused: Unused
    progress: Progress


class PartRun:
    """Reads the files of one part and writes what is kept into one file for each output."""

    def __init__(
        self, spec: Spec, name: str, context: Context, seen: Fingerprints, watch: RetypedWatch | None = None
    ) -> None:
        self.spec, self.name, self.context, self.seen, self.watch = spec, name, context, seen, watch
        self.problems = context.problems
        self.renderers = [Renderer(spec, output) for output in spec.outputs]
        self.lint = Lint(spec, context.problems)
        self.sieve = Sieve(spec)
        self.source = reading(spec)
        self.types: dict[str, str] = {}
        self.kept_values: dict[str, KeptValues] = {}
        for column in spec.columns:
            follow = kind_of(column.kind).kept_values
            if follow:
                self.kept_values[column.name] = follow()
        self.limit = context.request.limit or sys.maxsize
        self.read = self.kept = 0

    def run(self, inputs: Sequence[Input], files: Sequence[RecordFile], enough: int = sys.maxsize) -> Counts:
        """Read all files (or until `enough` rows are kept) and write the rows; returns their counts."""
        dropped: Counter[str] = Counter()
        for found in inputs:
            if self.kept < enough and self.read < self.limit:
                dropped += self._file(found, files, enough)
        if self.read and not self.kept and not self.problems.stopped:
            message = f"none of the {self.read} rows of {self.name} is kept, so it is not written"
            self.problems.warn(Problem("W209", inputs[0].shown, message))
        all_counted = min(self.limit, enough) == sys.maxsize and not self.problems.stopped
        for values in self.kept_values.values():
            problem = values.problem(inputs[0].shown)
            if problem and all_counted:
                self.problems.lead([problem])
            note = values.note()
            if note and not self.problems.stopped:
                self.problems.notes.append(f"{inputs[0].shown}: {note}")
        return Counts(self.read, self.kept, dropped={**dropped, **self.sieve.dropped})

    def _file(self, found: Input, files: Sequence[RecordFile], enough: int) -> Counter[str]:
        """Read one file; returns the rows dropped without a look at their texts, by reason."""
        unused = self.context.unused
        checker = Checker(self.spec, found.shown, self.problems, unused, self.types, self.read)
        bad_before = self.problems.bad_rows
        room = self.limit - self.read
        passed_on = column_missing = 0
        path = self.context.progress.watch(found.path)
        for rows in read(path, found.shown, self.source, self.problems, self.name):
            rows = rows.head(room - passed_on) if room - passed_on < len(rows.lines) else rows
            passed_on += len(rows.lines)
            if (batch := checker.check(rows)) is None:  # read on all the same, for the counts
                column_missing += len(rows.lines)
            else:
                self._take(batch, "idx" in checker.sources, files)
            if passed_on == room or self.kept >= enough:
                break
        self.problems.settle()
        self.problems.notes += checker.notes()
        unreadable = self.problems.bad_rows - bad_before - checker.bad
        self.read += passed_on + unreadable
        return Counter({"column missing": column_missing, "no gold label": checker.unlabelled})

    def _take(self, batch: Batch, numbered: bool, files: Sequence[RecordFile]) -> None:
        batch = batch if self.problems.stopped else self.sieve.sift(batch)
        if self.problems.stopped or not batch.lines:
            return
        self.kept += len(batch)
        for name, values in self.kept_values.items():
            values.add(batch.columns[name])
        self.lint.see(self.seen, batch, numbered)
        for renderer, file in zip(self.renderers, files, strict=False):  # a check writes no files
            file.add(renderer.render(batch))
        if self.watch:
            for renderer in self.renderers:
                output = renderer.output
                if output.dataset and output.file.endswith(LINES):
                    columns = entry_of(self.spec, output, output.file)["columns"]
                    self.watch.see(renderer, batch, columns)


class Arranged:
    """Reads everything into one rows file for each output, then writes the splits from those files."""

    def __init__(self, spec: Spec, context: Context, inputs: list[Input], staged: Path | None) -> None:
        self.spec, self.context, self.inputs, self.staged = spec, context, inputs, staged
        self.problems, self.counts, self.written = context.problems, Counts(), Written(spec, staged)
        self.seen: dict[str, Fingerprints] = {}
        self.rows_files: dict[str, list[RecordFile]] = {}

    def run(self) -> tuple[Counts, Written]:
        """Write all splits; returns the counts of rows, the files and the fingerprints of each split."""
        spec = self.spec
        apart = {part: (part,) for part in spec.parts if self._files_of(part)}
        sources = {PART: spec.parts} if spec.mix or spec.split else apart
        orders = {source: self._read(source, parts) for source, parts in sources.items()}
        whole: Order = ()
        if spec.split:
            whole = orders[PART]
            orders = split_rows(spec.split, self.seen[PART], whole, self.context.request.seed)
            self._name_lone_classes(spec.split, whole)
        if spec.drop_leaks:
            self._drop_leaks(orders)
        self.counts.kept = sum(map(len, orders.values()))
        for split, order in orders.items():
            self._write(split, order)
        if spec.split:
            self._write(WHOLE, self._still_kept(whole, orders))
        whole = ()
        for source in sources:
            for path in self._rows_files(source):
                path.unlink()
        self.written.splits = self._taken(orders)
        return self.counts, self.written

    def _still_kept(self, whole: Order, orders: Mapping[str, Order]) -> Order:
        """Leave out the rows that no split has any more."""
        if self.counts.kept == len(whole):
            return whole
        marks = bytearray(self.seen[PART].rows)
        for row in chain.from_iterable(orders.values()):
            marks[row] = 1
        return array(ROW_TYPE, (row for row in whole if marks[row]))

    def _source(self, split: str) -> str:
        """Return what the rows of a split were read as: all together, or as that split."""
        return PART if self.spec.split else split

    def _files_of(self, part: str) -> list[Input]:
        return [found for found in self.inputs if found.split == part]

    def _read(self, source: str, parts: Sequence[str]) -> Order:
        """Read parts into the rows files of a source; returns the rows to write, in their order."""
        orders = array(ROW_TYPE)
        mix, seen = self.spec.mix, self.seen.setdefault(source, Fingerprints())
        wanted_rows: dict[str, int] = {}
        if mix:
            wanted_rows = apportioned(mix.total, {name: part.share for name, part in mix.parts.items()})
        watch = None if self.staged else RetypedWatch()
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(RecordFile(path)) for path in self._rows_files(source)]
            self.rows_files[source] = files
            for name in parts:
                start = seen.rows
                own = mix.parts[name] if mix else self.spec
                wanted = wanted_rows.get(name)
                enough = wanted if wanted is not None and own.source.hub.get("stream") else sys.maxsize
                part = PartRun(own, name, self.context, seen, watch)
                self.counts += part.run(self._files_of(name), files, enough)
                orders.extend(self._chosen(name, range(start, seen.rows), seen, wanted))
        if watch and not self.problems.stopped:
            self.problems.lead(watch.problems(source))
        if mix and mix.shuffle is not None:
            random.Random(mix.shuffle).shuffle(orders)
        return orders

    def _chosen(self, name: str, rows: range, seen: Fingerprints, wanted: int | None) -> Order:
        """Return the rows of a part that stay: no repeats, so many as are wanted."""
        order: Order = rows
        if self.spec.drop_duplicates:
            again = {row for row, _ in seen.repeats()[0]}
            if again:
                order = array(ROW_TYPE, (row for row in rows if row not in again))
            self.counts += Counts(dropped={"duplicate": len(rows) - len(order)})
        size = wanted if wanted is not None else self.spec.sample if name == PART else None
        if size is None:
            return order
        chosen = sampled(order, size, self.context.request.seed)
        self.counts += Counts(not_sampled=len(order) - len(chosen))
        if (
            wanted is None or self.problems.stopped
        ):  # after a bad row none is kept, so that counts say nothing
            return chosen
        self.problems.notes.append(f"{name}: {len(chosen)} rows of {wanted} wanted")
        if len(chosen) < wanted:
            message = f"the part could not be filled: {wanted} rows wanted, {len(chosen)} found"
            self.problems.warn(Problem("W210", name, message))
        return chosen

    def _name_lone_classes(self, split: Split, order: Order) -> None:
        """Warn of classes of a single row: it goes to the other split, and none is trained on."""
        home, classes = next(iter(split.shares)), self.seen[PART].classes
        counted = split.stratify and not self.problems.stopped
        codes = classes.rows.whole()
        sizes = Counter(codes[row] for row in order) if counted else {}
        for name in (classes.names()[code] for code, rows in sorted(sizes.items()) if rows == 1):
            message = f"one row alone has {split.stratify} {name}: it goes to {home}, and none is trained on"
            self.problems.warn(Problem("W211", self.spec.name, message))

    def _taken(self, orders: dict[str, Order]) -> dict[str, Fingerprints]:
        return {split: self.seen[self._source(split)].take(order) for split, order in orders.items()}

    def _drop_leaks(self, orders: dict[str, Order]) -> None:
        if PART not in self.spec.splits:
            splits = ", ".join(self.spec.splits)
            what = f"`drop_leaks` drops rows of {PART!r}, of which there is none ({splits})"
            raise ContentError(f"{self.spec.name}: {what}")
        if PART not in orders:
            return
        taken = self._taken(orders)
        train = taken.pop(PART)
        leaked = {row for other in taken.values() for row, _ in leaks(train, other)}
        orders[PART] = array(ROW_TYPE, (row for at, row in enumerate(orders[PART]) if at not in leaked))
        self.counts += Counts(dropped={"leak": len(leaked)})

    def _rows_files(self, source: str) -> list[Path]:
        numbers = range(len(self.spec.outputs)) if self.staged else ()
        return [cast("Path", self.staged) / f".{source}-{number}.rows" for number in numbers]

    def _write(self, split: str, order: Order) -> None:
        if self.staged is None or self.problems.stopped:
            return
        source = self._source(split)
        aside, rows = self.rows_files[source], self.seen[source].rows
        with self.written.open(split) as files:
            for (number, _), file in zip(self.spec.outputs_of(split), files, strict=True):
                if order:
                    rearrange(aside[number], rows, order, file)


def write_splits(
    spec: Spec, context: Context, inputs: list[Input], staged: Path | None
) -> tuple[Counts, Written]:
    """Read everything and write each split, as it is read where rows stay in their order.

    Returns the counts of rows, and the files and fingerprints of each split. Nothing is held but what
    comparing needs; without a staged folder nothing is written.
    """
    if spec.arranged:
        return Arranged(with_rivals(spec, inputs), context, inputs, staged).run()
    counts, written = Counts(), Written(spec, staged)
    for split in spec.splits:
        if part := [found for found in inputs if found.split == split]:
            written.splits[split] = seen = Fingerprints(counted_only=not context.request.duplicates)
            watch = None if staged else RetypedWatch()
            with written.open(split) as files:
                counts += PartRun(spec, split, context, seen, watch).run(part, files)
            if watch and not context.problems.stopped:
                context.problems.lead(watch.problems(split))
    return counts, written
