"""What a compile wrote, read back before it is published: counted, checked, and fingerprinted for eval.

The counts that a compile prints are those found here; the writer's own are compared with them, and so is a
checksum of the records as they were encoded.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.retyped import LINES, problems_of_file, problems_of_kept, text_columns
from tuneyard.compiler.lint.spool import Spool
from tuneyard.compiler.publish.registry import entry_of
from tuneyard.compiler.spec.model import Output, Spec
from tuneyard.compiler.write.record_file import Checksum, RecordFile, not_as_made
from tuneyard.core.errors import ContentError, Problem
from tuneyard.core.files import named, sha256
from tuneyard.core.manifest import CompiledFile
from tuneyard.core.records import RecordReader, format_of_entry
from tuneyard.core.row_index import fingerprints, row_index_file, write_row_index

BLOCK = 1 << 18
Record = dict[str, Any]
Contents = tuple[int, int, Path | None]  # records, their checksum, and the file of their fingerprints
Accounts = tuple[dict[str, int], dict[str, CompiledFile]]


class Written:
    """What a compile writes into a staged folder (without one, in a check, nothing): files split by split.

    `splits` has what was seen of the rows of each.
    """

    def __init__(self, spec: Spec, staged: Path | None) -> None:
        self.spec, self.staged = spec, staged
        self.files: list[tuple[str, Output, RecordFile]] = []
        self.splits: dict[str, Fingerprints] = {}

    @contextlib.contextmanager
    def open(self, split: str) -> Iterator[list[RecordFile]]:
        """Open what is written for a split, or for `WHOLE`, all files or none; those without records go."""
        outputs = [output for _, output in self.spec.outputs_of(split)] if self.staged else []
        with contextlib.ExitStack() as stack:
            files = []
            for output in outputs:
                path = cast("Path", self.staged) / output.file.format(split=split)
                look = partial(look_back, self.spec, output, path)
                file = RecordFile(path, look, in_pieces=output.pieces is not None)
                files.append(stack.enter_context(file))
            yield files
        for output, file in zip(outputs, files, strict=True):
            if file.rows:
                self.files.append((split, output, file))
            else:
                file.path.unlink()

    def stop_readback(self) -> None:
        """End the reading of files that will not be published."""
        for _, _, file in self.files:
            file.stop_readback()

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

    def account(self, kept: int) -> Accounts:
        """Write beside each dataset what eval needs; returns records by dataset, and rows and hash by file.

        `kept` is how many rows each output should hold. `ContentError` where a file is not what was meant, or
        its records are not those that were counted.
        """
        totals: Counter[str] = Counter()
        datasets: dict[str, int] = {}
        files: dict[str, CompiledFile] = {}
        looks: list[Contents] = []
        for split, output, file in self.files:
            rows, checksum, found = file.looked()
            if rows != file.rows:
                raise not_as_made(file.path, f"the count of records ({file.rows} written, {rows} found)")
            totals[output.file] += file.sources if output.pieces else rows
            looks.append((rows, checksum, found))
            datasets[output.dataset.format(split=split) if output.dataset else file.path.name] = rows
            files[file.path.name] = CompiledFile(rows, file.sha256)
        for output in self.spec.outputs:
            if totals[output.file] != kept:
                raise ContentError(
                    f"{self.spec.name}: internal error: {kept} rows were kept, and {totals[output.file]} "
                    f"records were written to {output.file}: nothing was published; please report this"
                )
        for (split, _, file), (rows, checksum, found) in zip(self.files, looks, strict=True):
            if checksum != file.encoded.value:
                raise not_as_made(file.path, f"one of the records 1 to {rows}")
            if found is not None:
                beside, group = row_index_file(file.path), self.spec.group
                read_back_prints = Spool.of_file(found, "Q")
                found.unlink()
                clusters = {group: self.splits[split].clusters()} if group else {}
                write_row_index(beside, read_back_prints, clusters)
                files[beside.name] = CompiledFile(len(read_back_prints), sha256(beside))
        return datasets, files


def look_back(spec: Spec, output: Output, path: Path, file: BinaryIO) -> Contents:
    """Return how many records an open file holds, their checksum, and the file with a dataset's fingerprints.

    That holds 8 bytes a record, in this machine's byte order. It is a file because a process of its own may
    look at a large one, and memory should not hold what it found.
    """
    entry = entry_of(spec, output, path.name)
    columns = cast("dict[str, str]", entry["columns"])
    fields = frozenset([*columns.values(), *output.keep])
    prints = path.with_name(f".{path.name}.fingerprints") if output.dataset else None
    reader = RecordReader(format_of_entry(entry))
    rows, checksum = 0, Checksum(_between(path))
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(prints.open("wb")) if prints else None
        for records in read_back(path, fields, file, checksum):
            rows += len(records)
            if target:
                with named(path):
                    target.write(fingerprints(reader.prompts(records)))
    return rows, checksum.value, prints


def read_back(
    path: Path, fields: frozenset[str], file: BinaryIO, checksum: Checksum
) -> Iterator[list[Record]]:
    """Yield records of an open file, hundreds at a time, and note their checksum.

    `ContentError` unless the file holds just such records.
    """
    rows = 0
    for block in _blocks(path, file):
        lines = block.count(b"\n{") + 1
        checksum.add(block)
        text = block if path.suffix == ".json" else block.replace(b"\n", b",")
        try:
            records = orjson.loads(b"[%b]" % text)
        except orjson.JSONDecodeError:
            records = []
        if len(records) != lines or not _have(records, fields):
            raise not_as_made(path, f"one of the records {rows + 1} to {rows + lines}")
        rows += lines
        yield records


def _between(path: Path) -> bytes:
    """Return what separates the records of a file."""
    return b",\n" if path.suffix == ".json" else b"\n"


def _blocks(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """Yield whole lines of records without what stands before, after and between such blocks of them."""
    array, between = path.suffix == ".json", _between(path)
    end = b"\n]\n" if array else b"\n"
    start = file.read(2) if array else b"[\n"
    while block := file.read(BLOCK):
        block += file.readline()
        if array and not block.endswith(between):
            block += file.readline()
        last = not file.peek(1)  # type: ignore[attr-defined]  # a buffered file has it, whatever typing says
        if start != b"[\n" or not block.endswith(end if last else between):
            raise not_as_made(path, "what stands between the records")
        yield block.removesuffix(end if last else between)


def _have(records: list[Record], fields: frozenset[str]) -> bool:
    if set(map(type, records)) != {dict}:
        return False
    return all(len(keys) == len(fields) and fields.issuperset(keys) for keys in set(map(tuple, records)))
