"""Readers: a file of any kind as a stream of rows with their places."""

from collections.abc import Iterator

from compiler.problems import Problems
from compiler.read import jsons, parquet, tables
from compiler.read.stream import DamagedError, NotTextError, Readable, opened, suffix
from compiler.rows import Rows
from compiler.spec import Source
from core.errors import Problem, RequestError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


def read(path: Readable, shown: str, source: Source, problems: Problems) -> Iterator[Rows]:
    """Yield the rows of a file in order, some hundreds at a time; what cannot be read is a problem."""
    kind = suffix(path)
    if kind not in SUFFIXES:
        known = f"{', '.join(SUFFIXES)}, each also .gz or .zst"
        raise RequestError(f"{shown}: unknown kind of file {kind!r} (known: {known})")
    try:
        with opened(path, source.encoding if kind != ".parquet" else "utf-8") as stream:
            if kind == ".parquet":
                yield from parquet.read_parquet(stream, shown, problems)
            elif kind in (".csv", ".tsv"):
                yield from tables.read_table(stream, shown, kind, source, problems)
            else:
                yield from jsons.read_json(stream, shown, kind, problems)
    except NotTextError as error:
        hint = f"name it in a spec under `source:`, such as `encoding: {error.guess}`"
        problems.bad_file(Problem("E001", shown, str(error), hint=hint))
    except DamagedError as error:
        problems.bad_file(Problem("E004", shown, str(error), hint="get the file again"))
