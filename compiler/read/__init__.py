"""Readers: a file here, or an entry point `tuneyard.readers`, contains one function with `@reader`.

A reader gets an open file and yields its rows with their locations, some hundreds at a time.
"""

import io
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from tuneyard.compiler.chat.forms import examples_of
from tuneyard.compiler.chat.message_rows import conversations_of
from tuneyard.compiler.read.measure import measured
from tuneyard.compiler.read.stream import (
    LARGE_CONTENT,
    LARGE_RECORD,
    SHORTEN,
    Readable,
    opened,
    stored_size,
    suffix,
)
from tuneyard.compiler.rows import Rows
from tuneyard.compiler.rows.problem_codes import NO_RECORDS
from tuneyard.compiler.rows.problems import Problems, UnreadableFileError
from tuneyard.compiler.spec.file import Source
from tuneyard.core.datasets import REGISTRY, TRAIN_SPLIT
from tuneyard.core.errors import Problem, RequestError
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import Moved
from tuneyard.core.files.bounded_reading import LargeDataError
from tuneyard.core.language.message import _, message_of
from tuneyard.core.plugins import Plugin, bundled_with, load
from tuneyard.core.text.quoting import shell

REPEATED_COLUMN = ProblemCode(
    "E009",
    _("a header that names a column twice"),
    _("Rename one of both columns."),
)


class OpenFile(NamedTuple):
    """An open file, for a reader.

    - `stream`: the bytes, unpacked, and as UTF-8 if the reader takes text.
    - `display_path`: the path as in places and messages. `suffix`: its suffix.
    - `source`: how the file is written, by the spec.
    - `split`: the split to read from a file that has the rows of several (`rows:` of a source).
    - `path`: the file itself, for a reader that must open it by its name.
    - `names`: the members of an archive, or the sheets of a workbook, to read; () for all.
    """

    stream: io.BufferedReader
    display_path: str
    suffix: str
    source: Source
    split: str
    path: Readable
    names: tuple[str, ...] = ()


ReadRows = Callable[[OpenFile, Problems], Iterator[Rows]]


class Reader(NamedTuple):
    """A reader of files with these suffixes; one of `text` gets UTF-8."""

    suffixes: tuple[str, ...]
    text: bool
    function: ReadRows


def reader(*suffixes: str, text: bool = True) -> Callable[[ReadRows], Reader]:
    """Declare a function as the reader of files with these suffixes; `text` ones may have any encoding."""
    return lambda function: Reader(suffixes, text, function)


ARCHIVE = ".zip"
TEXTS = (".txt", ".md")
F = TypeVar("F", bound=Readable)


def without_texts(files: list[F]) -> list[F]:
    """The files but texts, if there are others: next to data, a text is a licence or a description."""
    return [file for file in files if suffix(file) not in TEXTS] or files


ABOUT_DATA = ("readme", "license", "licence", "notice", "changelog", "citation", "authors")


def is_no_data(name: str) -> bool:
    """True if a file contains no rows, by its name: README.txt, LICENSE.txt, and hidden ones as .notes.md."""
    stem, _unused, ending = name.lower().partition(".")
    return not stem or name == REGISTRY or (stem in ABOUT_DATA and ending in ("", "txt", "md", "rst"))


@cache
def _bundled_readers() -> dict[str, Reader]:
    return {name: each for each in bundled_with(__name__, Reader) for name in each.suffixes}


@cache
def readers() -> dict[str, Reader]:
    """All readers by suffix. `PluginError` names a plug-in that cannot be used."""
    by_suffix = dict(_bundled_readers())
    for plugin in load("tuneyard.readers", Reader, "function with @reader").values():
        for name in plugin.value.suffixes:
            with plugin.guarded():
                if name in by_suffix:
                    raise ValueError(_("{name} has a reader already", name=name))
            by_suffix[name] = plugin.value
    return by_suffix


