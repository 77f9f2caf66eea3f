"""The bundled spec that reads a file, and the changes that the file needs (`like: NAME`)."""

from dataclasses import dataclass
from functools import cache
from typing import cast

from tuneyard.compiler.init.profile import CHINESE, FileProfile
from tuneyard.compiler.init.proposal import Proposal, ProposedColumn
from tuneyard.compiler.kinds import kind_of
from tuneyard.compiler.spec.column import Column
from tuneyard.compiler.spec.column_meanings import role_of_names
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.model import UNLABELLED, Spec, load_spec


@dataclass(frozen=True, slots=True)
class BundledSpec:
    """A bundled spec that reads a file.

    `paths` are the source columns by the spec's column. `changes` are the columns that it does not find by
    itself.
    """

    spec: Spec
    paths: dict[str, str]
    changes: dict[str, ProposedColumn]

    @property
    def rank(self) -> tuple[int, ...]:
        """Smaller is better: many columns used, few changes, few columns without a source, usual names."""
        missing = {column.name for column in self.spec.columns} - self.paths.keys()
        without_source = len(missing - {"system"})  # most files have no system text
        renamed = sum(role_of_names(column.names) != column.name for column in self.spec.columns)
        return (-len(self.paths), len(self.changes), without_source, renamed)


def find_bundled_spec(profile: FileProfile, proposal: Proposal | None) -> BundledSpec | None:
    """The bundled spec that fits best and reads at least the columns of the proposal, if there is one."""
    candidates = []
    for spec in _bundled_specs():
        candidate = _matched(spec, profile, proposal)
        if candidate is not None:
            candidates.append(candidate)
    return min(candidates, key=lambda candidate: (candidate.rank, candidate.spec.name), default=None)


@cache
def _bundled_specs() -> tuple[Spec, ...]:
    """The bundled specs that read any file, without mixtures and specs of fixed files."""
    specs = map(load_spec, known_specs())
    return tuple(spec for spec in specs if not spec.mix and not spec.source.files)


def _matched(spec: Spec, profile: FileProfile, proposal: Proposal | None) -> BundledSpec | None:
    """Match each column of a spec with a column of the file; None if the spec does not read it."""
    fixed_wording = bool(spec.labels) or proposal is None
    paths: dict[str, str] = {}
    changes: dict[str, ProposedColumn] = {}
    for column in spec.columns:
        if column.kind.is_id:
            continue
        path = _source_column(column, profile)
        role = role_of_names(column.names)
        proposed = _proposed_column(proposal, role, column.kind.name)
        if proposed is not None:
            change = proposed
            if isinstance(proposed, dict):
                change = {"names": proposed["names"]}
                for key in proposed.keys() - {"names", "is", "default"}:
                    if column.options.get(key) != proposed[key]:
                        change[key] = proposed[key]
            proposed_path = _path_of(proposed)
            if proposed_path != path or len(change) > 1:
                if fixed_wording:
                    return None
                changes[column.name] = change
            path = proposed_path
        if path:
            paths[column.name] = path
        elif column.required:
            return None
    candidate = BundledSpec(spec, paths, changes)
    if not _fits(candidate, profile, proposal):
        return None
    return candidate


def _fits(candidate: BundledSpec, profile: FileProfile, proposal: Proposal | None) -> bool:
    """True if the spec reads all columns of the proposal, in its language, and maps just its labels."""
    spec, paths = candidate.spec, candidate.paths
    if proposal is None:
        if len(paths) < 3:
            return False
    else:
        for column in proposal.columns.values():
            if _path_of(column) not in paths.values():
                return False
            has_turns = isinstance(column, dict) and kind_of(str(column["is"])).is_conversation
            if has_turns and not spec.turns:
                return False
    is_text = spec.outputs[0].format == "text"
    if is_text != (proposal is not None and proposal.write["format"] == "text"):
        return False
    if is_text and spec.outputs[0].templates.get("text") != "{text}":
        return False
    label_columns = [column.name for column in spec.columns if column.kind.is_label]
    if not label_columns:
        return proposal is None or not proposal.labels
    if label_columns[0] not in paths:
        return False
    label_of: dict[str, str] = {}
    for label, values in spec.labels.items():
        label_of.update({str(value): label for value in values})
    leaf = profile.leaves[paths[label_columns[0]]]
    labels = {label_of.get(str(value)) for value in leaf.values}
    if labels | {UNLABELLED} != {*spec.labels, UNLABELLED}:
        return False
    in_chinese = False
    if proposal is not None:
        for label, raw_labels in proposal.labels.items():
            if label in spec.labels and any(label_of.get(str(raw), label) != label for raw in raw_labels):
                return False
        in_chinese = any(prompt.in_chinese for prompt in proposal.prompts.values())
    wording = "".join(spec.outputs[0].templates.values())
    return in_chinese == bool(CHINESE.search(wording))


def _source_column(column: Column, profile: FileProfile) -> str:
    """The path that a spec's column finds in the file by itself, "" if there is none of a fitting type."""
    kind = column.kind
    top_columns = {path.partition(".")[0] for path in profile.leaves}
    path_by_lower = {path.lower(): path for path in reversed(profile.leaves)}
    for name in column.names:
        path = path_by_lower.get(name.lower(), "")
        if name in profile.leaves:
            path = name
        if path and (not kind.leaf_types or profile.leaves[path].kind in kind.leaf_types):
            return path
        if name in top_columns and kind.takes_lists and not kind.leaf_types:
            return name
    return ""


def _proposed_column(proposal: Proposal | None, role: str, kind: str) -> ProposedColumn | None:
    """The column of a proposal that has the role and the kind of a spec's column."""
    if proposal is None:
        return None
    column = proposal.columns.get(role)
    proposed_kind: object = "text"
    if isinstance(column, dict):
        proposed_kind = column.get("is")
    elif role == "label":
        proposed_kind = role
    return column if proposed_kind == kind else None


def _path_of(column: ProposedColumn) -> str:
    if isinstance(column, dict):
        return cast("list[str]", column["names"])[0]
    return column[0]
