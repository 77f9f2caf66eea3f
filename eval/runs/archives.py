"""Zip archives of other tools' logs: every member is read within bounds, whatever the archive claims.

inspect compresses members with Zstandard, which Python's zipfile reads from 3.14 on.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tuneyard.core.errors import ContentError
from tuneyard.core.files import parse_json
from tuneyard.core.files.bounded_reading import LARGEST_FILE
from tuneyard.core.language.message import _, relative

LARGEST_MEMBER = LARGEST_FILE  # bytes: a sample with all of its messages and events
LARGEST_TOTAL = 1 << 32
ZSTANDARD = 93
LOCAL_HEADER = struct.Struct("<26xHH")  # the lengths of name and extra field, before the bytes of a member


def member_names(path: Path) -> list[str]:
    """The paths of the members. `ContentError` if the file is no zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return list(dict.fromkeys(archive.namelist()))
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # also a name that is no UTF-8
        raise _damaged(relative(path), error) from error


def json_members(path: Path, names: list[str]) -> Iterator[tuple[str, object]]:
    """The place and the JSON value of each named member; of two with one name the last one.

    `ContentError` for damage, and for members beyond `LARGEST_MEMBER` or `LARGEST_TOTAL` bytes.
    """
    total = 0
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for name in names:
            place = f"{relative(path)}/{name}"
            try:
                content = _content(place, archive.getinfo(name), archive, file)
            except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, struct.error) as error:
                raise _damaged(place, error) from error
            total += len(content)
            if total > LARGEST_TOTAL:
                raise ContentError(
                    _(
                        "{path}: more than {size} GiB in its files, expected less; score fewer examples in "
                        "one log",
                        path=path,
                        size=LARGEST_TOTAL >> 30,
                    )
                )
            yield place, parse_json(content, place)


def _content(place: str, info: zipfile.ZipInfo, archive: zipfile.ZipFile, file: BinaryIO) -> bytes:
    """The bytes of a member. `ContentError` if they are more than `LARGEST_MEMBER`, packed or not."""
    if info.compress_size > LARGEST_MEMBER:
        raise _too_large(place)
    if info.compress_type == ZSTANDARD:
        content = _unpacked(info, file)
    else:
        with archive.open(info) as stream:
            content = stream.read(LARGEST_MEMBER + 1)
    if len(content) > LARGEST_MEMBER:
        raise _too_large(place)
    if zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile(_("its checksum is another one"))
    return content


def _unpacked(info: zipfile.ZipInfo, file: BinaryIO) -> bytes:
    """The bytes of a member of Zstandard, at most one more than `LARGEST_MEMBER`."""
    from pyarrow import CompressedInputStream, PythonFile

    file.seek(info.header_offset)
    name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
    file.seek(name_length + extra_length, io.SEEK_CUR)
    packed = io.BytesIO(file.read(info.compress_size))
    with CompressedInputStream(PythonFile(packed, "r"), "zstd") as stream:
        content: bytes = stream.read(LARGEST_MEMBER + 1)
        return content


def _too_large(place: str) -> ContentError:
    return ContentError(
        _(
            "{place}: more than {size} MiB, which no sample of a log has",
            place=place,
            size=LARGEST_MEMBER >> 20,
        )
    )


def _damaged(place: str, error: Exception) -> ContentError:
    return ContentError(
        _("{place}: not a zip archive, or damaged: {error}; copy the file again", place=place, error=error)
    )
