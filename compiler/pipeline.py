"""Compile the rows of a dataset: read → check → filter → lint → render → write, into splits.

Tasks take chunks of rows through these steps, here or in other processes, and what they return is joined. If
rows are sampled, split, mixed or dropped, the first pass reads all of them, and the second one writes.
Between the passes memory holds numbers of rows only.
"""

import contextlib
import random
import shutil
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tuneyard.compiler.arrange import Order, sampled, split_rows
from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.chunked_reading import ChunkedReading, Collectors
from tuneyard.compiler.chunks import CHUNK_FOLDER, NO_LIMIT, CompileJob, arrange_chunk
from tuneyard.compiler.lint.duplicates import imbalance, leaks, warn_of_duplicates
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.problems import KEPT, Problems
from tuneyard.compiler.progress import Progress
from tuneyard.compiler.read.inputs import Input, Sources, with_rivals
from tuneyard.compiler.request import CompileReport, CompileRequest, Counts
from tuneyard.compiler.spec.model import PART, REJECTED, UNLABELLED, WHOLE, Spec, Split
from tuneyard.compiler.write.joined_file import JoinedFile, StagedRows
from tuneyard.compiler.write.readback import Written
from tuneyard.compiler.write.record_watch import RecordWatch
from tuneyard.core.errors import ContentError, Problem, RequestError
from tuneyard.core.execution import Common, Executor, WorkItem
from tuneyard.core.splits import ROW_TYPE, apportioned

ARRANGED = 1 << 15  # rows that a task puts in order


@dataclass(frozen=True, slots=True)
class Context:
    """Shared state of a compile: the request, where its tasks run, and what is collected over all rows."""

    request: CompileRequest
    job: CompileJob
    inputs: Sequence[Input]
    collectors: Collectors
    executor: Executor

    @property
    def problems(self) -> Problems:
        """The problems of all rows."""
        return self.collectors.problems

    def reading(self, parts: Sequence[str], enough: Mapping[str, int] | None = None) -> ChunkedReading:
        """The rows of these parts, to be read in this order."""
        return ChunkedReading(self.job, self.inputs, parts, self.collectors, self.executor, enough)


