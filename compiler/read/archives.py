"""Zip archives: the bytes of each member are its own, and no two members have one name."""

import contextlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tuneyard.compiler.read.stream import DAMAGED_ARCHIVE, GET_AGAIN
from tuneyard.compiler.rows.problems import UnreadableFileError
from tuneyard.core.language.message import _

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What `zipfile` raises for a damaged, cut, encrypted or unknown archive, also while a member is read."""


@contextlib.contextmanager
def opened_archive(
    file: Path | BinaryIO, code: str = DAMAGED_ARCHIVE, kind: str = "archive"
) -> Iterator[zipfile.ZipFile]:
    """Open an archive. `UnreadableFileError` if members share bytes or a name, or for damage."""
    try:
        with zipfile.ZipFile(file) as archive:
            _refuse_overlaps(archive, code)
            _refuse_same_names(archive, code)
            yield archive
    except DAMAGE as error:
        raise UnreadableFileError(
            code, _("the {kind} cannot be read: {error}", kind=kind, error=error), GET_AGAIN
        ) from error


def _refuse_overlaps(archive: zipfile.ZipFile, code: str) -> None:
    """A few megabytes decode to petabytes if all members have the same bytes (Fifield 2019)."""
    end = 0
    previous = ""
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        if member.header_offset < end:
            message = _(
                "its members {first} and {second} share bytes",
                first=previous,
                second=member.filename,
            )
            raise UnreadableFileError(code, message, GET_AGAIN)
        end = member.header_offset + member.compress_size
        previous = member.filename


def _refuse_same_names(archive: zipfile.ZipFile, code: str) -> None:
    for path, count in Counter(archive.namelist()).items():
        if count > 1:
            raise UnreadableFileError(
                code,
                _("it contains {path} twice, of which only one could be read", path=path),
                _("unpack it, and give both files names of their own"),
            )
