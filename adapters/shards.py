"""The weight files of a model that is written anew: which tensors go where, copied or computed.

Tensors that nothing touches are copied by the kernel from file to file (copy_file_range(2)),
neighbours in one piece; only what changes passes through memory.
"""

import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapters.base import INDEX, SINGLE, Base
from core.errors import ContentError
from core.files import flush_soon, write_json
from core.weights import SIZES, Stored, Tensor, header_bytes

COPIED_AT_ONCE = 1 << 26
NO_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
Blocks = Iterator[Stored]


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor to write: its name, dtype and shape, and the tensor of the base that it comes from."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: Tensor
    file: Path

    @property
    def bytes(self) -> int:
        """Size in the written file."""
        return math.prod(self.shape) * SIZES[self.dtype]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file to write."""

    name: str
    pieces: list[Piece]

    @property
    def bytes(self) -> int:
        """Size of its tensors."""
        return sum(piece.bytes for piece in self.pieces)


def pieces_of(
    base: Base, dtype: str | None, copies: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, list[Piece]]:
    """Return the tensors of each base shard in file order; `shapes` are those that another shape gets.

    `dtype` converts all floats (None keeps each); `copies` {new name: stored name} adds a tensor
    of its own right behind the one that it was tied to.
    """
    found: dict[str, list[Piece]] = {}
    for file, shard in base.shards.items():
        found[file] = []
        for tensor in sorted(shard.tensors.values(), key=lambda t: (t.start, t.stop)):
            names = [tensor.name, *(new for new, stored in copies.items() if stored == tensor.name)]
            kept = dtype if dtype and tensor.dtype in ("F64", "F32", "F16", "BF16") else tensor.dtype
            found[file] += [
                Piece(name, kept, shapes.get(name, tensor.shape), tensor, shard.path) for name in names
            ]
    return found


def plan_shards(pieces: dict[str, list[Piece]], limit: int | None) -> list[Shard]:
    """Return the files to write: the base's own, or filled in order up to `limit` bytes each."""
    if limit is None:
        return [Shard(file, found) for file, found in pieces.items()]
    groups: list[list[Piece]] = [[]]
    for piece in (piece for found in pieces.values() for piece in found):
        if groups[-1] and sum(p.bytes for p in groups[-1]) + piece.bytes > limit:
            groups.append([])
        groups[-1].append(piece)
    if len(groups) == 1:
        return [Shard(SINGLE, groups[0])]
    total = len(groups)
    return [Shard(f"model-{i:05d}-of-{total:05d}.safetensors", g) for i, g in enumerate(groups, 1)]


def write_shard(
    path: Path, shard: Shard, touched: Set[str], blocks: Callable[[Piece], Blocks]
) -> Iterator[int]:
    """Write one file and sync it, yielding the bytes done.

    `blocks` gives the values of `touched` tensors; the others are copied by a second thread, each
    run to its own place.
    """
    specs = [(piece.name, piece.dtype, piece.shape) for piece in shard.pieces]
    header = header_bytes(specs, {"format": "pt"})
    copier = ThreadPoolExecutor(1)
    with path.open("wb", buffering=0) as file:
        out = file.fileno()
        position = _write(out, 0, header)
        copies: list[tuple[Future[None], int]] = []
        try:
            for run in _runs(shard.pieces, touched):
                if run.piece is None:
                    job = copier.submit(copy_range, run.file, run.start, out, position, run.stop - run.start)
                    copies.append((job, run.stop - run.start))
                    position += run.stop - run.start
                    continue
                first = position
                for block in blocks(run.piece):
                    position = _write(out, position, np.ascontiguousarray(block).data)
                flush_soon(out, first, position)
                yield run.piece.bytes
            for job, count in copies:
                job.result()
                yield count
        finally:
            copier.shutdown(cancel_futures=True)
        os.fsync(out)


def write_index(folder: Path, shards: list[Shard]) -> None:
    """Write the index of several shards; a single file needs none."""
    if len(shards) == 1 and shards[0].name == SINGLE:
        return
    places = {piece.name: shard.name for shard in shards for piece in shard.pieces}
    total = sum(shard.bytes for shard in shards)
    write_json(
        folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    )


def copy_range(source: Path, start: int, out: int, position: int, count: int) -> None:
    """Copy `count` bytes of a file from `start` to `position` of the descriptor `out`, inside the kernel."""
    with source.open("rb") as file:
        while count:
            done = _copy_some(file.fileno(), start, out, position, min(count, COPIED_AT_ONCE))
            if not done:
                raise ContentError(f"{source}: the file became shorter while it was read")
            flush_soon(out, position, position + done)
            start, position, count = start + done, position + done, count - done


def _copy_some(source: int, start: int, out: int, position: int, count: int) -> int:
    try:
        return os.copy_file_range(source, out, count, offset_src=start, offset_dst=position)
    except OSError as error:  # between file systems, or on one that has no such copy
        if error.errno not in NO_COPY:
            raise
    return os.pwrite(out, os.pread(source, min(count, 1 << 20), start), position)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of an old file: neighbours to be copied, or the one `piece` that is computed."""

    file: Path
    start: int
    stop: int
    piece: Piece | None = None


def _runs(pieces: Iterable[Piece], touched: Set[str]) -> Iterator[Stretch]:
    run: Stretch | None = None
    for piece in pieces:
        computed = piece.name in touched
        if run and (computed or (run.file, run.stop) != (piece.file, piece.source.start)):
            yield run
            run = None
        if computed:
            yield Stretch(piece.file, piece.source.start, piece.source.stop, piece)
        else:
            run = Stretch(piece.file, run.start if run else piece.source.start, piece.source.stop)
    if run:
        yield run


def _write(out: int, position: int, data: bytes | memoryview) -> int:
    """Write all of `data` at `position`; return where it ends."""
    view = memoryview(data)
    view = view.cast("B") if view.nbytes else memoryview(b"")
    while view:
        done = os.pwrite(out, view, position)
        view, position = view[done:], position + done
    return position