class TwoPassWriter:
    """Spools the rows of each source into one file for each output, then writes each split."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.spec = spec = context.job.spec
        self.staged = staged = context.job.staged
        self.problems = context.problems
        self.counts = Counts()
        self.written = Written(spec, staged)
        self.prints: dict[str, Fingerprints] = {}
        self.spooled: dict[str, list[JoinedFile]] = {}
        self.watches: dict[str, RecordWatch] = {}

    def run(self) -> tuple[Counts, Written]:
        """Write all splits. Returns the counts of rows, the files and the fingerprints of each split."""
        spec = self.spec
        parts_of_sources: dict[str, Sequence[str]] = {PART: spec.parts}
        if not (spec.mix or spec.split):
            parts_of_sources = {part: (part,) for part in spec.parts if self._files_of(part)}
        orders = self._read_all(parts_of_sources)
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
        for files in self.spooled.values():
            for file in files:
                file.path.unlink(missing_ok=True)
        self.written.splits = self._prints_of(orders)
        return self.counts, self.written

    def _source_of(self, split: str) -> str:
        """The name of the source that has the rows of a split."""
        return PART if self.spec.split else split

    def _files_of(self, part: str) -> list[Input]:
        return [item for item in self.context.inputs if item.split == part]

    def _read_all(self, parts_of_sources: Mapping[str, Sequence[str]]) -> dict[str, Order]:
        """Spool all rows. Returns the rows of each source to write, in their order."""
        mix = self.spec.mix
        rows_of_part: dict[str, int] = {}
        enough: dict[str, int] = {}
        if mix:
            rows_of_part = apportioned(mix.total, {name: part.share for name, part in mix.parts.items()})
            for name, part in mix.parts.items():
                if part.source.hub.get("stream"):
                    enough[name] = rows_of_part[name]
        all_parts = list(chain.from_iterable(parts_of_sources.values()))
        with contextlib.closing(self.context.reading(all_parts, enough)) as reading:
            return {
                source: self._read(reading, source, parts, rows_of_part)
                for source, parts in parts_of_sources.items()
            }

    def _read(
        self, reading: ChunkedReading, source: str, parts: Sequence[str], rows_of_part: Mapping[str, int]
    ) -> Order:
        """Spool the rows of parts. Returns the rows to write, in their order."""
        order = array(ROW_TYPE)
        mix = self.spec.mix
        prints = self.prints.setdefault(source, Fingerprints())
        watch = None
        if self.staged is None:
            watch = self.watches[source] = RecordWatch()
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(JoinedFile(path, hidden=True)) for path in self._spool_paths(source)]
            self.spooled[source] = files
            for name in parts:
                start = prints.rows
                self.counts += reading.read_part(name, prints, watch, files)
                size = rows_of_part.get(name)
                order.extend(self._chosen(name, range(start, prints.rows), prints, size))
        if watch and not self.problems.stopped:
            self.problems.lead(watch.retyped.problems(source))
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
        source = self._source_of(split)
        if self.problems.stopped:
            return
        if self.staged is None:
            self.written.unwritten.append((split, self.watches[source], order))
            return
        with self.written.open(split) as files:
            for (number, _), file in zip(self.spec.outputs_of(split), files, strict=True):
                if order:
                    staged = StagedRows(self.spooled[source][number], self.prints[source].rows, file.path)
                    self._arrange(split, number, staged, order, file)

    def _arrange(self, split: str, output: int, staged: StagedRows, order: Order, file: JoinedFile) -> None:
        """Write rows of one output in their order."""
        common = Common(self.context.job)

        def items() -> Iterator[WorkItem]:
            for start in range(0, len(order), ARRANGED):
                offsets, lengths = staged.places(order[start : start + ARRANGED])
                arguments = (
                    common,
                    f"{split}-{output}-{start}",
                    split,
                    output,
                    staged.path,
                    offsets,
                    lengths,
                )
                yield WorkItem(f"{file.path.name} from {start + 1}", arrange_chunk, arguments)

        ahead = 2 * self.context.executor.workers
        with contextlib.closing(self.context.executor.map(items(), ahead=ahead)) as results:
            for result in results:
                file.add(result.record_or_raise())


def write_splits(context: Context) -> tuple[Counts, Written]:
    """Read everything and write each split: in one pass if rows keep their order, otherwise in two.

    Returns the counts of rows, and the files and fingerprints of each split. Memory holds the fingerprints
    alone. Without a staged folder nothing is written.
    """
    spec, staged = context.job.spec, context.job.staged
    if spec.arranged:
        return TwoPassWriter(context).run()
    counts, written = Counts(), Written(spec, staged)
    filled = {item.split for item in context.inputs}
    splits = [split for split in spec.splits if split in filled]
    with contextlib.closing(context.reading(splits)) as reading:
        for split in splits:
            prints = Fingerprints(counted_only=not context.request.duplicates)
            written.splits[split] = prints
            watch = None if staged else RecordWatch()
            with written.open(split) as files:
                counts += reading.read_part(split, prints, watch, files)
            if watch and not context.problems.stopped:
                context.problems.lead(watch.retyped.problems(split))
                written.unwritten.append((split, watch, range(prints.rows)))
    return counts, written


def run_pipeline(
    spec: Spec, request: CompileRequest, sources: Sources, staged: Path | None, executor: Executor
) -> CompileReport:
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
    unused, progress = Unused(), Progress([item.path for item in inputs])
    job = CompileJob(
        with_rivals(spec, inputs),
        staged,
        kept_problems=problems.limit,
        reject=request.reject,
        compares_rows=request.duplicates,
        limit=request.limit or NO_LIMIT,
    )
    context = Context(request, job, inputs, Collectors(problems, unused, progress), executor)
    duplicates: dict[str, object] = {}
    with contextlib.closing(progress):
        counts, written = write_splits(context)
        if staged:
            for folder in staged.glob(f"{CHUNK_FOLDER}*"):
                shutil.rmtree(folder)
        problems.lead(unused.problems(spec, counts.read))
        if not problems.stopped:
            duplicates = warn_of_duplicates(written.splits, spec.group, problems, near=spec.near)
            _warn_of_labels(spec, duplicates, problems)
        if not problems.stopped:
            problems.lead(written.retyped())
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
        unused=unused,
        fit=duplicates,
    )
    if not problems.stopped:
        if staged:
            report.datasets, report.files = written.account(counts.kept)
        else:
            written.refuse_shards()
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
