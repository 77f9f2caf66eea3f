"""SQLite databases: the rows of one table (`table` of a source)."""

import shlex
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from tuneyard.compiler.read import OpenFile, reader
from tuneyard.compiler.read.measure import size_of
from tuneyard.compiler.rows import ROW, Prefix, TableRows
from tuneyard.compiler.rows.problem_codes import NO_RECORDS, UNREADABLE_TABLE
from tuneyard.compiler.rows.problems import Problems, UnreadableFileError
from tuneyard.core.files.bounded_reading import LARGEST_RECORD, LargeDataError, large_record
from tuneyard.core.files.scratch import scratch_folder
from tuneyard.core.language.message import _, joined

BATCH = 1000
BATCH_BYTES = 1 << 22
STEPS = 1 << 20
"""Instructions of SQLite between two looks at their number."""
STEPS_PER_BYTE = 1000
"""Instructions that a table needs at most: a column that was added later takes one of them, and no byte."""
BYTES_PER_ROW = 2
"""What a row takes at least: where it is in its page."""
COMPUTED = 2
"""What `table_xinfo` calls a column that is computed when it is read."""
FIX = _("is it an SQLite database? Copy the file again, or export the table as CSV")


@reader(".db", ".sqlite", ".sqlite3", text=False)
def read_sqlite(file: OpenFile, _unused: Problems) -> Iterator[TableRows]:
    """Yield the rows of a table in its order. The database is opened for reading alone."""
    with ExitStack() as stack:
        if isinstance(file.path, Path) and file.path.suffix.lower() == file.suffix:
            path = file.path
        else:  # packed or remote
            path = stack.enter_context(scratch_folder()) / f"copy{file.suffix}"
            with path.open("wb") as copy:
                shutil.copyfileobj(file.stream, copy)
        stored = path.stat().st_size
        row = 1
        try:
            address = f"file:{quote(str(path.absolute()))}?mode=ro"
            database = stack.enter_context(closing(sqlite3.connect(address, uri=True)))
            _restrict(database, stored)
            table = _table(database, file.source.table)
            for rows in _rows(database, table, file.display_path):
                yield rows
                row += len(rows.lines)
                if BYTES_PER_ROW * row > stored:
                    raise LargeDataError(
                        _("found more rows than the {size:,} bytes of the file can have", size=stored)
                    )
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_TOOBIG:
                raise large_record("") from error  # the module reads ahead: no row is certain
            message = _("the database cannot be read: {error}", error=error)
            raise UnreadableFileError(UNREADABLE_TABLE, message, FIX) from error


def _restrict(database: sqlite3.Connection, stored: int) -> None:
    """Bound the values that are read, and the work: a database may have code in place of rows."""
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_RECORD)
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    looks = 1 + STEPS_PER_BYTE * stored // STEPS

    def is_too_much() -> bool:
        nonlocal looks
        looks -= 1
        return looks < 0

    database.set_progress_handler(is_too_much, STEPS)
    database.execute("pragma trusted_schema = off")
    database.execute("pragma cell_size_check = on")


class _Tables(NamedTuple):
    """The names of the tables, and of views and virtual tables, which are code."""

    stored: list[str]
    computed: list[str]


def _tables(database: sqlite3.Connection) -> _Tables:
    """The tables but those of SQLite itself, and those in which a virtual table keeps what it needs."""
    stored = []
    computed = []
    indexes = set()  # for full-text search, in lower case
    copies = set()
    query = "select type, name, sql from sqlite_master where type in ('table', 'view') order by name"
    for kind, name, sql in database.execute(query):
        text = str(sql).lower()
        if str(name).startswith("sqlite_"):
            continue
        if text.startswith("create virtual"):
            indexes.add(str(name).lower())
            if "content=" in text:
                copies.add(str(name))
        if kind == "view" or text.startswith("create virtual"):
            computed.append(str(name))
        else:
            stored.append(str(name))
    stored = [name for name in stored if not _belongs_to(name.lower(), indexes)]
    return _Tables(stored, [name for name in computed if name not in copies])


def _belongs_to(name: str, indexes: set[str]) -> bool:
    """True for `search_data` next to a virtual table `search`."""
    head = name[:200]
    return any(letter == "_" and head[:at] in indexes for at, letter in enumerate(head))


def _table(database: sqlite3.Connection, table: str) -> str:
    """The table that the source names, or the only one. `UnreadableFileError` for one that is computed."""
    tables = _tables(database)
    if not table and len(tables.stored) == 1:
        table = tables.stored[0]
    if table in tables.stored:
        quoted_name = _quoted(table)
        columns = database.execute(f"pragma table_xinfo({quoted_name})")
        names = [str(column[1]) for column in columns if column[6] == COMPUTED]
        if names:
            raise _computed(
                _("the columns {names} of {table!r} are computed", names=", ".join(names), table=table), table
            )
        return table
    if table in tables.computed:
        raise _computed(_("{table!r} is a view or a virtual table", table=table), table)
    if not table and not tables.stored and len(tables.computed) == 1:
        name = tables.computed[0]
        raise _computed(_("{name!r} is a view or a virtual table", name=name), name)
    stored = joined(tables.stored) if tables.stored else _("none")
    message = _("found the tables {tables}", tables=stored)
    if table:
        message = _("no table {table!r}: found the tables {tables}", table=table, tables=stored)
    hint = _("name one with --table, or in a spec under `source:`: `table: NAME`")
    raise UnreadableFileError(NO_RECORDS, message, hint)


def _computed(message: str, table: str) -> UnreadableFileError:
    """E007 for rows that only code of the database yields: a file that was sent would run it here."""
    command = shlex.join(["sqlite3", "FILE", f"create table stored_rows as select * from {_quoted(table)}"])
    hint = _("if you trust the file, store them: {command}", command=command)
    return UnreadableFileError(
        NO_RECORDS, _("{message}, expected a table of stored rows", message=message), hint
    )


def _quoted(name: str) -> str:
    """A name for SQL."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _rows(database: sqlite3.Connection, table: str, display_path: str) -> Iterator[TableRows]:
    """Yield the rows of a table, `BATCH_BYTES` and a row at most: the default of a column is stored once."""
    cursor = database.execute(f"select * from {_quoted(table)}")  # a name that the database lists
    names = [column[0] for column in cursor.description]
    start = 1
    rows: list[tuple[object, ...]] = []
    size = 0
    for row in cursor:
        rows.append(row)
        size += size_of(row)
        if len(rows) == BATCH or size > BATCH_BYTES:
            yield _table_rows(names, rows, start, display_path)
            start += len(rows)
            rows = []
            size = 0
    if rows:
        yield _table_rows(names, rows, start, display_path)


def _table_rows(names: list[str], rows: list[tuple[object, ...]], start: int, display_path: str) -> TableRows:
    columns: dict[str, Sequence[object]] = dict(zip(names, zip(*rows, strict=True), strict=True))
    return TableRows(Prefix(display_path, ROW), range(start, start + len(rows)), columns)
