"""Readers: a file of any kind as a stream of rows with their places."""

from collections.abc import Iterator
from dataclasses import replace

from compiler.problems import Problems
from compiler.read import jsons, parquet, tables
from compiler.read.layout import row_of
from compiler.read.stream import GET_AGAIN, DamagedError, NotTextError, Readable, opened, suffix
from compiler.rows import Rows
from compiler.spec import PART, Spec
from compiler.specsource import Source
from core.errors import Problem, RequestError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


def reading(spec: Spec) -> Source:
    """Return a spec's source as readers need it: with what tells an object that is one row of the spec."""
    return replace(spec.source, is_row=row_of(spec.columns))


def read(path: Readable, shown: str, source: Source, problems: Problems, split: str = PART) -> Iterator[Rows]:
    """Yield the rows of a file in order, some hundreds at a time; what cannot be read is a problem.

    `split` tells which rows to read of a file that holds those of several splits (`rows:` of a source).
    """
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
                yield from jsons.read_json(stream, shown, kind, source, split, problems)
    except NotTextError as error:
        problems.bad_file(Problem("E001", shown, str(error), hint=error.hint))
    except DamagedError as error:
        problems.bad_file(Problem("E004", shown, str(error), hint=GET_AGAIN))
