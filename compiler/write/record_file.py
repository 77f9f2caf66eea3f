"""Writes record files: JSON Lines, or an array with one record on each line."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tuneyard.compiler.write.pieces import SEPARATOR
from tuneyard.core.errors import ContentError
from tuneyard.core.files import named

PIECE = 1 << 20
Contents = tuple[int, int, Path | None]  # records, their checksum, and the file of their fingerprints
Look = Callable[[BinaryIO], Contents]


class Checksum:
    """CRC-32 of the records of a file in their order, with the separator (`between`) after each."""

    def __init__(self, between: bytes) -> None:
        self._between = between
        self.value = 0

    def add(self, records: bytes) -> None:
        """Add records with the separators between them, as they are in the file."""
        self.value = zlib.crc32(self._between, zlib.crc32(records, self.value))


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
    - `prints`: the file of the records' fingerprints, None for a file that is no dataset.
    - `damage`: records that the disk has otherwise than they were written.
    """

    path: Path
    records: int
    sources: int
    checksum: int
    size: int
    prints: Path | None = None
    damage: "Damage | None" = None

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
        self.encoded = Checksum(self._brackets.between)
        self._ready = bytearray()

    def __enter__(self) -> Self:
        self._file = self.path.open("wb", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None and self.rows:
                self._ready += self._brackets.tail
                self._save(self._ready)

    def add(self, records: Sequence[bytes]) -> None:
        """Append records, and add them to the checksum that the read-back must reproduce."""
        self.sources += len(records)
        if self._in_pieces and records:
            records = SEPARATOR.join(records).split(SEPARATOR)
        if records:
            self.encoded.add(self._brackets.between.join(records))
            self.write(records)

    def write(self, records: Sequence[bytes]) -> None:
        """Append records, each a JSON text without line breaks."""
        if records:
            start = self._brackets.between if self.rows else self._brackets.head
            self._ready += start + self._brackets.between.join(records)
            self.rows += len(records)
        if len(self._ready) >= PIECE:
            self._save(self._ready)
            self._ready = bytearray()

    def _save(self, data: bytearray) -> None:
        with named(self.path):
            written = 0
            while written < len(data):
                written += self._file.write(memoryview(data)[written:])

    def read_back(self) -> Contents:
        """The result of `look` on the whole file."""
        if self._look is None:
            return self.rows, self.encoded.value, None
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
        prints, damage = None, self.damage
        if damage is None:
            prints, damage = self._compare()
        size = self.path.stat().st_size
        return WrittenPart(
            self.path, self.rows, self.sources, self.encoded.value, size, prints=prints, damage=damage
        )

    def _compare(self) -> tuple[Path | None, Damage | None]:
        """Read the file back. Returns the file of its fingerprints, and what differs on the disk."""
        try:
            records, checksum, prints = self.read_back()
        except DamagedRecordsError as error:
            return None, error.damage
        if records != self.rows:
            return prints, Damage(1, self.rows, found=records)
        if checksum != self.encoded.value:
            return prints, Damage(1, self.rows)
        return prints, None


def not_as_made(path: Path, part: str) -> ContentError:
    """Error for a file whose bytes differ from the written bytes."""
    return ContentError(
        f"{path.name}: {part}: the file on the disk differs from the written data. Nothing was published. "
        "Check the disk. If it is sound, please report this"
    )
