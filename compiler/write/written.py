"""The files that a compile writes into a staged folder, and what the manifest lists of them."""

import contextlib
import mmap
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from os import pread
from pathlib import Path

from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.spec.model import WHOLE, Output, Spec
from tuneyard.compiler.write.record_file import RecordFile
from tuneyard.core.datasets.manifest import CompiledFile
from tuneyard.core.files import sha256
from tuneyard.core.records.row_index import Drawn, row_index_file, write_row_index

BLOCK = 1000  # rows that are copied at a time


class Written:
    """The written files: `files` has each with its split and its output.

    `drawn` is what became of the rows of the files of all splits.
    """

    def __init__(self, spec: Spec, staged: Path) -> None:
        self.spec, self.staged = spec, staged
        self.files: list[tuple[str, Output, RecordFile]] = []
        self.drawn: Drawn | None = None

    @contextlib.contextmanager
    def open(self, split: str) -> Iterator[list[RecordFile]]:
        """Open the files of a split, or of `WHOLE`. Those that get no records do not come to be."""
        outputs = [output for _, output in self.spec.outputs_of(split)]
        files = [
            RecordFile(self.staged / output.file.format(split=split), has_keys=self.spec.is_indexed(output))
            for output in outputs
        ]
        with contextlib.ExitStack() as stack:
            for file in files:
                stack.enter_context(file)
            yield files
        for output, file in zip(outputs, files, strict=True):
            if file.records:
                self.files.append((split, output, file))
            else:
                file.delete()

    def records(self) -> dict[str, int]:
        """The number of records of each dataset, by file name for a file that is no dataset."""
        records = {}
        for split, output, file in self.files:
            name = output.dataset.format(split=split) if output.dataset else file.path.name
            records[name] = file.records
        return records

    def records_of_outputs(self) -> Counter[str]:
        """The number of records of each output, over all splits."""
        totals = Counter({output.file: 0 for output in self.spec.outputs})
        for _, output, file in self.files:
            totals[output.file] += file.records
        return totals

    def account(self, splits: Mapping[str, Fingerprints]) -> dict[str, CompiledFile]:
        """Write the row index of each dataset. Returns rows and hash by file; `splits` have the clusters."""
        files: dict[str, CompiledFile] = {}
        for _, _, file in self.files:
            files[file.path.name] = CompiledFile(file.records, file.sha256)
        group = self.spec.group
        for split, _, file in self.files:
            if file.keys is None:
                continue
            row_index = row_index_file(file.path)
            with keys_in(file.keys) as keys:
                if split == WHOLE:
                    write_row_index(row_index, keys, {}, self.drawn)
                else:
                    clusters = {group: splits[split].clusters()} if group else {}
                    write_row_index(row_index, keys, clusters)
            file.keys.unlink()
            files[row_index.name] = CompiledFile(file.records, sha256(row_index))
        return files


@contextlib.contextmanager
def keys_in(path: Path) -> Iterator[Sequence[int]]:
    """The keys in a file, in the byte order of this machine, which are read as they are needed."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as data,
        data.cast("Q") as keys,
    ):
        yield keys


def copy_rows(source: RecordFile, order: Sequence[int], target: RecordFile) -> None:
    """Copy lines of a file, and their keys, in this order. Memory: 8 bytes a line.

    Each line is read by a call. In a mapped file, lines in random order would count many pages as our memory.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(source.path.open("rb"))
        keys_of_lines = stack.enter_context(keys_in(source.keys)) if source.keys else None
        gap = len(source.between)
        starts = array("Q", accumulate(map(len, file), initial=0))
        for first in range(0, len(order), BLOCK):
            rows = order[first : first + BLOCK]
            lines = [pread(file.fileno(), starts[row + 1] - starts[row] - gap, starts[row]) for row in rows]
            keys = array("Q", map(keys_of_lines.__getitem__, rows)) if keys_of_lines else None
            target.add(target.between.join([*lines, b""]), keys)
