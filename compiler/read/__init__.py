"""Readers: a file here, or an entry point `tuneyard.readers`, holds one function with `@reader`.

A reader gets an open file and yields its rows with their places, some hundreds at a time.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read.scan import row_of
from tuneyard.compiler.read.stream import GET_AGAIN, DamagedError, NotTextError, Readable, opened, suffix
from tuneyard.compiler.rows import Rows
from tuneyard.compiler.spec.file import Source
from tuneyard.compiler.spec.model import PART, Spec
from tuneyard.core.errors import Problem, RequestError
from tuneyard.core.plugins import Plugin, bundled_with, load, warn

GROUP: Literal["tuneyard.readers"] = "tuneyard.readers"


@dataclass(frozen=True, slots=True)
class OpenFile:
    """What a reader is given.

    `stream` has the bytes, unpacked, and as UTF-8 where the reader takes text; `shown` is the path as it is
    in places and messages, `kind` its suffix, `source` how a spec says that it is written, and `split` whose
    rows are wanted of a file that holds those of several (`rows:` of a source).
    """

    stream: io.BufferedReader
    shown: str
    kind: str
    source: Source
    split: str


ReadRows = Callable[[OpenFile, Problems], Iterator[Rows]]


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader of files with these suffixes; one of `text` gets UTF-8."""

    suffixes: tuple[str, ...]
    text: bool
    function: ReadRows


def reader(*suffixes: str, text: bool = True) -> Callable[[ReadRows], Reader]:
    """Declare a function as the reader of files with these suffixes; `text` ones may have any encoding."""
    return lambda function: Reader(suffixes, text, function)


@cache
def _own() -> dict[str, Reader]:
    return {kind: each for each in bundled_with(__name__, Reader) for kind in each.suffixes}


@cache
def readers() -> dict[str, Reader]:
    """Return every reader by suffix; a plug-in that cannot be used is left out with a warning."""
    found = dict(_own())
    for plugin in load(GROUP, Reader, "reader").values():
        for kind in plugin.value.suffixes:
            if kind in found:
                warn(f"the reader of {kind} in {plugin.package}: {kind} has a reader already")
            else:
                found[kind] = replace(plugin.value, function=partial(_guarded, plugin))
    return found


def _guarded(plugin: Plugin, file: OpenFile, problems: Problems) -> Iterator[Rows]:
    """Yield the rows that a plug-in's reader yields; `PluginError` for what it raises or what are none."""
    with plugin.guarded():
        for rows in plugin.value.function(file, problems):
            if not isinstance(rows, Rows):
                raise TypeError(f"it yielded {type(rows).__name__}, expected compiler.rows.ObjectRows")
            names = rows.names() if rows.lines else []
            if strange := [name for name in names if not isinstance(name, str)]:
                raise TypeError(f"it yielded the key {strange[0]!r}, expected text")
            if rows.lines:
                yield rows


def find_reader(kind: str, shown: str) -> Reader:
    """Return the reader of files with this suffix; `RequestError` names `shown` and the suffixes known."""
    if found := _own().get(kind) or readers().get(kind):
        return found
    raise RequestError(f"{shown}: unknown kind of file {kind!r} (known: {known_suffixes()})")


def known_suffixes() -> str:
    """Return the suffixes that have a reader, for messages."""
    return f"{', '.join(readers())}, each also .gz or .zst"


def refuse_twice(names: Sequence[str], place: str, problems: Problems) -> bool:
    """Tell whether one column's name is that of another, which is a problem: only one would be read."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        problems.bad_file(Problem("E009", place, "the header names it twice", twice or '""'))
    return twice is not None


def reading(spec: Spec) -> Source:
    """Return a spec's source as readers need it: with what tells an object that is one row of the spec."""
    return replace(spec.source, is_row=row_of(spec.columns))


def read(path: Readable, shown: str, source: Source, problems: Problems, split: str = PART) -> Iterator[Rows]:
    """Yield the rows of a file in order, some hundreds at a time; what cannot be read is a problem.

    `split` tells which rows to read of a file that holds those of several splits (`rows:` of a source).
    """
    kind = suffix(path)
    found = find_reader(kind, shown)
    try:
        with opened(path, source.encoding if found.text else "utf-8") as stream:
            yield from found.function(OpenFile(stream, shown, kind, source, split), problems)
    except NotTextError as error:
        problems.bad_file(Problem("E001", shown, str(error), hint=error.hint))
    except DamagedError as error:
        problems.bad_file(Problem("E004", shown, str(error), hint=GET_AGAIN))
    problems.settle()
