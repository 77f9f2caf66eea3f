"""Which source column each target column comes from: by its names in the spec, and by what rows fill."""

from collections.abc import Sequence

from tuneyard.compiler.rows import MISSING, Rows
from tuneyard.compiler.spec.column_types import Column, Values
from tuneyard.core.datasets import filled


def source_columns_in(column: Column, names: Sequence[str], rows: Rows) -> list[str]:
    """The source columns of a target column in rows, in the order of its names. Exact names come first.

    `names` are those of the rows.
    """
    sources = [name for name in column.names if name in names or _is_inside(name, names, rows)]
    if len(sources) == len(column.names):
        return sources
    name_by_lower_case = {name.lower(): name for name in reversed(names)}
    for name in column.names:
        other = name_by_lower_case.get(name.lower())
        if other is not None and other not in sources:
            sources.append(other)
    return sources


def find_source_column(column: Column, names: Sequence[str], rows: Rows) -> str | None:
    """The source column that rows fill, otherwise one that they have. None if they have none."""
    sources = source_columns_in(column, names, rows)
    for source in sources:
        if any(map(is_filled, rows.column(source))):
            return source
    return sources[0] if sources else None


def _is_inside(path: str, names: Sequence[str], rows: Rows) -> bool:
    """True if a row has a value under a path into a column (`answers.text`, `label.responses.0`)."""
    head, point, _unused = path.partition(".")
    if not point or (head not in names and path.rpartition(".")[0] not in names):
        return False
    return any(value is not MISSING for value in rows.column(path))


def is_filled(value: object) -> bool:
    """True for a value that a row fills: it is neither null nor blank nor empty."""
    if value is MISSING:
        return False
    if isinstance(value, str):
        return bool(value) and not value.isspace()
    return bool(filled((value,)))


def all_are_filled(values: Values) -> bool:
    """True if `is_filled` is for each value. Texts and numbers are asked in one call each."""
    types = set(map(type, values))
    if types <= {int, float, bool}:
        return True
    if types == {str}:
        return all(map(str.strip, values))  # type: ignore[arg-type]  # they are texts
    return all(map(is_filled, values))
