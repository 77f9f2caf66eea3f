"""What lies beside the records of a dataset, row by row: fingerprints of its examples, and their clusters.

`NAME/train.examples.npy` goes with `NAME/train.json`: a numpy array of as many rows, with a field
`fingerprint` and one named as the cluster column, if any. Records keep the keys that their format fixes.
"""

import struct
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core.errors import ContentError
from tuneyard.core.files import atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FINGERPRINT = "fingerprint"
SEPARATOR = "\x1e"
ROWS = 1 << 16  # that are written at a time


@dataclass(frozen=True, slots=True)
class RowIndex:
    """Fingerprints (uint64) of a dataset's examples and its clusters by column (uint32), in its row order."""

    fingerprints: "NDArray[np.uint64]"
    clusters: "dict[str, NDArray[np.uint32]]"


def row_index_file(records: Path) -> Path:
    """Return the file beside a dataset's records: `train.json` → `train.examples.npy`."""
    return records.with_suffix(".examples.npy")


def fingerprint(texts: Iterable[str]) -> int:
    """Return 8 bytes of BLAKE2 over what an example asks: its turns' texts before the last answer.

    The system text is left out: it is the same example under another one. Other prompts share one by 2^-64.
    """
    return fingerprints([SEPARATOR.join(texts)])[0]


def fingerprints(joined: Sequence[str]) -> "array[int]":
    """Return the fingerprint of each example, whose texts are joined by `SEPARATOR`: many in one call."""
    digests = [blake2b(text, digest_size=8).digest() for text in map(str.encode, joined)]
    found = array("Q", b"".join(digests))
    if sys.byteorder == "big":
        found.byteswap()
    return found


def write_row_index(path: Path, fingerprints: Sequence[int], clusters: Mapping[str, Sequence[int]]) -> None:
    """Write all examples' fingerprints and, by column, their clusters' numbers; `ValueError` unless as many.

    The bytes are numpy's format 3.0, made without numpy, whose import takes longer than a small compile.
    """
    for name, numbers in clusters.items():
        if len(numbers) != len(fingerprints):
            raise ValueError(f"{name}: {len(numbers)} clusters of {len(fingerprints)} fingerprints")
    fields = [(FINGERPRINT, "<u8"), *((name, "<u4") for name in clusters)]
    about = repr({"descr": fields, "fortran_order": False, "shape": (len(fingerprints),)}).encode()
    about += b" " * (-(len(about) + 13) % 64) + b"\n"  # so that the rows begin at a multiple of 64 bytes
    with atomic(path) as file:
        file.write(b"\x93NUMPY\x03\x00" + struct.pack("<I", len(about)) + about)
        for start in range(0, len(fingerprints), ROWS):
            block = slice(start, start + ROWS)
            columns = [array("Q", fingerprints[block])]
            columns += [array("I", numbers[block]) for numbers in clusters.values()]
            file.write(_interleaved(columns))


def _interleaved(columns: "Sequence[array[int]]") -> bytearray:
    """Return rows of little-endian numbers, one of each column after the other."""
    width, at = sum(column.itemsize for column in columns), 0
    rows = bytearray(width * len(columns[0]))
    for column in columns:  # its first byte of every row, its second, …: a fortieth of the time of row by row
        if sys.byteorder == "big":
            column.byteswap()
        data = column.tobytes()
        for byte in range(column.itemsize):
            rows[at::width] = data[byte :: column.itemsize]
            at += 1
    return rows


def read_row_index(records: Path) -> RowIndex | None:
    """Return what lies beside a dataset's records, None where nothing does; `ContentError` if it is none."""
    import numpy as np

    path = row_index_file(records)
    if not path.is_file():
        return None
    try:
        rows = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ContentError(f"{path}: no file of examples: {error}; compile the dataset again") from error
    names = rows.dtype.names or ()
    if rows.ndim != 1 or FINGERPRINT not in names:
        raise ContentError(f"{path}: found {rows.dtype}, expected a field {FINGERPRINT!r}; compile again")
    return RowIndex(rows[FINGERPRINT], {name: rows[name] for name in names if name != FINGERPRINT})
