"""A .zip of data files, which are read one by one, sorted by name."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from tuneyard.compiler.read import OpenFile, is_no_data, read, reader, readers, without_texts
from tuneyard.compiler.read.archives import opened_archive
from tuneyard.compiler.read.saved import INDEX, STATE
from tuneyard.compiler.read.stream import DAMAGED_ARCHIVE, Member, Readable, opened, seekable, suffix
from tuneyard.compiler.rows import Rows
from tuneyard.compiler.rows.problem_codes import NO_ROWS, UNREADABLE_TABLE
from tuneyard.compiler.rows.problems import Problems, UnreadableFileError
from tuneyard.core.language.message import _


@contextlib.contextmanager
def members(file: Path | BinaryIO) -> Iterator[list[Member]]:
    """The data files of an archive, as of a folder. `UnreadableFileError` for an archive inside."""
    with opened_archive(file) as archive:
        files: list[Member] = []
        for path in sorted(archive.namelist()):
            member = Member(archive, path)
            if suffix(member) in readers() and not (path.endswith("/") or is_no_data(member.name)):
                if suffix(member) == ".zip":
                    raise UnreadableFileError(
                        DAMAGED_ARCHIVE,
                        _("it contains the archive {path}", path=path),
                        _("unpack it, and give the folder"),
                    )
                files.append(member)
        yield without_texts(files)


def member_paths(path: Readable) -> list[str]:
    """The paths of the data files of an archive. `UnreadableFileError` if it cannot be read."""
    with opened(path, "utf-8", in_order=False) as stream, members(seekable(stream)) as data_members:
        _refuse_saved(data_members)
        return [member.path for member in data_members]


def _refuse_saved(data_members: Sequence[Member]) -> None:
    """`UnreadableFileError` for an archive of a dataset that `save_to_disk` wrote."""
    for member in data_members:
        if member.name in (STATE, INDEX):
            message = _("the archive contains {path}, a dataset that `save_to_disk` wrote", path=member.path)
            raise UnreadableFileError(
                UNREADABLE_TABLE, message, _("unpack the archive and give the folder as --source")
            )


@reader(".zip", text=False)
def read_zip(file: OpenFile, problems: Problems) -> Iterator[Rows]:
    """Yield the rows of the data files of an archive; locations name both files (`a.zip/b.csv:2`)."""
    with members(seekable(file.stream)) as data_members:
        if not data_members:
            raise UnreadableFileError(NO_ROWS, _("no data file in the archive"))
        _refuse_saved(data_members)
        for member in data_members:
            if file.names and member.path not in file.names:
                continue
            display_path = f"{file.display_path}/{member.path}"
            yield from read(member, display_path, file.source, problems, file.split)