def find_reader(file_suffix: str, display_path: str) -> Reader:
    """The reader of files with this suffix. `RequestError` names the path and lists the known suffixes."""
    for known_readers in (_bundled_readers, readers):  # a broken plug-in only stops what has no other reader
        if file_suffix in known_readers():
            return known_readers()[file_suffix]
    fix: str = _("convert it to one of these")
    if file_suffix in (".yaml", ".yml"):
        file = shlex.quote(display_path)
        fix = _(
            "{fix}; if it is a spec: tuneyard data compile {file}; "
            "if it is a recipe: tuneyard recipe check {file}",
            fix=fix,
            file=shell(file),
        )
    raise RequestError(
        _(
            "{path}: unknown kind of file {suffix!r} (known: {known_suffixes}); {fix}",
            path=display_path,
            suffix=file_suffix,
            known_suffixes=known_suffixes(),
            fix=fix,
        )
    )


def plugins_for(paths: Iterable[str]) -> list[Plugin]:
    """The plug-ins that read files of these names, sorted by name; all of them for an archive, which may
    hold files of any kind."""
    suffixes = {suffix(Path(path)) for path in paths}
    if suffixes <= _bundled_readers().keys() - {ARCHIVE}:
        return []
    plugins = load("tuneyard.readers", Reader, "function with @reader")
    return [
        plugins[name]
        for name in sorted(plugins)
        if ARCHIVE in suffixes or not suffixes.isdisjoint(plugins[name].value.suffixes)
    ]


def known_suffixes() -> str:
    """The suffixes that have a reader, for messages."""
    return _("{names}, each also .gz or .zst", names=", ".join(readers()))


def refuse_twice(names: Sequence[str], location: str) -> None:
    """Refuse two columns of one name (E009), since only one of them would be read."""
    for name, count in Counter(names).items():
        if count > 1:
            fix = _("give each column a name of its own there, or delete the lines above the header")
            raise UnreadableFileError(
                REPEATED_COLUMN, _("the header names it twice"), fix, location, name or '""'
            )


SMALLER = _("write it again in smaller parts: fewer rows in a row group or batch, or several files")


def _too_large(error: LargeDataError, display_path: str) -> Problem:
    """The problem of data that unpack to too much. Their location may be inside of the file."""
    location = error.place or display_path
    if not location.startswith(display_path):
        location = f"{display_path} {location}"
    if error.is_record:
        return Problem(LARGE_RECORD, location, error.message, hint=SHORTEN)
    return Problem(LARGE_CONTENT, location, error.message, hint=SMALLER)


def read(
    path: Readable,
    display_path: str,
    source: Source,
    problems: Problems,
    split: str = TRAIN_SPLIT,
    moved: Moved | None = None,
    names: tuple[str, ...] = (),
) -> Iterator[Rows]:
    """Yield the rows of a file in order, some hundreds at a time. Unreadable content becomes a problem.

    `split` names the rows to read from a file that has those of several splits (`rows:` of a source).
    `moved` gets the numbers of bytes read. The bad rows of a batch, and those that the caller finds in it,
    count once the next batch is asked for. `names` are the members of an archive, or the sheets of a
    workbook, to read; () for all.
    """
    file_suffix = suffix(path)
    file_reader = find_reader(file_suffix, display_path)
    encoding = source.encoding if file_reader.text else "utf-8"
    try:
        with opened(path, encoding, in_order=file_reader.text, moved=moved) as stream:
            if source.table and ".db" not in file_reader.suffixes:
                raise UnreadableFileError(
                    NO_RECORDS, _("`table` names a table of an SQLite database: leave it out")
                )
            file = OpenFile(stream, display_path, file_suffix, source, split, path, names)
            batches = file_reader.function(file, problems)
            if source.form:
                batches = examples_of(batches, source, problems)
            if source.turns:
                batches = conversations_of(batches, source.turns, problems)
            for rows in measured(batches, stored_size(path), problems):
                if rows.lines:
                    yield rows
                problems.end_batch()  # the caller has checked these rows
    except LargeDataError as error:
        problems.bad_file(_too_large(error, display_path))
    except UnreadableFileError as error:
        location = error.location or display_path
        problems.bad_file(Problem(error.code, location, message_of(error), error.field, error.hint))
    problems.end_batch()
