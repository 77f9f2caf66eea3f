"""Reads the written files back before they are published: counts, checks and fingerprints for eval.

The counts that a compile prints come from here. They must equal the writer's counts, and the checksum of the
records must be that of the encoder.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

import orjson
from xxhash import xxh3_64

from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.retyped import LINES, problems_of_file, problems_of_kept, text_columns
from tuneyard.compiler.lint.spool import Spool
from tuneyard.compiler.spec.model import Output, Spec
from tuneyard.compiler.write.entries import entry_of
from tuneyard.compiler.write.joined_file import JoinedFile
from tuneyard.compiler.write.record_file import Contents, Damage, RecordFile, brackets_of, not_as_made
from tuneyard.compiler.write.record_watch import RecordWatch
from tuneyard.compiler.write.shards import cut_into_shards
from tuneyard.core.errors import ContentError, Problem
from tuneyard.core.files import line_breaks, named, sha256
from tuneyard.core.manifest import CompiledFile
from tuneyard.core.records import RecordReader, format_of_entry
from tuneyard.core.row_index import fingerprints, row_index_file, write_row_index

if TYPE_CHECKING:
    Hash: TypeAlias = hashlib._Hash

BLOCK = 1 << 18
Record = dict[str, Any]
Accounts = tuple[dict[str, int], dict[str, CompiledFile]]


class Written:
    """The files that a compile writes into a staged folder, split by split. A check writes none.

    `splits` has the fingerprints of the rows of each split. `unwritten` has the splits of a check, with the
    watch over their records and the order of these.
    """

    def __init__(self, spec: Spec, staged: Path | None) -> None:
        self.spec, self.staged = spec, staged
        self.files: list[tuple[str, Output, JoinedFile]] = []
        self.splits: dict[str, Fingerprints] = {}
        self.unwritten: list[tuple[str, RecordWatch, Sequence[int]]] = []

    @contextlib.contextmanager
    def open(self, split: str) -> Iterator[list[JoinedFile]]:
        """Open the files of a split, or of `WHOLE`. Those that get no records do not come to be."""
        outputs = [output for _, output in self.spec.outputs_of(split)] if self.staged else []
        with contextlib.ExitStack() as stack:
            files = []
            for output in outputs:
                path = cast("Path", self.staged) / output.file.format(split=split)
                files.append(stack.enter_context(JoinedFile(path)))
            yield files
        for output, file in zip(outputs, files, strict=True):
            if file.records:
                self.files.append((split, output, file))

    def retyped(self) -> list[Problem]:
        """E430 for the columns of a dataset's file that LLaMA-Factory would read as times."""
        problems: list[Problem] = []
        for _, output, file in self.files:
            if output.dataset and file.path.suffix == LINES:
                columns = entry_of(self.spec, output, file.path.name)["columns"]
                problems += problems_of_file(file.path, file.path.name, columns)
                kept = [column for column in output.keep if column not in text_columns(columns)]
                problems += problems_of_kept(file.path, file.path.name, kept)
        return problems

    def refuse_shards(self) -> None:
        """`ContentError` if the shards that a compile would write could not be loaded together."""
        for split, watch, order in self.unwritten:
            watch.refuse_shards(split, self.spec.outputs_of(split), order)

    def account(self, kept: int) -> Accounts:
        """Write the row index of each dataset. Returns records by dataset, and rows and hash by file.

        `kept` is the number of rows that each output should have. `ContentError` if a file has another one.
        """
        totals: Counter[str] = Counter()
        datasets: dict[str, int] = {}
        files: dict[str, CompiledFile] = {}
        for split, output, file in self.files:
            totals[output.file] += file.sources if output.pieces else file.records
            name = output.dataset.format(split=split) if output.dataset else file.path.name
            datasets[name] = file.records
            files[output.published_name(split)] = CompiledFile(file.records, file.sha256)
        for output in self.spec.outputs:
            if totals[output.file] != kept:
                raise ContentError(
                    f"{self.spec.name}: internal error: {kept} rows were kept, and {totals[output.file]} "
                    f"records were written to {output.file}: nothing was published; please report this"
                )
        for split, _, file in self.files:
            if file.prints is not None:
                row_index = row_index_file(file.path)
                prints = Spool.of_file(file.prints, "Q")
                file.prints.unlink()
                group = self.spec.group
                clusters = {group: self.splits[split].clusters()} if group else {}
                write_row_index(row_index, prints, clusters)
                files[row_index.name] = CompiledFile(len(prints), sha256(row_index))
        for _, output, file in self.files:
            if output.shards is not None:
                cut_into_shards(file.path, file.records, output.shards, file.sha256)
        return datasets, files


