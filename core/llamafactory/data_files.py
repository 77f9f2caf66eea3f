"""Check that a data file is bounded, before LLaMA-Factory's loader reads it.

The loader unpacks a row group of Parquet whole, and any archive, whatever it is called. From JSON it makes a
cell for each row and each key that one of the rows has.
"""

import csv
import glob
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneyard.core.files import files_of
from tuneyard.core.files.bounded_columns import arrow_batches, decoded_size, parquet_batches, record_slices
from tuneyard.core.files.bounded_reading import (
    BLOCK,
    LARGEST_RECORD,
    LargeDataError,
    UnboundedError,
    large_part,
    large_record,
    lines_of,
    most_unpacked,
    open_regular,
    refuse_expansion,
    refuse_pipe,
)
from tuneyard.core.language.message import _, relative

DISK_BLOCK = 512  # bytes of `st_blocks`
ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"PK": "zip",
    b"\xfd7zXZ\0": "xz",
    b"Rar!\x1a\x07": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x04\x22\x4d\x18": "lz4",
}
"""The formats that `datasets` unpacks, by the first bytes of their files."""
MOST_KEYS = 1_000_000  # of all objects of a file: each becomes a column
COMPILE = _("compile it with `tuneyard data init`, which reads it in parts")
_BOUNDED: set[tuple[object, ...]] = set()
"""Files that are within the limits: path, size and time."""


def check_data_files(path: Path) -> None:
    """`UnboundedError` for a file or folder of an entry that LLaMA-Factory's loader must not be given.

    A file in a format that it does not read is no error here: the loader refuses it by its name.
    """
    files = files_of(path)
    for file in tuple(files):
        files += map(Path, glob.glob(str(file), recursive=True))  # noqa: PTH207  # datasets does so
    for file in dict.fromkeys(files):
        if not file.is_file():
            refuse_pipe(file)
            continue
        state = file.stat()
        stamp = (file.absolute(), files[0].suffix, state.st_size, state.st_mtime_ns)
        if stamp in _BOUNDED:
            continue
        try:
            _refuse_archive(file)
            check = CHECKS.get(files[0].suffix)
            if check:
                check(file, state.st_size)
        except LargeDataError as error:
            place = relative(file)
            if error.place:
                place = _("{path} {place}", path=file, place=error.place)
            raise UnboundedError(
                _("{place}: {reason}; {fix}", place=place, reason=error.message, fix=COMPILE)
            ) from error
        _BOUNDED.add(stamp)


def _refuse_archive(path: Path) -> None:
    """`UnboundedError` for an archive or a compressed file, whatever it is called."""
    with open_regular(path) as file:
        begin = file.read(tarfile.BLOCKSIZE)
    kind = ""
    for magic, name in ARCHIVES.items():
        if begin.startswith(magic):
            kind = name
    if not kind and zipfile.is_zipfile(path):  # data before an archive
        kind = "zip"
    if not kind and _is_tar_header(begin):
        kind = "tar"
    if kind:
        raise UnboundedError(
            _(
                "{path}: found a file that is packed as {kind}, expected {suffix}: unpack it, or {fix}",
                path=path,
                kind=kind,
                suffix=path.suffix or _("rows"),
                fix=COMPILE,
            )
        )


def _is_tar_header(block: bytes) -> bool:
    """True for the first block of an archive. `tarfile.is_tarfile` would read as much as the block says."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _check_parquet(path: Path, stored: int) -> None:
    with open_regular(path) as file:
        _check_batches(path, stored, parquet_batches, file)


def _check_arrow(path: Path, stored: int) -> None:
    with open_regular(path) as file:
        _check_batches(path, stored, arrow_batches, file)


def _check_batches(path: Path, stored: int, batches_of: Callable[[Any], Any], file: Any) -> None:
    """`LargeDataError` for rows that unpack to too much, `UnboundedError` for a broken file."""
    import pyarrow

    on_disk = DISK_BLOCK * path.stat().st_blocks or stored  # 0 if it is still being written
    most = most_unpacked(min(on_disk, stored))
    rows = size = 0
    try:
        _unused, batches = batches_of(file)
        for batch in batches:
            for part in record_slices(batch, rows + 1):
                rows += part.num_rows
                size += decoded_size(part)
                if size > most:
                    raise large_part(_("{count:,} rows", count=rows), size, most)
    except LargeDataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of the contents
            raise
        kind = path.suffix[1:].capitalize()
        reason = str(error).splitlines()[0]
        raise UnboundedError(
            _(
                "{path} row {number}: {kind} cannot be read: {reason}; export the file again",
                path=path,
                number=rows + 1,
                kind=kind,
                reason=reason,
            )
        ) from error


def _check_json(path: Path, stored: int) -> None:
    """Count the objects and the different keys: each object gets a cell for each key.

    A gap of the file is a text, or a distance between two of them, of more than `LARGEST_RECORD`.
    """
    objects = outside = 0
    keys: set[bytes] = set()
    open_text = b""
    with open_regular(path) as file:
        while block := file.read(max(BLOCK, len(open_text))):
            window = open_text + block
            parts = window.replace(b"\\\\", b"__").replace(b'\\"', b"__").split(b'"')
            is_open = len(parts) % 2 == 0
            open_text = window[-len(parts[-1]) - 1 :] if is_open else b""
            outside = outside + len(parts[0]) if len(parts) == 1 else len(parts[-1])
            if max(len(open_text), outside) > LARGEST_RECORD:
                place = _("byte {number:,}", number=file.tell() - max(len(open_text), outside) + 1)
                raise large_record(place)
            for text, after in zip(parts[1::2], parts[2::2], strict=False):
                if after.lstrip().startswith(b":"):
                    keys.add(text)
            objects += sum(part.count(b"{") for part in parts[::2])
            if len(keys) > MOST_KEYS:
                raise LargeDataError(
                    _(
                        "found {number:,} different keys, expected {most:,} at most",
                        number=len(keys),
                        most=MOST_KEYS,
                    )
                )
    refuse_expansion(objects, objects * len(keys), 0, stored)


def _check_csv(path: Path, stored: int) -> None:
    """A row gets a cell for each name of the header, and for each cell of the first row."""
    csv.field_size_limit(LARGEST_RECORD)  # of the whole process, as other readers set it
    with open_regular(path) as file:
        begin = file.read(LARGEST_RECORD).decode("utf-8", "replace")
    width = filled = 0
    try:
        for cells in csv.reader(io.StringIO(begin, newline=None)):
            if filled == 2:
                break
            if len(cells) > 1 or any(map(str.strip, cells)):
                filled += 1
                width = max(width, len(cells))
    except csv.Error as error:
        raise UnboundedError(
            _("{path}: not CSV: {reason}; save it again", path=path, reason=error)
        ) from error
    rows = 0
    for _unused, line in lines_of(path):
        rows += 1 + line.count(b"\r", 0, -2)
    refuse_expansion(rows, rows * width, 0, stored)


def _check_text(path: Path, stored: int) -> None:
    rows = sum(1 for _unused in lines_of(path))
    refuse_expansion(rows, 0, 0, stored)


CHECKS: dict[str, Callable[[Path, int], None]] = {
    ".arrow": _check_arrow,
    ".csv": _check_csv,
    ".json": _check_json,
    ".jsonl": _check_json,
    ".parquet": _check_parquet,
    ".txt": _check_text,
}
"""By the suffix of a file: LLaMA-Factory takes the format of a folder from its first file."""
