"""The weight files of a model that is written anew: which tensors go where, copied or computed.

Tensors that nothing touches are copied by the kernel from file to file (copy_file_range(2)),
neighbours in one piece; only what changes passes through memory.
"""

import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adapters.base import INDEX, SINGLE, Base
from core.errors import ContentError
from core.files import write_json
from core.weights import SIZES, Stored, Tensor, header_bytes

NO_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
Blocks = Iterator[Stored]


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor to write: its name and dtype, and the tensor of the base that it comes from."""

    name: str
    dtype: str
    source: Tensor
    file: Path

    @property
    def bytes(self) -> int:
        """Size in the written file."""
        return math.prod(self.source.shape) * SIZES[self.dtype]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file to write."""

    name: str
    pieces: list[Piece]

    @property
    def bytes(self) -> int:
        """Size of its tensors."""
        return sum(piece.bytes for piece in self.pieces)


def pieces_of(base: Base, dtype: str | None, copies: dict[str, str]) -> dict[str, list[Piece]]:
    """Return the tensors of each base shard in file order.

    `dtype` converts all floats (None keeps each); `copies` {new name: stored name} adds a tensor
    of its own right behind the one that it was tied to.
    """
    found: dict[str, list[Piece]] = {}
    for file, shard in base.shards.items():
        found[file] = []
        for tensor in sorted(shard.tensors.values(), key=lambda t: (t.start, t.stop)):
            names = [tensor.name, *(new for new, stored in copies.items() if stored == tensor.name)]
            kept = dtype if dtype and tensor.dtype in ("F64", "F32", "F16", "BF16") else tensor.dtype
            found[file] += [Piece(name, kept, tensor, shard.path) for name in names]
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


def write_shard(path: Path, shard: Shard, touched: Set[str], blocks: Callable[[Piece], Blocks]) -> None:
    """Write one file and sync it: `blocks` gives the values of `touched` tensors, the others are copied."""
    specs = [(piece.name, piece.dtype, piece.source.shape) for piece in shard.pieces]
    with path.open("wb", buffering=0) as file:
        _write(file.fileno(), header_bytes(specs, {"format": "pt"}))
        for source, start, stop, piece in _runs(shard.pieces, touched):
            if piece is None:
                copy_range(source, file.fileno(), start, stop - start)
                continue
            for block in blocks(piece):
                _write(file.fileno(), np.ascontiguousarray(block).data)
        os.fsync(file.fileno())


def write_index(folder: Path, shards: list[Shard]) -> None:
    """Write the index of several shards; a single file needs none."""
    if len(shards) == 1 and shards[0].name == SINGLE:
        return
    places = {piece.name: shard.name for shard in shards for piece in shard.pieces}
    total = sum(shard.bytes for shard in shards)
    write_json(
        folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    )


def copy_range(source: Path, out: int, start: int, count: int) -> None:
    """Append `count` bytes of a file from `start` to the descriptor `out`, inside the kernel."""
    position, stop = start, start + count
    with source.open("rb") as file:
        while position < stop:
            done = _copy_some(file.fileno(), out, position, stop - position)
            if not done:
                raise ContentError(f"{source}: the file became shorter while it was read")
            position += done


def _copy_some(source: int, out: int, start: int, count: int) -> int:
    try:
        return os.copy_file_range(source, out, count, offset_src=start)
    except OSError as error:
        if error.errno not in NO_COPY:
            raise
    return os.sendfile(out, source, start, count)


def _runs(pieces: Iterable[Piece], touched: Set[str]) -> Iterator[tuple[Path, int, int, Piece | None]]:
    """Yield (file, start, stop, None) for neighbours to be copied, (…, piece) for one to be computed."""
    run: tuple[Path, int, int] | None = None
    for piece in pieces:
        computed = piece.name in touched
        if run and (computed or (run[0], run[2]) != (piece.file, piece.source.start)):
            yield *run, None
            run = None
        if computed:
            yield piece.file, piece.source.start, piece.source.stop, piece
        else:
            run = (piece.file, run[1] if run else piece.source.start, piece.source.stop)
    if run:
        yield *run, None


def _write(out: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    view = view.cast("B") if view.nbytes else memoryview(b"")
    while view:
        view = view[os.write(out, view) :]
