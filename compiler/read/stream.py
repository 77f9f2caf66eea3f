"""Opens a file of any compression and encoding as a stream of UTF-8 bytes."""

import codecs
import contextlib
import gzip
import io
import shutil
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

from tuneyard.compiler.read.remote import RemoteFile
from tuneyard.compiler.rows.problems import UnreadableFileError
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import Moved
from tuneyard.core.files.bounded_reading import LARGEST_RECORD, LARGEST_RUN, MOST_PACKED, UNPACKED
from tuneyard.core.language.message import _

NOT_TEXT = ProblemCode(
    "E001",
    _("bytes that are not text in the encoding"),
    _("Name the encoding under `source:` (`encoding: gb18030`), or repair the bytes."),
)
DAMAGED_ARCHIVE = ProblemCode(
    "E004",
    _("a compressed file that is damaged or cut off"),
    _("Get the file again."),
)
LARGE_RECORD = ProblemCode(
    "E014",
    _("a record that is too large"),
    _("Look for an open quote in a csv; name one JSON document `.json`."),
)
LARGE_CONTENT = ProblemCode(
    "E015",
    _("a small file that unpacks to too much"),
    _("Ask its author for the original, or write it again with the defaults of its software."),
    _("Zeros, nulls or one row take over 1,000 times its size, or a page takes over 1 GiB."),
)


GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
NO_TEXT = {
    b"\x89PNG": _("a picture (PNG)"),
    b"\xff\xd8\xff": _("a picture (JPEG)"),
    b"%PDF-": "a PDF",
    b"PK\x03\x04": _("an Excel workbook (.xlsx) or a zip archive (.zip)"),
    b"\xd0\xcf\x11\xe0": _("a workbook or document of old Office"),
}
"""Formats that are no text, by the first bytes of their files."""
BLOCK = 1 << 17
AHEAD = 1 << 20  # bytes: each read gives up the interpreter lock, and waits for it where rows are written
BAR_AFTER = 2.0  # seconds
MOST_MIB = LARGEST_RECORD >> 20
TOO_LONG = _("found a record of more than {most_mib} MiB, expected {most_mib} MiB at most", most_mib=MOST_MIB)
SHORTEN = _("shorten it, or take it out")
NO_ROWS = _(
    "such files have zeros or the same row in place of data: get it from its author, or unpack it yourself"
)


class TooLongError(Exception):
    """A line of more than `LARGEST_RECORD` bytes."""


GET_AGAIN = _("get the file again")


CUT_OFF = _("the file is cut off inside a character")


def encoding_hint(guess: str) -> str:
    """The edit of the spec for a file in another encoding."""
    return _("name it in a spec under `source:`, such as `encoding: {guess}`", guess=guess)


class Member(NamedTuple):
    """A file inside an archive, which `zipfile.Path` may look for without an end."""

    archive: zipfile.ZipFile
    path: str

    def __str__(self) -> str:
        return f"{self.archive.filename}/{self.path}"

    @property
    def name(self) -> str:
        """The file name without its folders."""
        return PurePosixPath(self.path).name


Readable = Path | RemoteFile | Member
"""A source of bytes."""


def suffix(path: Readable) -> str:
    """The suffix that names the file format, without .gz or .zst, in lower case."""
    return _suffix_of(path.name)


@lru_cache(1000)  # each file is asked some twenty times
def _suffix_of(file_name: str) -> str:
    name = PurePath(file_name)
    inner = name.with_suffix("") if name.suffix.lower() in (".gz", ".zst") else name
    return inner.suffix.lower()


def stored_size(path: Readable) -> int:
    """The bytes of a source file on its disk or store, or packed in its archive."""
    if isinstance(path, RemoteFile):
        return path.size
    if isinstance(path, Member):
        return path.archive.getinfo(path.path).compress_size
    return path.stat().st_size


class _Unpacked(io.RawIOBase):
    """The bytes of a compressed file. `UnreadableFileError` once they are far more than the file has.

    Those of a binary file (not `in_order`) go to a temporary file, which may fill the disk.
    """

    def __init__(self, stream: Any, stored: int, *, in_order: bool) -> None:
        self._stream = stream
        self._stored = stored
        self._in_order = in_order
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self._stream.readinto(buffer))
        self._size += count
        most = MOST_PACKED if self._in_order else UNPACKED
        if self._size > LARGEST_RUN and self._size > most * self._stored:
            raise self._too_large(most)
        return count

    def _too_large(self, most: int) -> UnreadableFileError:
        return UnreadableFileError(
            LARGE_CONTENT,
            _(
                "found {size:,} MiB unpacked from {stored:,} bytes, expected {most:,} times its size at most",
                size=self._size >> 20,
                stored=self._stored,
                most=most,
            ),
            NO_ROWS,
        )


