"""Reads the sources of a compile in chunks, which an executor runs, and joins what they return.

Everything comes out as if one process had read the files in order. A chunk starts before those in front of it
have ended, with the carry that is expected then. If it comes to be another one, the chunk runs again, here.
"""

import contextlib
import shutil
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneyard.compiler.check.checker import Checker
from tuneyard.compiler.check.unused_columns import Unused
from tuneyard.compiler.chunks import (
    NO_LIMIT,
    Carry,
    Chunk,
    ChunkResult,
    CompileJob,
    FilePart,
    compile_chunk,
    folder_of_chunk,
)
from tuneyard.compiler.kinds import KeptValues
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.progress import Progress
from tuneyard.compiler.read import read, reading, spans_of
from tuneyard.compiler.read.inputs import Input
from tuneyard.compiler.read.spans import WHOLE, OpenRecordError, count_lines
from tuneyard.compiler.read.stream import stored_size
from tuneyard.compiler.request import Counts
from tuneyard.compiler.write.joined_file import JoinedFile
from tuneyard.compiler.write.record_watch import RecordWatch
from tuneyard.core.errors import Problem
from tuneyard.core.execution import Common, Executor, InThisProcess, WorkItem, WorkResult

CHUNK = 1 << 23  # bytes
LARGEST = 1 << 25  # bytes of a file that goes to a worker as one chunk
AHEAD = 3  # chunks per worker that have started, or whose results wait for an earlier one


@dataclass(slots=True)
class Collectors:
    """What is collected over all rows of a compile: problems, unused columns and the bytes read."""

    problems: Problems
    unused: Unused
    progress: Progress


