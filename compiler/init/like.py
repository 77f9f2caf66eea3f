"""The bundled spec that reads a file, and the changes that the file needs (`like: NAME`)."""

from functools import cache
from typing import NamedTuple

from tuneyard.compiler.check.source_columns import find_source_column
from tuneyard.compiler.init.column_statistics import FileStatistics
from tuneyard.compiler.init.proposal import Proposal, ProposedColumn
from tuneyard.compiler.rows import Fields, without
from tuneyard.compiler.spec.column_types import Column, column_types
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.datasets.column_meanings import role_of_name


class BundledSpec(NamedTuple):
    """A bundled spec that reads a file.

    `paths` are the source columns by the spec's column. `changes` are the columns that it does not find by
    itself.
    """

    spec: Spec
    paths: dict[str, str]
    changes: Fields

    @property
    def rank(self) -> tuple[int, ...]:
        """Smaller is better: many columns used, few changes, few columns without a source, usual names."""
        without_source = self.spec.types.keys() - self.paths.keys() - {"system"}  # which most files lack
        renamed = sum(role_of_name(column.names[0]) != column.name for column in self.spec.columns)
        return (-len(self.paths), len(self.changes), len(without_source), renamed)


def find_bundled_spec(statistics: FileStatistics, proposal: Proposal) -> BundledSpec | None:
    """The bundled spec that fits best and reads at least the columns of the proposal, if there is one."""
    readers = filter(None, [_matched(spec, statistics, proposal) for spec in _bundled_specs()])
    return min(readers, key=lambda reader: (reader.rank, reader.spec.name), default=None)


@cache
def _bundled_specs() -> tuple[Spec, ...]:
    """The bundled specs that read any file: they have no labels, splits or files of their own."""
    specs = map(load_spec, known_specs())
    return tuple(spec for spec in specs if not (spec.mix or spec.labels or spec.split or spec.source.splits))


def _matched(spec: Spec, statistics: FileStatistics, proposal: Proposal) -> BundledSpec | None:
    """Match each column of a spec with a column of the file; None if the spec does not read it."""
    paths: dict[str, str] = {}
    changes: Fields = {}
    prompts = {leaf.path for leaf in proposal.prompts(statistics).values()}
    rated = proposal.columns.get("chosen", ProposedColumn("")).settings.get("best")
    for column in spec.columns:
        if column.options.get("best", rated) != rated:
            return None
        path = _source_column(column, statistics)
        proposed = proposal.columns.get(role_of_name(column.names[0]))
        if proposed and (proposed.type or "text") == column.type.name:
            settings = without(proposed.settings, "default")
            if proposed.path != path or settings:
                changes[column.name] = [proposed.path]
                if proposed.type:
                    changes[column.name] = {"names": [proposed.path], **settings}
            path = proposed.path
        elif proposed or path in prompts:
            return None  # of another type, or it would stand twice in a prompt
        if path:
            paths[column.name] = path
        elif column.required:
            return None
    candidate = BundledSpec(spec, paths, changes)
    if not _fits(candidate, proposal):
        return None
    return candidate


def _fits(candidate: BundledSpec, proposal: Proposal) -> bool:
    """True if the spec reads all columns of the proposal, and writes a plain text as it is."""
    spec, paths = candidate.spec, candidate.paths
    if not proposal.columns and len(paths) < 3:
        return False
    for column in proposal.columns.values():
        if column.path not in paths.values():
            return False
        if column.type and column_types()[column.type].is_conversation() and not spec.conversation_column:
            return False
    output = spec.outputs[0]
    return output.format != "text" or output.templates.get("text") == "{text}"


def _source_column(column: Column, statistics: FileStatistics) -> str:
    """The path that a spec's column finds in the file by itself, "" if there is none of a fitting type."""
    rows = statistics.first_rows
    path = find_source_column(column, rows.names(), rows) or ""
    column_type = column.type
    is_fitting = "items" in column_type.schema
    if path in statistics.leaves:
        is_fitting = statistics.leaves[path].value_type in column_type.leaf_types
    if is_fitting or not column_type.leaf_types:
        return path
    return ""
