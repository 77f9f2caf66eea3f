"""Writes record files: JSON Lines, or an array with one record on each line."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from xxhash import xxh3_64

from tuneyard.compiler.write.pieces import SEPARATOR
from tuneyard.core.errors import ContentError
from tuneyard.core.files import named


class Contents(NamedTuple):
    """What is in a file of records.

    - `records`: their number. `checksum`: XXH3 of the records, with a separator after each.
    - `prints`: the file of their fingerprints, None for a file that is no dataset.
    - `sha256`: the hash of the file, "" if it is to be a part of another one.
    """

    records: int
    checksum: int
    prints: Path | None = None
    sha256: str = ""


Look = Callable[[BinaryIO], Contents]


@dataclass(frozen=True, slots=True)
class Brackets:
    """What stands before, between and after the records of a file."""

    head: bytes
    between: bytes
    tail: bytes


def brackets_of(path: Path) -> Brackets:
    """Those of a JSON array for `….json`, of JSON Lines for other files."""
    if path.suffix == ".json":
        return Brackets(b"[\n", b",\n", b"\n]\n")
    return Brackets(b"", b"\n", b"\n")


@dataclass(frozen=True, slots=True)
class Damage:
    """Some records of a part, numbered from 1, of which one or more differ on the disk from the written ones.

    `found`: how many records the disk has, if their number differs.
    """

    first: int
    last: int
    found: int | None = None

    def error(self, path: Path, before: int = 0) -> "DamagedRecordsError":
        """The error for the file at `path`, in which `before` records come before the part."""
        return DamagedRecordsError(path, Damage(before + self.first, before + self.last, self.found))


class DamagedRecordsError(ContentError):
    """Records of a file differ on the disk from the written ones."""

    def __init__(self, path: Path, damage: Damage) -> None:
        records = f"records {damage.first} to {damage.last}"
        part = f"one of the {records}"
        if damage.found is not None:
            part = f"the count of the {records} ({damage.found} found)"
        super().__init__(str(not_as_made(path, part)))
        self.damage = damage


@dataclass(frozen=True, slots=True)
class WrittenPart:
    """A file with the records of some rows, which another process may have written.

    - `records`, `sources`: the numbers of records and of rows; with pieces a row has several records.
    - `checksum`: that of the records as they were encoded. `size`: bytes.
    - `prints`, `sha256`: as in `Contents`.
    - `damage`: records that the disk has otherwise than they were written.
    """

    path: Path
    records: int
    sources: int
    checksum: int
    size: int
    prints: Path | None = None
    sha256: str = ""
    damage: Damage | None = None

    def delete(self) -> None:
        """Delete its files."""
        self.path.unlink(missing_ok=True)
        if self.prints:
            self.prints.unlink(missing_ok=True)


class RecordFile:
    """A file of records being written; line n+1 of an array is record n, line n of JSON Lines.

    - `rows`: the number of records. `encoded`: the checksum of the records as they are handed over.
    - `look`: reads the file back once it is whole.
    - `in_pieces`: a row may become several records. `sources`: the number of rows.
    - `damage`: records that could not be taken from another file as they were written there.
    """

    def __init__(self, path: Path, look: Look | None = None, *, in_pieces: bool = False) -> None:
        self.path, self._look, self._in_pieces = path, look, in_pieces
        self.rows = self.sources = 0
        self.damage: Damage | None = None
        self._brackets = brackets_of(path)
        self.encoded = xxh3_64()

    def __enter__(self) -> Self:
        self._file = self.path.open("wb", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None and self.rows:
                with named(self.path):
                    self._file.seek(-len(self.between), os.SEEK_END)
                self._save(self._brackets.tail)

    @property
    def between(self) -> bytes:
        """What stands between two records."""
        return self._brackets.between

    def add(self, data: bytes, rows: int) -> None:
        """Append the records of so many rows: JSON texts without line breaks, with `between` after each row.

        They are added to the checksum that the read-back must reproduce.
        """
        if not rows:
            return
        self.sources += rows
        records = rows
        if self._in_pieces:
            records += data.count(SEPARATOR)
            data = data.replace(SEPARATOR, self.between)
        self.encoded.update(data)
        self.write(data, records)

    def write(self, data: bytes, records: int) -> None:
        """Append so many records, with the separator after each. The file's end replaces the last one."""
        if not self.rows:
            data = self._brackets.head + data
        self._save(data)
        self.rows += records

    def _save(self, data: bytes) -> None:
        with named(self.path):
            written = 0
            while written < len(data):
                written += self._file.write(memoryview(data)[written:])

    def read_back(self) -> Contents:
        """The result of `look` on the whole file."""
        if self._look is None:
            return Contents(self.rows, self.encoded.intdigest())
        with self.path.open("rb") as file:
            return self._look(file)

    def part(self) -> WrittenPart | None:
        """The file once it is whole and was read back; None without records, when it is deleted.

        The part has its damage if the file does not contain the records that were encoded: only who joins the
        parts knows how many records come before. `ContentError` if other records were encoded than counted.
        """
        if self.rows != self.sources and not self._in_pieces:
            raise ContentError(
                f"internal error: {self.sources} rows were kept, and {self.rows} records were written to "
                f"{self.path.name}: nothing was published; please report this"
            )
        if not self.rows and self.damage is None:
            self.path.unlink()
            return None
        contents = Contents(self.rows, self.encoded.intdigest())
        damage = self.damage
        if damage is None:
            contents, damage = self._compare(contents)
        size = self.path.stat().st_size
        return WrittenPart(
            self.path,
            self.rows,
            self.sources,
            contents.checksum,
            size,
            prints=contents.prints,
            sha256=contents.sha256,
            damage=damage,
        )

    def _compare(self, encoded: Contents) -> tuple[Contents, Damage | None]:
        """Read the file back. Returns what is in it, and the records that were encoded otherwise."""
        try:
            contents = self.read_back()
        except DamagedRecordsError as error:
            return encoded, error.damage
        if contents.records != encoded.records:
            return contents, Damage(1, self.rows, found=contents.records)
        if contents.checksum != encoded.checksum:
            return contents, Damage(1, self.rows)
        return contents, None


def not_as_made(path: Path, part: str) -> ContentError:
    """Error for a file whose bytes differ from the written bytes."""
    return ContentError(
        f"{path.name}: {part}: the file on the disk differs from the written data. Nothing was published. "
        "Check the disk. If it is sound, please report this"
    )