def record_file(spec: Spec, output: Output, path: Path, *, is_whole: bool = False) -> RecordFile:
    """A new file of an output, which is read back when it is complete. `is_whole`: no part of another one."""
    look = partial(look_back, spec, output, path, is_whole=is_whole)
    return RecordFile(path, look, in_pieces=output.pieces is not None)


def look_back(spec: Spec, output: Output, path: Path, file: BinaryIO, *, is_whole: bool) -> Contents:
    """What is in an open file: also its hash if it is no part of another file.

    The fingerprints of a dataset's records come into a file beside it, 8 bytes each in the byte order of this
    machine: another process may read a large file of records back, and memory must not hold all of them.
    """
    entry = entry_of(spec, output, path.name)
    columns = cast("dict[str, str]", entry["columns"])
    fields = frozenset([*columns.values(), *output.keep])
    prints = path.with_name(f".{path.name}.fingerprints") if output.dataset else None
    reader = RecordReader(format_of_entry(entry))
    checksum, digest = xxh3_64(), hashlib.sha256()
    rows = 0
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(prints.open("wb")) if prints else None
        for records in read_back(path, fields, file, checksum, digest if is_whole else None):
            rows += len(records)
            if target:
                with named(path):
                    target.write(fingerprints(reader.prompts(records)))
    return Contents(rows, checksum.intdigest(), prints, digest.hexdigest() if is_whole else "")


def read_back(
    path: Path, fields: frozenset[str], file: BinaryIO, checksum: xxh3_64, digest: "Hash | None" = None
) -> Iterator[list[Record]]:
    """Yield the records of an open file, hundreds at a time, and add them to the checksum.

    All bytes of the file are added to `digest`. `ContentError` unless all records have these fields, and
    nothing else is in the file.
    """
    rows = 0
    between = brackets_of(path).between
    for block in _blocks(path, file, digest):
        checksum.update(block)
        checksum.update(between)
        text = block if path.suffix == ".json" else block.replace(b"\n", b",")
        try:
            records = orjson.loads(b"[%b]" % text)
        except orjson.JSONDecodeError:
            records = []
        if len(records) != line_breaks(block) + 1 or not _have_fields(records, fields):
            raise Damage(rows + 1, rows + block.count(b"\n{") + 1).error(path)
        rows += len(records)
        yield records


def _have_fields(records: list[Any], fields: frozenset[str]) -> bool:
    """True if each record is an object with all of these fields and no others."""
    if set(map(type, records)) != {dict} or set(map(len, records)) != {len(fields)}:
        return False
    return fields.issuperset(set().union(*records))


def _blocks(path: Path, file: BinaryIO, digest: "Hash | None") -> Iterator[bytes]:
    """Yield blocks of whole records, without the bytes before, between and after the blocks."""
    array, brackets = path.suffix == ".json", brackets_of(path)
    between, end = brackets.between, brackets.tail
    head = file.read(len(brackets.head))
    if digest:
        digest.update(head)
    while True:
        block = file.read(BLOCK)
        if not block:
            return
        block += file.readline()
        if array and not block.endswith(between):
            block += file.readline()
        if digest:
            digest.update(block)
        last = not file.peek(1)  # type: ignore[attr-defined]  # a buffered file has it, whatever typing says
        ending = end if last else between
        if head != brackets.head or not block.endswith(ending):
            raise not_as_made(path, "what stands between the records")
        yield block.removesuffix(ending)
