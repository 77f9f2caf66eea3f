"""The bundled spec that reads a file, and what a spec for the file has to change of it (`like: NAME`)."""

from dataclasses import dataclass
from functools import cache
from typing import cast

from tuneyard.compiler.init.guess import Column as ProposedColumn
from tuneyard.compiler.init.guess import Proposal
from tuneyard.compiler.init.look import CHINESE, FileProfile, Leaf
from tuneyard.compiler.kinds.pair import PAIR
from tuneyard.compiler.spec.column_meanings import role_of_names
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.model import UNLABELLED, Column, Spec, load_spec
from tuneyard.core.records import PLACEHOLDERS

_LEAF_KINDS = {
    "text": ("text",),
    "answer": ("text",),
    "extra": ("text", "null"),
    "list": ("texts",),
    "turns": ("turns",),
}
"""The types that a value may have, by the kind of its column. Other kinds take any type."""


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
        without_source = len(self.spec.columns) - len(self.paths)
        position = 0
        renamed = 0
        for column in self.spec.columns:
            path = self.paths.get(column.name, "").lower()
            names = [name.lower() for name in column.names]
            position += names.index(path) if path in names else 0
            renamed += role_of_names(column.names) != column.name
        return (-len(self.paths), len(self.changes), without_source, position, renamed)


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
    """The bundled specs that read any file: no mixtures, none with files of its own."""
    specs = map(load_spec, known_specs())
    return tuple(spec for spec in specs if not spec.mix and not spec.source.files)


def _matched(spec: Spec, profile: FileProfile, proposal: Proposal | None) -> BundledSpec | None:
    """Match each column of a spec with a column of the file; None if the spec does not read it."""
    fixed_wording = bool(spec.labels) or proposal is None
    paths: dict[str, str] = {}
    changes: dict[str, ProposedColumn] = {}
    for column in spec.columns:
        if column.kind == "id":
            continue
        path = _source_column(column, profile)
        role = role_of_names(column.names)
        proposed = _proposed_column(proposal, role, column.kind)
        if proposed is not None:
            proposed_path = _path_of(proposed)
            settings = _settings(proposed, column)
            if proposed_path != path or settings:
                if fixed_wording:
                    return None
                changes[column.name] = _change(column, proposed_path, settings)
            path = proposed_path
        if path:
            paths[column.name] = path
        elif column.required:
            return None
    candidate = BundledSpec(spec, paths, changes)
    return candidate if _fits(candidate, profile, proposal) else None


def _fits(candidate: BundledSpec, profile: FileProfile, proposal: Proposal | None) -> bool:
    """True if the spec reads all columns of the proposal, in its language, and maps just its labels."""
    spec, paths = candidate.spec, candidate.paths
    if proposal is None:
        if len(paths) < 3:
            return False
    else:
        needed = {_path_of(column) for column in proposal.columns.values()}
        lacks_turns = "turns" in proposal.columns and not spec.turns
        if lacks_turns or not needed <= set(paths.values()):
            return False
    is_text = spec.outputs[0].format == "text"
    if is_text != (proposal is not None and proposal.write["format"] == "text"):
        return False
    if is_text and spec.outputs[0].templates.get("text") != "{text}":
        return False
    if "label" not in spec.kinds:
        return proposal is None or not proposal.labels
    if "label" not in paths or not _maps_labels(spec, profile.leaves[paths["label"]]):
        return False
    prompts = proposal.prompts.values() if proposal else ()
    wording = "".join(spec.outputs[0].templates.values())
    return any(leaf.in_chinese for leaf in prompts) == bool(CHINESE.search(wording))


def _maps_labels(spec: Spec, leaf: Leaf) -> bool:
    """True if the values of a leaf are all labels of the spec, and each label has a value."""
    name_of = {str(raw): name for name, raws in spec.labels.items() for raw in raws}
    names = {name_of.get(str(value)) for value in leaf.values}
    return names | {UNLABELLED} == {*spec.labels, UNLABELLED}


def _source_column(column: Column, profile: FileProfile) -> str:
    """The path that a spec's column finds in the file by itself, "" if there is none of a fitting type."""
    tops = {path.partition(".")[0] for path in profile.leaves}
    kinds = _LEAF_KINDS.get(column.kind)
    lower = {path.lower(): path for path in reversed(profile.leaves)}
    for name in column.names:
        path = name if name in profile.leaves else lower.get(name.lower(), "")
        if path and (kinds is None or profile.leaves[path].kind in kinds):
            return path
        if name in tops and column.kind in (*PAIR, *PLACEHOLDERS, "tools", "history", "best"):
            return name
    return ""


def _proposed_column(proposal: Proposal | None, role: str, kind: str) -> ProposedColumn | None:
    """The column of a proposal that has the role and the kind of a spec's column."""
    column = proposal.columns.get(role) if proposal else None
    if column is None:
        return None
    proposed_kind = column.get("is") if isinstance(column, dict) else role if role == "label" else "text"
    return column if proposed_kind == kind else None


def _path_of(column: ProposedColumn) -> str:
    if isinstance(column, dict):
        return cast("list[str]", column["names"])[0]
    return column[0]


def _settings(proposed: ProposedColumn, column: Column) -> dict[str, object]:
    """The settings of a proposed column that the spec's column lacks (`calls`, `best`)."""
    if not isinstance(proposed, dict):
        return {}
    usual = {"names", "is", "default"}
    return {
        key: value for key, value in proposed.items() if key not in usual and getattr(column, key) != value
    }


def _change(column: Column, path: str, settings: dict[str, object]) -> ProposedColumn:
    """What to write over a spec's column: its name list alone, or a mapping that keeps its kind."""
    if column.kind in ("text", "label") and not settings:
        return [path]
    return {"names": [path], **settings}
