"""SQLite databases: the rows of one table (`table` of a source)."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import OpenFile, reader
from tuneyard.compiler.read.stream import UnreadableFileError
from tuneyard.compiler.rows import ROW, Prefix, TableRows
from tuneyard.core.scratch import scratch_folder

BATCH = 1000
TABLES = """
select name from sqlite_master as each where type in ('table', 'view') and not name glob 'sqlite_*'
and sql not like 'create virtual%content=%'
and not exists (
    select * from sqlite_master as index_table
    where sql like 'create virtual%' and each.name like index_table.name || '_%'
)
order by name
"""
"""The query for tables but those of SQLite itself and of full-text search, which copies another table."""
FIX = "is it an SQLite database? Copy the file again, or export the table as CSV"


@reader(".db", ".sqlite", ".sqlite3", text=False)
def read_sqlite(file: OpenFile, _: Problems) -> Iterator[TableRows]:
    """Yield the rows of a table in its order. The database is opened for reading alone."""
    with ExitStack() as stack:
        if isinstance(file.path, Path) and file.path.suffix.lower() == file.kind:
            path = file.path
        else:  # packed or remote
            path = stack.enter_context(scratch_folder()) / f"copy{file.kind}"
            with path.open("wb") as copy:
                shutil.copyfileobj(file.stream, copy)
        try:
            address = f"file:{quote(str(path.absolute()))}?mode=ro"
            database = stack.enter_context(closing(sqlite3.connect(address, uri=True)))
            yield from _rows(database, _table(database, file.source.table), file.display_path)
        except sqlite3.DatabaseError as error:
            message = f"the database cannot be read: {error}"
            raise UnreadableFileError("E012", message, FIX) from error


def _table(database: sqlite3.Connection, table: str) -> str:
    """The table that the source names, or the only one besides indexes for full-text search."""
    tables = [str(name) for (name,) in database.execute(TABLES)]
    if table in tables:
        return table
    if not table and len(tables) == 1:
        return tables[0]
    message = f"found the tables {', '.join(tables) or 'none'}"
    if table:
        message = f"no table {table!r}: {message}"
    hint = "name one with --table, or in a spec under `source:`: `table: NAME`"
    raise UnreadableFileError("E007", message, hint)


def _rows(database: sqlite3.Connection, table: str, display_path: str) -> Iterator[TableRows]:
    quoted_name = table.replace('"', '""')
    cursor = database.execute(f'select * from "{quoted_name}"')  # a name that the database lists
    names = [column[0] for column in cursor.description]
    start = 1
    while rows := cursor.fetchmany(BATCH):
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        yield TableRows(Prefix(display_path, ROW), range(start, start + len(rows)), columns)
        start += len(rows)
