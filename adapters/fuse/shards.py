"""Write the weight files of a changed model: plan the files, then write each.

The kernel copies unchanged tensors from file to file (sendfile(2)). Only changed tensors are in memory.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuneyard.core.errors import ContentError
from tuneyard.core.files import sync, write_json
from tuneyard.core.language.message import _
from tuneyard.core.weights.base_models import Base
from tuneyard.core.weights.tensors import (
    INDEX,
    SINGLE,
    STORED,
    Stored,
    Tensor,
    data_bytes,
    header_bytes,
    workers,
)

COPIED_AT_ONCE = 1 << 26
Shape = tuple[int, ...]
Blocks = Iterator[Stored] | None


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor to write: its name, dtype and shape, and its source in the base."""

    name: str
    dtype: str
    shape: Shape
    source: Tensor

    @property
    def bytes(self) -> int:
        """Size in the written file."""
        return data_bytes(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Shard:
    """One file to write."""

    name: str
    pieces: list[Piece]

    @property
    def bytes(self) -> int:
        """Size of its tensors."""
        return sum(piece.bytes for piece in self.pieces)


def plan_shards(
    base: Base, dtype: str | None, copies: dict[str, str], shapes: dict[str, Shape], limit: int | None
) -> list[Shard]:
    """Plan the files: like the base's, or filled in order up to `limit` bytes each.

    `dtype` converts all floats (None keeps each dtype). `copies` {new name: stored name} adds a tensor of its
    own after the tensor to which it was tied. `shapes` lists the tensors that get another shape.
    """
    shards = []
    for file, weights in base.shards.items():
        pieces = []
        for tensor in sorted(weights.tensors.values(), key=lambda t: (t.start, t.stop)):
            piece_dtype = tensor.dtype
            if dtype and tensor.dtype in STORED:
                piece_dtype = dtype
            names = [tensor.name, *(new for new, stored in copies.items() if stored == tensor.name)]
            for name in names:
                shape = shapes.get(name, tensor.shape)
                pieces.append(Piece(name, piece_dtype, shape, tensor))
        shards.append(Shard(file, pieces))
    if limit is None:
        return shards
    groups: list[list[Piece]] = [[]]
    size = 0
    for shard in shards:
        for piece in shard.pieces:
            if groups[-1] and size + piece.bytes > limit:
                groups.append([])
                size = 0
            groups[-1].append(piece)
            size += piece.bytes
    if len(groups) == 1:
        return [Shard(SINGLE, groups[0])]
    total = len(groups)
    return [Shard(f"model-{i:05d}-of-{total:05d}.safetensors", g) for i, g in enumerate(groups, 1)]


def write_shard(path: Path, shard: Shard, blocks: Callable[[Piece], Blocks]) -> Iterator[int]:
    """Write one file and sync it, yielding the bytes done.

    `blocks` yields the values of a tensor. If it is None for a tensor, a second thread copies the base's.
    """
    specs = [(piece.name, piece.dtype, piece.shape) for piece in shard.pieces]
    copies: list[tuple[Future[None], int]] = []
    with path.open("wb") as file:
        file.write(header_bytes(specs))
        with workers(1) as copier:
            for piece in shard.pieces:
                first = file.tell()
                values = blocks(piece)
                if values is None:
                    copies.append((copier.submit(copy_tensor, piece.source, path, first), piece.bytes))
                    file.seek(piece.bytes, os.SEEK_CUR)
                    continue
                for block in values:
                    file.write(np.ascontiguousarray(block).data)
                yield piece.bytes
            for job, count in copies:
                job.result()
                yield count
    sync(path)


def write_index(folder: Path, shards: list[Shard]) -> None:
    """Write the index of several shards. A single file needs no index."""
    if len(shards) == 1 and shards[0].name == SINGLE:
        return
    places = sorted((piece.name, shard.name) for shard in shards for piece in shard.pieces)
    total = {"total_size": sum(shard.bytes for shard in shards)}
    write_json(folder / INDEX, {"metadata": total, "weight_map": dict(places)})


def copy_tensor(tensor: Tensor, out: Path, position: int) -> None:
    """Copy a tensor's bytes into the file `out` at `position`, inside the kernel."""
    start = tensor.start
    with tensor.file.open("rb") as source, out.open("r+b", buffering=0) as target:
        target.seek(position)
        while start < tensor.stop:
            count = min(tensor.stop - start, COPIED_AT_ONCE)
            done = os.sendfile(target.fileno(), source.fileno(), start, count)
            if not done:
                raise ContentError(_("{file}: the file became shorter while it was read", file=tensor.file))
            start, position = start + done, position + done
