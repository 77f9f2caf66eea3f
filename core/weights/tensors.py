"""Safetensors without torch: tensors read one at a time, ahead of their use, and files written as a stream.

The library `safetensors` checks the headers: 8 bytes of length (little-endian), a JSON object of names with
dtype, shape and offsets, the bytes of all tensors without holes. No file is loaded whole.
"""

import contextlib
import json
import math
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tuneyard.core.errors import (
    ContentError,
    RequestError,
    describe_os_error,
    show_value,
    unexpected,
    wrong_value,
)
from tuneyard.core.files import Fields, JsonObject, parse_json, read_object, strings
from tuneyard.core.files.bounded_reading import LARGEST_FILE, open_regular
from tuneyard.core.language.message import _, joined

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of an element by dtype: all that the library reads."""
STORED = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
Array = NDArray[np.float32]
Stored = NDArray[np.float64] | NDArray[np.float32] | NDArray[np.float16] | NDArray[np.uint16]
Spec = tuple[str, str, tuple[int, ...]]  # name, dtype, shape
LONGEST_NAME = 1000  # characters of a tensor's name
THREADS = 2
COMPARED_AT_ONCE = 1 << 24  # bytes
PREFETCHED = 3  # results in memory that are not used yet; each may have some tens of MB
Item = TypeVar("Item")
Result = TypeVar("Result")


class Tensor(NamedTuple):
    """One tensor's place: `start` and `stop` are byte offsets from the start of `file`."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


Tensors = dict[str, Tensor]
"""Tensors by their name in a file."""


class Weights(NamedTuple):
    """Tensors still on the disk, in a file whose header was checked, or in those of an index (`path`)."""

    path: Path
    tensors: Tensors

    def read(self, name: str) -> Array:
        """Read a tensor as fp32. `ContentError` if it is no float or has NaN or infinity."""
        tensor = self.tensors[name]
        where = _("{file}: tensor {name!r}", file=tensor.file, name=name)
        try:
            stored = _read(tensor, 0, math.prod(tensor.shape), where).reshape(tensor.shape)
        except OSError as error:
            raise ContentError(_("{place}: {error}", place=where, error=describe_os_error(error))) from error
        values = to_fp32(stored, tensor.dtype)
        require_finite(values, where)
        return values