@contextlib.contextmanager
def progress_bar(paths: Iterable[Readable]) -> Iterator[Moved | None]:
    """Show a bar over the bytes of these files once two seconds have passed. Yields what moves it.

    The seconds are of CPU time, and begin with the process: `data init` looks at a file before it is tried.
    Yields None without a terminal.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    total = sum(map(stored_size, paths))
    delay = max(BAR_AFTER - time.process_time(), 0)
    with tqdm(desc="reading", total=total, unit="B", unit_scale=True, leave=False, delay=delay) as bar:
        yield bar.update


@contextlib.contextmanager
def opened(
    path: Readable, encoding: str, *, in_order: bool = True, moved: Moved | None = None
) -> Iterator[io.BufferedReader]:
    """Open a file as UTF-8 bytes without byte-order mark; raises `UnreadableFileError`.

    `in_order` is false for a reader that jumps to and fro in a binary file. `moved` gets the
    numbers of bytes read.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(path, RemoteFile):
            raw: Any = path.open(in_order=in_order)
        elif isinstance(path, Member):
            raw = _Unpacked(
                stack.enter_context(path.archive.open(path.path)), stored_size(path), in_order=in_order
            )
        else:
            raw = path.open("rb", 0)
        stream: io.BufferedReader = io.BufferedReader(stack.enter_context(raw), AHEAD)
        if moved:
            from tqdm.utils import CallbackIOWrapper

            stream = cast("io.BufferedReader", CallbackIOWrapper(moved, stream))
        magic = stream.peek(4)
        if magic.startswith(GZIP):
            unpacked: Any = gzip.GzipFile(fileobj=stream)
            stream = io.BufferedReader(_Unpacked(unpacked, stored_size(path), in_order=in_order), AHEAD)
        elif magic.startswith(ZSTD):
            from pyarrow import CompressedInputStream

            unpacked = io.BufferedReader(CompressedInputStream(stream, "zstd"), AHEAD)
            stream = io.BufferedReader(_Unpacked(unpacked, stored_size(path), in_order=in_order), AHEAD)
        with _damage(), _decoding(encoding):
            start = stream.peek(8)
            for sign, name in NO_TEXT.items():
                if in_order and start.startswith(sign):
                    fix = _("give it the ending of its format, or name a file of rows")
                    raise UnreadableFileError(
                        NOT_TEXT, _("not text: by its first bytes it is {name}", name=name), fix
                    )
            if codecs.lookup(encoding).name != "utf-8":
                from pyarrow import PythonFile, transcoding_input_stream

                recoded = transcoding_input_stream(PythonFile(stream, "r"), encoding, "utf-8")
                stream = io.BufferedReader(recoded, AHEAD)
            elif start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                message = _("not UTF-8: its byte-order mark says UTF-16")
                raise UnreadableFileError(NOT_TEXT, message, encoding_hint("utf-16"))
            if stream.peek(1).startswith(codecs.BOM_UTF8):
                stream.read(len(codecs.BOM_UTF8))
            yield stream


def seekable(stream: io.BufferedReader) -> BinaryIO:
    """A stream with the same bytes that can be read in any order: a temporary file if necessary."""
    if stream.seekable():
        return stream
    file = tempfile.TemporaryFile()  # noqa: SIM115  # goes with the reader that holds it
    with _damage():
        shutil.copyfileobj(stream, file)
    return file


def undecodable(data: bytes, location: str) -> Problem | None:
    """E001 for a row that is not UTF-8 or is cut off inside a character, None for any other row."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.end == len(data):
            return Problem(NOT_TEXT, location, CUT_OFF, hint=GET_AGAIN)
        fix = _(
            "correct the row, save the file as UTF-8, or name the encoding in a spec under `source:`, "
            "such as `encoding: cp1252` or `encoding: gb18030`: `tuneyard data init` looks for it in the "
            "first 16 MiB"
        )
        message = _(
            "not UTF-8: 0x{byte:02x} at byte {position} of the row",
            byte=data[error.start],
            position=error.start + 1,
        )
        return Problem(NOT_TEXT, location, message, hint=fix)
    return None


def too_long(location: str, hint: str = SHORTEN) -> UnreadableFileError:
    """E014 for a record of more than `LARGEST_RECORD` bytes."""
    return UnreadableFileError(LARGE_RECORD, TOO_LONG, hint, location)


def blocks(stream: io.BufferedReader) -> Iterator[bytes]:
    """The bytes of a stream, some at a time."""
    return iter(partial(stream.read, BLOCK), b"")


def whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes, cut where lines end; `TooLongError` at one above `LARGEST_RECORD`."""
    rest = b""
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if len(rest) + (chunk.find(b"\n") if cut else len(chunk)) > LARGEST_RECORD:
            raise TooLongError
        if cut:
            yield rest + chunk[:cut]
        rest = chunk[cut:] if cut else rest + chunk
    if rest:
        yield rest


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of the contents
            raise
        message = _("the compressed file is damaged or cut off: {error}", error=error)
        raise UnreadableFileError(DAMAGED_ARCHIVE, message, GET_AGAIN) from error


@contextlib.contextmanager
def _decoding(encoding: str) -> Iterator[None]:
    """Name the byte that is not in the encoding of a file."""
    try:
        yield
    except UnicodeDecodeError as error:
        if error.start == 0 and error.end == len(error.object):  # what is left over at the end
            raise UnreadableFileError(NOT_TEXT, CUT_OFF, GET_AGAIN) from error
        message = _(
            "not {encoding}: byte 0x{byte:02x}: {reason}",
            encoding=encoding,
            byte=error.object[error.start],
            reason=error.reason,
        )
        raise UnreadableFileError(NOT_TEXT, message, encoding_hint("utf-8")) from error
    except UnicodeError as error:  # no byte-order mark; half of a character in UTF-7
        guess = f"{encoding}-le" if "BOM" in str(error) else "utf-8"
        raise UnreadableFileError(
            NOT_TEXT, _("not {encoding}: {error}", encoding=encoding, error=error), encoding_hint(guess)
        ) from error
