"""A file as a stream of UTF-8 bytes, whatever its compression and encoding."""

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import BinaryIO, Literal, Protocol, cast

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
BLOCK = 1 << 17


class DamagedError(Exception):
    """A compressed file ends too early or is broken inside."""


class NotTextError(Exception):
    """Bytes that are not text in the encoding; `guess` is one to try."""

    def __init__(self, message: str, guess: str = "gb18030") -> None:
        super().__init__(message)
        self.guess = guess


class Readable(Protocol):
    """What bytes are read from: a path, or a file of the hub."""

    @property
    def name(self) -> str:
        """The file's name without its folders."""

    def open(self, mode: Literal["rb"], buffering: Literal[0]) -> io.RawIOBase:
        """Return its bytes as an unbuffered stream."""


def suffix(path: Readable) -> str:
    """Return the suffix that tells the kind of file, without .gz or .zst, in lower case."""
    name = PurePath(path.name)
    inner = name.with_suffix("") if name.suffix.lower() in (".gz", ".zst") else name
    return inner.suffix.lower()


@contextlib.contextmanager
def opened(path: Readable, encoding: str) -> Iterator[io.BufferedReader]:
    """Open a file as UTF-8 bytes without byte-order mark; raises `DamagedError` and `NotTextError`."""
    with contextlib.ExitStack() as stack:
        stream = _buffered(stack.enter_context(path.open("rb", buffering=0)))
        magic = stream.peek(4)[:4]
        if magic.startswith(GZIP):
            stream = _buffered(gzip.GzipFile(fileobj=stream))
        elif magic == ZSTD:
            stream = _buffered(_Unzstd(stream))
        with _damage():
            if codecs.lookup(encoding).name != "utf-8":
                stream = _buffered(_Recoded(stream, encoding))
            else:
                _skip_mark(stream)
            yield stream


def _buffered(raw: object) -> io.BufferedReader:
    return io.BufferedReader(cast("io.RawIOBase", raw), BLOCK)


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DamagedError(f"the compressed file is damaged or cut off: {error}") from error


def _skip_mark(stream: io.BufferedReader) -> None:
    start = stream.peek(4)[:4]
    if start.startswith(codecs.BOM_UTF8):
        stream.read(3)
    guess = next((name for mark, name in BOMS.items() if start.startswith(mark)), None)
    if guess:
        raise NotTextError(f"not UTF-8: its byte-order mark says {guess.upper()}", guess)


class _Unzstd(io.RawIOBase):
    """Decompressed bytes of a Zstandard file of one frame or several; a cut one raises `DamagedError`."""

    def __init__(self, source: BinaryIO) -> None:
        import zstandard

        self._source = source
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._frame = self._new()
        self._error = zstandard.ZstdError
        self._fresh = True
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer))
        while not self._ready:
            chunk = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._fresh = self._new(), True
            chunk = chunk or self._source.read(BLOCK)
            if not chunk:
                if not self._fresh:
                    raise DamagedError("the compressed file is cut off")
                return 0
            try:
                self._ready = self._frame.decompress(chunk)
            except self._error as error:
                raise DamagedError(f"the compressed file is damaged: {error}") from error
            self._fresh = False
        size = min(len(view), len(self._ready))
        view[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


class _Recoded(io.RawIOBase):
    """UTF-8 bytes of a file in another encoding; undecodable ones raise `NotTextError` with their place."""

    def __init__(self, source: BinaryIO, encoding: str) -> None:
        self._source = source
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._offset = 0
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer))
        while not self._ready and not self._ended:
            chunk = self._source.read(BLOCK)
            self._ended = not chunk
            held = len(self._decoder.getstate()[0])
            try:
                text = self._decoder.decode(chunk, final=self._ended)
            except UnicodeDecodeError as error:
                where = self._offset - held + error.start
                raise NotTextError(f"not {self._encoding}: byte {where}: {error.reason}") from error
            self._offset += len(chunk)
            self._ready = text.removeprefix("\ufeff").encode()
        size = min(len(view), len(self._ready))
        view[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size
