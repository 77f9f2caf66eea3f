"""Which examples of a dataset are not independent: those that share a premise, say, by a column of that name.

The column is one of the records, or of the file that compile writes beside them (core/examples.py).
"""

from collections.abc import Sequence
from pathlib import Path

from core.errors import ContentError, RequestError
from core.examples import Examples, examples_file, read_examples
from core.files import read_json, sha256

INDEPENDENT = "none"  # --cluster none
MANIFEST = "manifest.json"
DEFAULT = "group"  # the column of records that needs not be named
Record = dict[str, object]


def find_clusters(
    path: Path, records: Sequence[Record], wanted: str | None
) -> tuple[str | None, list[str] | None]:
    """Return the cluster column and each record's cluster; both None where records are independent.

    The column is `wanted`, else the one that the dataset's manifest names, else `group` where records have
    it. `RequestError` names the columns there are; `ContentError` where only some records have a cluster.
    """
    declared = _manifest(path)[0].get("cluster")
    in_use = any(record.get(DEFAULT) is not None for record in records)
    column = wanted or (declared if isinstance(declared, str) else None) or (DEFAULT if in_use else None)
    if column is None or wanted == INDEPENDENT:
        return None, None
    beside = _beside(path, len(records))
    if column in beside:
        return column, beside[column]
    if all(record.get(column) is None for record in records):
        names = ", ".join(dict.fromkeys([*beside, *(name for record in records for name in record)]))
        says = "" if wanted else f" (which {MANIFEST} names)"
        raise RequestError(
            f"{path}: no column {column!r}{says} to cluster by, found {names}: name one with --cluster, "
            f"or take every example as independent with --cluster {INDEPENDENT}"
        )
    return column, _in_records(path, records, column)


def _in_records(path: Path, records: Sequence[Record], column: str) -> list[str]:
    found = [record.get(column) for record in records]
    if None in found:
        others = len(found) - found.count(None)
        raise ContentError(
            f"{path}: record {found.index(None) + 1}: no {column}, but {others} other records have one"
        )
    return [str(value) for value in found]


def _manifest(path: Path) -> tuple[Record, Record]:
    """The manifest of the compiled dataset that a file belongs to, and what it says of the file; else {}."""
    manifest = path.parent / MANIFEST
    found = read_json(manifest) if manifest.is_file() else None
    files = found.get("files") if isinstance(found, dict) else None
    own = files.get(path.name) if isinstance(files, dict) else None
    return (found, own) if isinstance(found, dict) and isinstance(own, dict) else ({}, {})


def examples_of(path: Path) -> Examples | None:
    """Return what compile wrote beside a file of records, None where the file is another one by now."""
    found = read_examples(path)
    return found if found and _manifest(path)[1].get("sha256") in (None, sha256(path)) else None


def _beside(path: Path, count: int) -> dict[str, list[str]]:
    """The clusters beside a file, by column; `ContentError` where they are of other records."""
    if not examples_file(path).is_file():
        return {}
    found = examples_of(path)
    if found is None or len(found.fingerprints) != count:
        raise ContentError(
            f"{path}: changed since it was compiled, {examples_file(path).name} is of other records: compile "
            f"it again, or take every example as independent with --cluster {INDEPENDENT}"
        )
    return {name: [str(number) for number in numbers] for name, numbers in found.clusters.items()}
