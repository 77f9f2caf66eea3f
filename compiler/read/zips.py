"""A .zip of data files: each is read as it would be by itself, in the order of their names."""

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, cast

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import OpenFile, read, reader, readers
from tuneyard.compiler.read.stream import DamagedError, seekable, suffix
from tuneyard.compiler.rows import Rows
from tuneyard.core.errors import Problem


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive, opened as its bytes."""

    archive: zipfile.ZipFile
    path: str

    def __str__(self) -> str:
        return f"{self.archive.filename}/{self.path}"

    @property
    def name(self) -> str:
        """The file's name without its folders."""
        return PurePosixPath(self.path).name

    def open(self, _mode: Literal["rb"], _buffering: Literal[0], /) -> io.RawIOBase:
        """Return its bytes, unpacked as they are read."""
        return cast("io.RawIOBase", self.archive.open(self.path))


@contextlib.contextmanager
def members(file: Path | BinaryIO) -> Iterator[list[Member]]:
    """Give the data files of an archive, no hidden ones or archives inside; raises `DamagedError`."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())
            found = [Member(archive, name) for name in names if "__MACOSX" not in name]
            kinds = readers().keys() - {".zip"}
            yield [one for one in found if suffix(one) in kinds and not one.name.startswith(".")]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DamagedError(f"the archive cannot be read: {error}") from error


@reader(".zip", text=False)
def read_zip(file: OpenFile, problems: Problems) -> Iterator[Rows]:
    """Yield the rows of every data file of an archive; places name both files (`a.zip/b.csv:2`)."""
    with members(seekable(file.stream)) as found:
        if not found:
            problems.bad_file(Problem("E013", file.shown, "no data file in the archive"))
        for member in found:
            yield from read(member, f"{file.shown}/{member.path}", file.source, problems, file.split)
