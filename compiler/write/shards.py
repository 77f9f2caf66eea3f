"""Cuts a written JSON Lines file into shards: files of about as many records each, in a folder."""

import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import orjson

from tuneyard.compiler.write.record_file import not_as_made
from tuneyard.core.datasets import shard_folder, shard_name
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import files_of, named, sha256


def cut_into_shards(path: Path, records: int, shards: int, digest: str) -> None:
    """Replace a JSON Lines file by a folder of its shards, which have the file's bytes one after another.

    There are no more shards than records: LLaMA-Factory's loader stops at an empty file. The last shard is
    cut off first, so that the disk holds one shard twice and not the whole file. `ContentError` unless the
    shards have the hash `digest` of the file, and can be loaded together.
    """
    count = min(shards, records)
    folder = path.with_name(shard_folder(path.name))
    folder.mkdir()
    with named(path):
        bounds = list(pairwise(_bounds(path, records, count)))
        for number in range(count - 1, 0, -1):
            start, end = bounds[number]
            with path.open("rb+") as source:
                source.seek(start)
                with (folder / shard_name(number, count)).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                    size = target.tell()
                source.truncate(start)
            if size != end - start:
                raise not_as_made(path, "its end")
        path.replace(folder / shard_name(0, count))
    if sha256(folder) != digest:
        raise not_as_made(folder, "one of the shards")
    refuse_empty_columns(folder.name, {file.name: _empty_columns(file) for file in files_of(folder)})


def refuse_empty_columns(folder: str, empty_by_shard: Mapping[str, set[str]]) -> None:
    """`ContentError` for a shard without a value in a column (history, images) that other shards fill.

    LLaMA-Factory's loader takes the type of a column from the first file that it reads.
    """
    empty_everywhere = set.intersection(*empty_by_shard.values())
    for name, empty in empty_by_shard.items():
        columns = sorted(empty - empty_everywhere)
        if columns:
            raise ContentError(
                f"{folder}/{name}: no record has a value in {show_value(columns[0])}, and records of "
                "other shards have one: LLaMA-Factory's loader stops at such files. Nothing was published. "
                "Give fewer `shards`, or take the key out to write one file"
            )


def is_empty(value: object) -> bool:
    """True for a value without a type for LLaMA-Factory's loader."""
    return value is None or value == []


def first_records(records: int, shards: int) -> list[int]:
    """The number (from 0) of the first record of each shard."""
    return [number * records // shards for number in range(shards)]


def _empty_columns(file: Path) -> set[str]:
    """The columns that are null or an empty list in every record. It mostly reads a few records only."""
    empty: set[str] | None = None
    with file.open("rb") as lines:
        for line in lines:
            record = orjson.loads(line)
            empty_here = {column for column, value in record.items() if is_empty(value)}
            empty = empty_here if empty is None else empty & empty_here
            if not empty:
                break
    return empty or set()


def _bounds(path: Path, records: int, count: int) -> list[int]:
    """The offsets at which the shards begin, and the end of the file."""
    firsts = first_records(records, count)
    bounds: list[int] = []
    offset = 0
    with path.open("rb") as file:
        for record, line in enumerate(file):
            if len(bounds) < count and record == firsts[len(bounds)]:
                bounds.append(offset)
            offset += len(line)
    return [*bounds, offset]
