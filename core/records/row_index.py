"""Index of a dataset by row: fingerprints of its examples, and their clusters.

`NAME/train.examples.npy` belongs to `NAME/train.json`. It is a numpy array of as many rows with the
field `xxh3`, named after the hash of its fingerprints. A second field has the name of the cluster column, if
there is one. Records cannot have these fields: their format fixes their keys.

The index of a file with the rows of all splits has the fields `trained` and `split` instead.
"""

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xxhash import xxh3_64_intdigest

from tuneyard.core.errors import ContentError
from tuneyard.core.files import atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FINGERPRINT, TRAINED, SPLIT = "xxh3", "trained", "split"
ROW_INDEX = ".examples.npy"
"""The end of a row index's name."""
SEPARATOR = "\x1e"


class RowIndex(NamedTuple):
    """Fingerprints (uint64) of a dataset's examples and its clusters by column (uint32), in its row order.

    Of a file with the rows of all splits it tells instead what became of each row:

    - `trained`: its fingerprint in the dataset of its split, which may word the prompt otherwise.
    - `splits`: the number of its split: 0 for `train`, then in the order of the spec.
    """

    fingerprints: "NDArray[np.uint64]"
    clusters: "dict[str, NDArray[np.uint32]]"
    trained: "NDArray[np.uint64] | None" = None
    splits: "NDArray[np.uint8] | None" = None


def row_index_file(records: Path) -> Path:
    """File next to a dataset's records: `train.json` → `train.examples.npy`."""
    stem = records.name.removesuffix(".jsonl").removesuffix(".json")
    return records.with_name(f"{stem}{ROW_INDEX}")


def fingerprints(joined: Sequence[str]) -> "array[int]":
    """XXH3 (64 bits) of the prompts of examples: the texts of the turns before the last answer.

    The texts of each prompt are joined by `SEPARATOR`. The system text is left out, since it does not make
    another example. Two other prompts have the same fingerprint with probability 2^-64, unless somebody makes
    them so: XXH3 is fast, not cryptographic.
    """
    return array("Q", list(map(xxh3_64_intdigest, map(str.encode, joined))))


def write_row_index(
    path: Path, fingerprints: "array[int] | memoryview[int]", others: "Mapping[str, array[int]]"
) -> None:
    """Write fingerprints and other columns of all rows. `ValueError` if their lengths differ.

    The others are the numbers of clusters (`I`), or `TRAINED` (`Q`) and `SPLIT` (`B`).

    The file has numpy's format 3.0. It is written without numpy, whose import takes longer than a small
    compile.
    """
    columns = {FINGERPRINT: memoryview(fingerprints)}
    for name, numbers in others.items():
        columns[name] = memoryview(numbers)
    fields = [(name, f"<u{column.itemsize}") for name, column in columns.items()]
    about = repr({"descr": fields, "fortran_order": False, "shape": (len(fingerprints),)}).encode()
    about += b" " * (-(len(about) + 13) % 64) + b"\n"  # aligns the rows to 64 bytes
    width = sum(column.itemsize for column in columns.values())
    rows = bytearray(len(fingerprints) * width)
    at = 0
    for column in columns.values():
        for byte in range(column.itemsize):  # one byte of all rows at a time, in C
            rows[at::width] = column.cast("B")[byte :: column.itemsize]
            at += 1
    with atomic(path) as file:
        file.write(b"\x93NUMPY\x03\x00" + len(about).to_bytes(4, "little") + about)
        file.write(rows)


def read_row_index(records: Path) -> RowIndex | None:
    """Read the row index of a dataset's records, None if it has none. `ContentError` for a broken file."""
    import numpy as np

    path = row_index_file(records)
    if not path.is_file():
        return None
    try:
        rows = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ContentError(f"{path}: broken row index: {error}; compile the dataset again") from error
    names = rows.dtype.names or ("",)
    if rows.ndim != 1 or names[0] != FINGERPRINT:
        raise ContentError(f"{path}: found {rows.dtype}, expected a field {FINGERPRINT!r}; compile again")
    if names[1:] == (TRAINED, SPLIT):
        return RowIndex(rows[FINGERPRINT], {}, rows[TRAINED], rows[SPLIT])
    return RowIndex(rows[FINGERPRINT], {name: rows[name] for name in names[1:]})
