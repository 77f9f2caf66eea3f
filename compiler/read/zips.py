"""A .zip of data files: each is read as it would be by itself, in the order of their names."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, cast

from compiler.problems import Problems
from compiler.read import OpenFile, read, reader, readers
from compiler.read.stream import DamagedError, seekable, suffix
from compiler.rows import Rows
from core.errors import Problem


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive, opened as its bytes."""

    archive: zipfile.ZipFile
    path: str

    @property
    def name(self) -> str:
        """The file's name without its folders."""
        return PurePosixPath(self.path).name

    def open(self, mode: Literal["rb"], buffering: Literal[0]) -> io.RawIOBase:
        """Return its bytes, unpacked as they are read."""
        del mode, buffering  # as a Path is opened, and there is no other way
        return cast("io.RawIOBase", self.archive.open(self.path))


def members(archive: zipfile.ZipFile) -> list[Member]:
    """Return the data files of an archive; hidden ones, other kinds and archives inside are none."""
    names = sorted(entry.filename for entry in archive.infolist() if not entry.is_dir())
    found = [Member(archive, name) for name in names if "__MACOSX" not in name]
    kinds = readers().keys() - {".zip"}
    return [one for one in found if suffix(one) in kinds and not one.name.startswith(".")]


@reader(".zip", text=False)
def read_zip(file: OpenFile, problems: Problems) -> Iterator[Rows]:
    """Yield the rows of every data file of an archive; places name both files (`a.zip/b.csv:2`)."""
    try:
        with zipfile.ZipFile(seekable(file.stream)) as archive:
            found = members(archive)
            if not found:
                problems.bad_file(Problem("E013", file.shown, "no data file in the archive"))
            for member in found:
                shown = f"{file.shown}/{member.path}"
                yield from read(member, shown, file.source, problems, file.split)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DamagedError(f"the archive cannot be read: {error}") from error
