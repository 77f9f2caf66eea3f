"""Columns whose type comes from a plug-in: errors of its code name its package, as do unwritable values."""

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from tuneyard.compiler.rows import Batch, Fields
from tuneyard.compiler.spec.column_types import Column, ColumnReader, FileContext, Row, Values
from tuneyard.core.errors import show_value
from tuneyard.core.files import are_texts
from tuneyard.core.language.message import _
from tuneyard.core.plugins import Plugin, call
from tuneyard.core.records.calls import WrongValueError


def reader_of(column: Column, file: FileContext) -> ColumnReader:
    """The reader of a column. Errors of a plug-in's reader name it, but for values that it refuses."""
    plugin = column.type.plugin
    if plugin is None:
        return column.type.reader(column, file)
    with plugin.guarded():
        reader = column.type.reader(column, file)
    steps: dict[str, Callable[..., object]] = {
        "unfold": partial(_unfold, reader.unfold),
        "check_row": partial(_check_row, reader.check_row),
        "notes": partial(_notes, reader.notes),
    }
    if reader.read is not None:
        steps["read"] = reader.read
    for name, step in steps.items():
        setattr(reader, name, partial(call, plugin, WrongValueError, step))
    return reader


def _unfold(unfold: Callable[[Values], Values], values: Values) -> Values:
    unfolded = unfold(values)
    if len(unfolded) != len(values):
        raise ValueError(
            _("`unfold` made {number} values of {total}", number=len(unfolded), total=len(values))
        )
    return unfolded


def _check_row(check_row: Callable[[Row], Fields], row: Row) -> Fields:
    changed = check_row(row)
    if not isinstance(changed, dict) or not changed.keys() <= row.keys():
        raise ValueError(
            _(
                "`check_row` gave {changed}, expected columns of the row that change",
                changed=show_value(changed),
            )
        )
    for name, value in changed.items():
        if isinstance(row[name], str) and not isinstance(value, str):
            raise TypeError(
                _(
                    "`check_row` put {value} in place of a text in column {name}",
                    value=show_value(value),
                    name=name,
                )
            )
    return changed


def _notes(notes: Callable[[], list[str]]) -> list[str]:
    lines = notes()
    if not isinstance(lines, list) or not are_texts(lines):
        raise TypeError(_("`notes` gave {lines}, expected a list of texts", lines=show_value(lines)))
    return lines


def refuse_unwritable(column: Column, plugin: Plugin, batch: Batch) -> None:
    """Raise `PluginError` for values of a plug-in's column that no record can contain."""
    values: list[Any] = batch.columns[column.name]
    with plugin.guarded():
        for value in values:
            if column.type.is_text and not isinstance(value, str):
                raise TypeError(
                    _(
                        "column {name}: read {value}, expected text (`is_text`)",
                        name=column.name,
                        value=show_value(value),
                    )
                )
        orjson.dumps(values)