def blocks_of(tensor: Tensor, elements: int) -> Iterator[tuple[int, Array]]:
    """Yield (first row, rows as fp32 [rows, columns]) of a tensor, some `elements` at a time.

    A vector has one column. `ContentError` if it is no float or has NaN or infinity.
    """
    rows, columns = math.prod(tensor.shape[:1]), math.prod(tensor.shape[1:])
    step = max(elements // max(columns, 1), 1)
    where = _("{file}: tensor {name!r}", file=tensor.file, name=tensor.name)
    for first in range(0, rows, step):
        count = min(step, rows - first) * columns
        values = to_fp32(_read(tensor, first * columns, count, where), tensor.dtype)
        require_finite(values, _("{place} from row {number}", place=where, number=first))
        yield first, values.reshape(-1, columns)


def _read(tensor: Tensor, first: int, count: int, where: str) -> Stored:
    """Read `count` elements from the `first` on without converting: BF16 comes as uint16 bit patterns.

    `where` begins the `ContentError`.
    """
    if tensor.dtype not in STORED:
        raise ContentError(
            _(
                "{place}: dtype {dtype}, expected {names}",
                place=where,
                dtype=tensor.dtype,
                names=joined(STORED, _(" or ")),
            )
        )
    kind = np.dtype(STORED[tensor.dtype])
    flat = np.empty(count, kind)
    with tensor.file.open("rb") as file:  # np.fromfile takes a read that Ctrl-C interrupts for the file's end
        file.seek(tensor.start + first * kind.itemsize)
        if file.readinto(flat.data) != flat.nbytes:
            raise ContentError(_("{file}: the file became shorter while it was read", file=where))
    return flat


def have_equal_bytes(one: Tensor, other: Tensor) -> bool:
    """True if two tensors have the same dtype, shape and bytes, which are read a piece at a time."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    remaining = one.stop - one.start
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.start)
        second.seek(other.start)
        while remaining > 0:
            count = min(remaining, COMPARED_AT_ONCE)
            if first.read(count) != second.read(count):
                return False
            remaining -= count
    return True


def open_weights(path: Path) -> Weights:
    """Read the header of a safetensors file, which the library checks. `ContentError` if it is damaged."""
    from safetensors import SafetensorError, safe_open

    header, start = _read_header(path)
    try:
        with safe_open(path, "numpy"):  # the library's error of any file that it cannot open: it is missing
            pass
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error
    except MemoryError as error:  # the library maps the whole file, which takes addresses and no memory
        raise RequestError(
            _(
                "{path}: found {size:,} bytes, more than this process may map; allow it more: ulimit "
                "-v unlimited",
                path=path,
                size=path.stat().st_size,
            )
        ) from error
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        tensors[name] = Tensor(path, name, entry["dtype"], shape, start + first, start + last)
    return Weights(path, tensors)


def check_headers(folder: Path) -> None:
    """`ContentError` for a damaged weight file of a model, before transformers opens it.

    An index may name fewer tensors than its files have, which transformers takes and `read_shards` does not.
    """
    names = {SINGLE}
    if (folder / INDEX).is_file():
        names.update(strings(read_object(folder / INDEX).get("weight_map")).values())
    for name in sorted(names):
        if (folder / name).is_file():
            open_weights(folder / name)


def _read_header(path: Path) -> tuple[JsonObject, int]:
    """The header of a safetensors file, and the byte at which its tensors begin.

    `ContentError` if the tensors do not end where the file does. The library finds that out, too, once it has
    mapped the file, and a sparse one may be larger than all memory.
    """
    size = path.stat().st_size
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise _damaged(
                path, _("a header of {length:,} bytes in a file of {size:,}", length=length, size=size)
            )
        if length > LARGEST_FILE:
            raise ContentError(
                _(
                    "{path}: found a header of {length:,} bytes, expected {largest_file:,} at most: no "
                    "model has so many tensors",
                    path=path,
                    length=length,
                    largest_file=LARGEST_FILE,
                )
            )
        header = parse_json(file.read(length), path)
    if not isinstance(header, dict):
        raise wrong_value(path, header, _("a JSON object as the header"))
    start = end = 8 + length
    for name, entry in header.items():
        if len(name) > LONGEST_NAME:
            raise ContentError(
                _(
                    "{path}: found a tensor's name of {length:,} characters, {begin}; expected "
                    "{most:,} at most; copy the file again",
                    path=path,
                    length=len(name),
                    begin=show_value(name),
                    most=LONGEST_NAME,
                )
            )
        if not isinstance(entry, dict):  # the library takes a list, too
            raise unexpected(path, _("tensor {name!r}", name=name), entry, _("an object"))
        offsets = entry.get("data_offsets")
        if isinstance(offsets, list) and len(offsets) == 2 and type(offsets[1]) is int:
            end = max(end, start + offsets[1])
    if end != size:
        raise _damaged(path, _("found {size:,} bytes, and its header describes {end:,}", size=size, end=end))
    return header, start


def _damaged(path: Path, reason: str) -> ContentError:
    return ContentError(
        _("{path}: damaged or truncated safetensors: {reason}; copy it again", path=path, reason=reason)
    )


Shards = dict[str, Weights]
"""Weight files by their name."""


def tensors_of(shards: Shards) -> Tensors:
    """The tensors of several files by name."""
    tensors: Tensors = {}
    for shard in shards.values():
        tensors |= shard.tensors
    return tensors


def open_shards(folder: Path) -> Shards:
    """Open the weight files of a model folder by name; `RequestError` if it has none in safetensors."""
    if (folder / INDEX).is_file():
        return read_shards(folder / INDEX)
    if (folder / SINGLE).is_file():
        return {SINGLE: open_weights(folder / SINGLE)}
    raise RequestError(
        _(
            "{folder}: neither {single} nor {index}; a model in pickle files must be saved as safetensors "
            "first",
            folder=folder,
            single=SINGLE,
            index=INDEX,
        )
    )


def read_shards(index: Path) -> Shards:
    """Open the files that a safetensors index names, by name. `ContentError` if index and files disagree."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise unexpected(index, "weight_map", places, _("names with their files"))
    for place in places.values():
        if not isinstance(place, str) or Path(place).name != place or not place.endswith(".safetensors"):
            raise ContentError(
                _(
                    "{index}: file {place}: expected a .safetensors name without folders",
                    index=index,
                    place=show_value(place),
                )
            )
    announced_by_file: dict[str, set[str]] = {}
    for name, place in places.items():
        announced_by_file.setdefault(place, set()).add(name)
    shards = {}
    for file, announced in sorted(announced_by_file.items()):
        path = index.parent / file
        if not path.is_file():
            raise RequestError(
                _(
                    "{index}: it names {path}, which is missing; download or copy it again",
                    index=index,
                    path=path,
                )
            )
        shard = shards[file] = open_weights(path)
        if announced != shard.tensors.keys():
            name = min(announced ^ shard.tensors.keys())
            where = _("the index") if name in announced else _("the file")
            raise ContentError(
                _(
                    "{index}: {file}: tensor {name!r} is only in {where}",
                    index=index,
                    file=file,
                    name=name,
                    where=where,
                )
            )
    return shards


def require_finite(values: Array, where: str) -> None:
    """Raise `ContentError` naming the first NaN or infinity of an array; `where` opens the message."""
    finite = np.isfinite(values)
    if not finite.all():
        index = list(map(int, np.unravel_index(np.argmin(finite), values.shape)))
        count = values.size - np.count_nonzero(finite)
        raise ContentError(
            _(
                "{place}: {number} values are NaN or infinite, the first at {index}",
                place=where,
                number=count,
                index=index,
            )
        )


def to_fp32(values: Stored, dtype: str) -> Array:
    """Convert stored values to fp32: exact for F32, F16 and BF16, rounded to nearest for F64."""
    if dtype == "BF16":
        bits = values.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def from_fp32(values: Array, dtype: str) -> Stored:
    """Round fp32 to `dtype`, to nearest and ties to even (IEEE 754); BF16 comes as uint16 bit patterns."""
    if dtype != "BF16":
        with np.errstate(over="ignore"):
            return values.astype(STORED[dtype], copy=False)
    values = np.ascontiguousarray(values, np.float32)
    bits = values.view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    stored = rounded.astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():  # rounding a NaN's bits could carry it into infinity or zero
        stored[nan] = (bits[nan] >> 16).astype(np.uint16) | 0x40
    return stored


def data_bytes(dtype: str, shape: Sequence[int]) -> int:
    """The bytes of a tensor's elements."""
    return math.prod(shape) * BITS[dtype] // 8


def header_bytes(tensors: Iterable[Spec]) -> bytes:
    """Header of a safetensors file with these tensors in this order, padded to 8 bytes.

    Its metadata name the format of PyTorch, without which transformers refuses the file.
    """
    header: Fields = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape in tensors:
        stop = position + data_bytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write_weights(path: Path, tensors: Sequence[Spec], values: Iterable[Array]) -> None:
    """Write a new safetensors file from fp32 arrays that come one by one in the order of `tensors`.

    Each array is rounded to its dtype. `ContentError` if a value is out of its range (fp16: 65,504). The
    file is not synced: `publish` syncs its folder.
    """
    with path.open("xb") as file:
        file.write(header_bytes(tensors))
        for (name, dtype, shape), array in zip(tensors, values, strict=True):
            if array.shape != shape:
                raise ValueError(
                    _(
                        "{name}: array of shape {shape}, announced as {announced}",
                        name=name,
                        shape=array.shape,
                        announced=shape,
                    )
                )
            stored = from_fp32(array, dtype)
            require_finite(
                to_fp32(stored, dtype), _("{name}: after rounding to {dtype}", name=name, dtype=dtype)
            )
            file.write(np.ascontiguousarray(stored).data)


@contextlib.contextmanager
def workers(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Pool of threads. Leaving the context, with an error or without, cancels jobs that have not begun."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def prefetch(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """Yield `work(item)` of each item in order, computed up to `PREFETCHED` items ahead.

    Reading, BLAS and hashing release the interpreter's lock, so that they go on while a result is used.
    Close it if you may leave early: the garbage collector may close it in a thread that is just starting,
    and joining threads there never ends.
    """
    waiting: deque[Future[Result]] = deque()
    with workers(THREADS) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > PREFETCHED:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