class ChunkedReading:
    """The rows of all parts, in the order of `parts`. Each part is to be read, once and in this order.

    `enough` has the number of rows after which a part is not read on.
    """

    def __init__(
        self,
        job: CompileJob,
        inputs: Sequence[Input],
        parts: Sequence[str],
        collectors: Collectors,
        executor: Executor,
        enough: Mapping[str, int] | None = None,
    ) -> None:
        self.job = job
        self.inputs = inputs
        self.parts = parts
        self.enough = enough or {}
        self.problems, self.unused = collectors.problems, collectors.unused
        self.progress = collectors.progress
        self._in_this_process = isinstance(executor, InThisProcess)
        self._common = Common(job)
        self._started: deque[tuple[Chunk, Carry]] = deque()
        self._carry = Carry()  # of the chunk that is joined next
        self._file = -1  # number of the file to which it belongs, or of the one before
        self._joined = -1  # number of the chunk that was joined last
        self._rows: list[int] = []  # how many a chunk probably has, by its number
        self._first_chunks: dict[str, int] = {}  # number of the first chunk, by part
        self._after_first_rows: dict[int, Carry] = {}  # by file
        self._not_rows: dict[str, int] = {}  # lines of a file that are no rows, by part with row numbers
        self._first_types: dict[str, Mapping[str, str]] = {}  # of kept columns, by part: in its first rows
        self._done: set[int] = set()  # files of which no further chunk counts
        self._tallies: list[Counter[object]] = []
        self._large: set[int] = set()  # chunks that run here
        ahead = max(AHEAD * executor.workers, 1)
        self._results: Generator[WorkResult] = executor.map(self._items(), ahead=ahead)
        self._in_order = self._all_results()

    def close(self) -> None:
        """End what still runs."""
        self._results.close()

    def files_of(self, part: str) -> list[tuple[int, Input]]:
        """The numbered source files of a part."""
        return [(number, item) for number, item in enumerate(self.inputs) if item.split == part]

    def read_part(
        self, name: str, prints: Fingerprints, watch: RecordWatch | None, files: Sequence[JoinedFile]
    ) -> Counts:
        """Read the rows of a part. Their fingerprints and records are appended. Returns their counts."""
        counts = Counts()
        dropped: Counter[str] = Counter()
        filtered: Counter[str] = Counter()
        kept_values: dict[str, KeptValues] = {}
        for result in self._chunks_of(name):
            counts += Counts(result.read, result.kept, not_written=result.not_written)
            dropped += result.dropped_early
            filtered += result.filtered
            prints.append(result.prints)
            if watch and result.watch:
                watch.join(result.watch)
            for column, values in result.kept_values.items():
                if column in kept_values:
                    kept_values[column].join(values)
                else:
                    kept_values[column] = values
            for part, file in zip(result.files, files, strict=False):  # a check writes none
                if part:
                    file.add(part)
        self._judge(name, counts, kept_values)
        return counts + Counts(dropped=dict(dropped + filtered))

    def _judge(self, name: str, counts: Counts, kept_values: Mapping[str, KeptValues]) -> None:
        """Report on all rows of a part together."""
        files = self.files_of(name)
        if not files:
            return
        place, problems = files[0][1].display_path, self.problems
        if counts.read and not counts.kept and not problems.stopped:
            message = f"none of the {counts.read} rows of {name} is kept, so it is not written"
            problems.warn(Problem("W209", place, message))
        all_read = min(self.job.limit, self.enough.get(name, NO_LIMIT)) == NO_LIMIT
        if problems.stopped:
            return
        for values in kept_values.values():
            problem = values.problem(place)
            if problem and all_read:
                problems.lead([problem])
            note = values.note()
            if note and not problems.stopped:
                problems.notes.append(f"{place}: {note}")

    def _chunks_of(self, name: str) -> Iterator[ChunkResult]:
        """Yield the joined results of the chunks of a part."""
        if not self.files_of(name):
            return
        for chunk, assumed, work in self._in_order:
            cut_file = chunk.cut_file
            if cut_file is None or cut_file.number not in self._done:
                yield self._join(chunk, assumed, work)
            else:
                folder = folder_of_chunk(self.job, chunk)
                if folder is not None:
                    shutil.rmtree(folder, ignore_errors=True)
            if chunk.last:
                return

    def _all_results(self) -> Iterator[tuple[Chunk, Carry, WorkResult | None]]:
        """Yield each chunk with the carry that it began with, and its result; None if it is to run here."""
        for work in self._results:
            while self._started[0][0].number in self._large:
                yield *self._started.popleft(), None
            yield *self._started.popleft(), work
        while self._started:
            yield *self._started.popleft(), None

    def _join(self, chunk: Chunk, assumed: Carry, work: WorkResult | None) -> ChunkResult:
        """Add a result to what is collected. The chunk runs again if it began with a wrong carry.

        Chunks that run while a bad row stops the compile have linted and written rows. That is left out.
        """
        carry = self._carry_of(chunk, self._carry)
        result: ChunkResult | None = None
        if work is not None and (not work.error or _alike(assumed, carry)):
            result = work.record_or_raise()
        if result is not None and result.is_cut:  # inside a record: the rest of the file is one chunk
            file = chunk.files[0]
            self._done.add(file.number)
            chunk = replace(chunk, files=(replace(file, span=replace(file.span, stop=None)),))
            result = None
        if result is not None and carry.stopped and not assumed.stopped:
            result, assumed = result.only_checked(), replace(assumed, stopped=True)
        if result is None or not self._began_rightly(assumed, carry, result):
            assumed = carry
            result = compile_chunk(self.job, chunk, carry)
        rows = result.carry.number - assumed.number
        self._collect(
            chunk, result, replace(carry, read=carry.read + result.read, number=carry.number + rows)
        )
        return result

    def _began_rightly(self, assumed: Carry, carry: Carry, result: ChunkResult) -> bool:
        """True if a chunk that began with `assumed` did what it would have done with `carry`."""
        if result.uses_numbers and assumed.number != carry.number:
            return False
        return _alike(assumed, carry) and self.unused.can_join(result.unused, assumed.counted)

    def _collect(self, chunk: Chunk, result: ChunkResult, counted: Carry) -> None:
        """Add the problems and columns of a result. `counted` has the numbers of rows with it."""
        self.problems.join(result.problems)
        self.unused.join(result.unused)
        file = chunk.files[-1]
        self._carry = replace(
            result.carry,
            stopped=self.problems.stopped,
            counted=self.unused.names(),
            read=counted.read,
            number=counted.number,
        )
        self._file, self._joined = file.number, chunk.number
        if result.carry.ended:
            self._done.add(file.number)
        if not self._in_this_process:
            self._move(chunk)
        if chunk.cut_file is not None:
            self._note_file(chunk, result)

    def _move(self, chunk: Chunk) -> None:
        """Move the bar by the bytes of a chunk."""
        for file in chunk.files:
            start, stop = file.span.start, file.span.stop
            self.progress.move((stored_size(file.path) if stop is None else stop) - start)

    def _note_file(self, chunk: Chunk, result: ChunkResult) -> None:
        """Add up the tallies of a file that is read in parts, and note what they tell at its end."""
        file = chunk.files[0]
        if file.span.begins:
            self._tallies = result.tallies
        else:
            for tally, further in zip(self._tallies, result.tallies, strict=True):
                tally.update(further)
        if file.span.ends or file.number in self._done:
            spec = self.job.spec_of(chunk.part)
            checker = Checker(spec, file.display_path, Problems(), Unused(), {})
            checker.resume(result.carry.sources, failed=result.carry.failed)
            checker.add_tallies(self._tallies)
            self.problems.notes += checker.notes()

    def _carry_of(self, chunk: Chunk, known: Carry) -> Carry:
        """The carry of a chunk from that of the rows before it. Parts and files begin with less of it."""
        carry = known
        if chunk.first:
            carry = replace(carry, types={}, read=0, number=0)
        if chunk.files[0].span.begins:
            carry = replace(carry, sources={}, failed=False, ended=False, number=carry.read)
        return carry

    def _items(self) -> Iterator[WorkItem]:
        """Yield a work item for each chunk, with the carry that is expected from what is known now."""
        for chunk in self._planned():
            if chunk.first:
                self._first_chunks[chunk.part] = chunk.number
            carry = self._expect(chunk)
            self._rows.append(sum(self._rows_in(file, chunk.part) for file in chunk.files))
            self._started.append((chunk, carry))
            file = chunk.files[0]
            if self._is_large(file):
                self._large.add(chunk.number)
                continue
            name = f"{file.display_path} from line {file.span.first} on"
            yield WorkItem(name, compile_chunk, (self._common, chunk, carry))

    def _is_large(self, file: FilePart) -> bool:
        """True for a large file that cannot be cut: the fingerprints of its rows are too many to be sent."""
        if self._in_this_process or not file.is_whole:
            return False
        return stored_size(file.path) > LARGEST

    def _expect(self, chunk: Chunk) -> Carry:
        """The carry that a chunk will probably have."""
        file = chunk.files[0]
        if self._in_this_process:
            return self._carry_of(chunk, self._carry)
        number = self._number_before(chunk)
        types = self._types_before(chunk)
        if file.span.begins:
            return self._carry_of(chunk, replace(self._carry, types=types, read=number))
        if self._file == file.number:
            return replace(self._carry, number=number)
        carry = self._after_first_rows[file.number]
        types.update(carry.types)
        return replace(carry, types=types, stopped=self._carry.stopped, number=number)

    def _number_before(self, chunk: Chunk) -> int:
        """The number that the first row of a chunk will probably have."""
        first, number = self._first_chunks[chunk.part], 0
        if self._has_joined(chunk.part):
            first, number = self._joined + 1, self._carry.read
        if self._file == chunk.files[0].number:
            number = self._carry.number
        return number + sum(self._rows[first : chunk.number])

    def _rows_in(self, file: FilePart, part: str) -> int:
        """How many rows a part of a file probably has; 0 if they get no numbers."""
        if part not in self._not_rows:
            return 0
        lines = file.span.lines
        if not lines and stored_size(file.path) <= CHUNK:
            lines = count_lines(file.path)
        if file.span.begins:
            lines -= self._not_rows[part]
        return lines

    def _has_joined(self, part: str) -> bool:
        """True if the chunk that was joined last is of this part."""
        return self._file >= 0 and self.inputs[self._file].split == part

    def _types_before(self, chunk: Chunk) -> dict[str, str]:
        """The types that the kept columns will probably have in the rows of its part before a chunk."""
        types = dict(self._first_types[chunk.part])
        if self._has_joined(chunk.part):
            types.update(self._carry.types)
        return types

    def _planned(self) -> Iterator[Chunk]:
        """Yield the chunks of all parts."""
        number = 0
        for part in self.parts:
            held: Chunk | None = None
            for files in self._portions(part):
                if held:
                    yield held
                enough = self.enough.get(part, NO_LIMIT)
                held = Chunk(number, part, tuple(files), enough, first=held is None)
                number += 1
            if held:
                yield replace(held, last=True)

    def _portions(self, part: str) -> Iterator[list[FilePart]]:
        """Yield the files of a part: some whole ones together, or a part of one."""
        size = sys.maxsize if self._in_this_process else CHUNK
        all_at_once = self.job.limit != NO_LIMIT or part in self.enough
        source = reading(self.job.spec_of(part))
        together: list[FilePart] = []
        bytes_together = 0
        for number, item in self.files_of(part):
            spans = iter((WHOLE,)) if all_at_once else spans_of(item.path, source, part, size)
            for span in spans:
                path = self.progress.watch(item.path) if self._in_this_process else item.path
                file = FilePart(path, item.display_path, number, span)
                if part not in self._first_types or (span.begins and not file.is_whole):
                    self._look_at(part, file)
                if file.is_whole:
                    together.append(file)
                    continue
                if together:
                    yield together
                    together, bytes_together = [], 0
                yield [file]
            if together:
                bytes_together += stored_size(item.path)
                if bytes_together >= size and not all_at_once:
                    yield together
                    together, bytes_together = [], 0
        if together:
            yield together

    def _look_at(self, part: str, file: FilePart) -> None:
        """Find what the first rows of a file tell of the others."""
        if self._in_this_process:
            return
        types: dict[str, str] = {}
        unused = Unused()
        spec, nothing = self.job.spec_of(part), Problems()
        checker = Checker(spec, file.display_path, nothing, unused, types)
        rows_of_file = read(file.path, file.display_path, reading(spec), nothing, part, file.span)
        rows = None
        with contextlib.closing(_closable(rows_of_file)) as batches:
            with contextlib.suppress(OpenRecordError):  # the chunk itself reads on and reports what is there
                rows = next(batches, None)
            if rows is not None:
                checker.check(rows)
                last = rows.lines[-1]
                if checker.uses_numbers and isinstance(last, int):
                    self._not_rows.setdefault(part, last - checker.number)
        self._after_first_rows[file.number] = Carry(
            types=types,
            sources=checker.sources,
            failed=checker.failed,
            counted=unused.names(),
        )
        self._first_types.setdefault(part, types)


def _alike(assumed: Carry, carry: Carry) -> bool:
    """True if two carries differ in numbers of rows and in columns that are only counted, at most."""
    return replace(assumed, counted=carry.counted, read=carry.read, number=carry.number) == carry


def _closable(rows: Iterator[Any]) -> Generator[Any]:
    yield from rows
