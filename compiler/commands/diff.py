"""Compares two datasets example by example: added, removed and changed examples, and shifts of labels."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress, islice, repeat
from operator import ne
from pathlib import Path

from tuneyard.compiler.commands.dataset_reader import few, stored_examples
from tuneyard.compiler.lint.fingerprints import Codes, Fingerprints
from tuneyard.compiler.lint.matching import paired
from tuneyard.compiler.lint.row_checks import keys_of_ids
from tuneyard.compiler.lint.spool import Spool
from tuneyard.core.errors import counted
from tuneyard.core.splits import ROW_TYPE

SHOWN = 20
NO_ID = -(1 << 62)
Rows = Sequence[int]
Change = tuple[str, str, str, str]


class Side:
    """The keys, places and labels of one of two datasets. `labels` is None if its answers are no labels."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.prints = Fingerprints()
        self.labels: Codes | None = Codes()
        for examples in stored_examples(name, folder):
            examples.add_to(self.prints)
            ids = examples.ids
            if not {int, str}.issuperset(map(type, ids)):
                ids = [idx if isinstance(idx, str | int) else NO_ID for idx in ids]
            self.prints.ids.extend(keys_of_ids(ids))
            if self.labels:
                self.labels.note(examples.labels())
                if not few(Counter(map(str, self.labels.names()))):
                    self.labels = None

    def label_counts(self) -> Counter[str]:
        """The count of each label, empty if the answers are no labels."""
        if not self.labels:
            return Counter()
        counts = Counter(self.labels.rows)
        return Counter({str(name): counts[code] for code, name in enumerate(self.labels.names())})

    def labels_of(self, rows: Rows) -> Iterator[str]:
        """Yield the labels of some rows, "" if the answers are no labels."""
        if not self.labels:
            return repeat("", len(rows))
        names = list(map(str, self.labels.names()))
        return map(names.__getitem__, self.labels.rows.take(rows))


@dataclass(slots=True)
class Difference:
    """The differences of two datasets, as numbers of their rows.

    `pairs` has the rows of A and of B that were changed into one another.
    """

    sides: tuple[Side, Side]
    same: int = 0
    removed_rows: Rows = ()
    added_rows: Rows = ()
    pairs: tuple[Rows, Rows] = ((), ())
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def different(self) -> bool:
        """True if an example was added, removed or changed. The order does not count."""
        return bool(self.added_rows or self.removed_rows or self.pairs[0])

    def removed(self) -> Iterator[str]:
        """Yield the places of examples that only A has."""
        return map(self.sides[0].prints.place, self.removed_rows)

    def added(self) -> Iterator[str]:
        """Yield the places of examples that only B has."""
        return map(self.sides[1].prints.place, self.added_rows)

    def changed(self) -> Iterator[Change]:
        """Yield place in A, place in B, label in A and label in B of changed examples."""
        before, after = (map(side.prints.place, rows) for side, rows in self._changed_rows())
        for place, other_place, (old, new) in zip(before, after, self.changed_labels(), strict=True):
            yield place, other_place, old, new

    def changed_labels(self) -> Iterator[tuple[str, str]]:
        """Yield the label in A and in B of changed examples, "" if the answers are no labels."""
        if not self.labels:
            return repeat(("", ""), len(self.pairs[0]))
        before, after = (side.labels_of(rows) for side, rows in self._changed_rows())
        return zip(before, after, strict=True)

    def _changed_rows(self) -> Iterator[tuple[Side, Rows]]:
        return zip(self.sides, self.pairs, strict=True)

    def as_json(self) -> dict[str, object]:
        """The differences for `--json`."""
        before, after = self.sides
        names = ("a", "b", "label_a", "label_b")
        return {
            "a": {"name": before.name, "examples": before.prints.rows},
            "b": {"name": after.name, "examples": after.prints.rows},
            "same": self.same,
            "added": list(self.added()),
            "removed": list(self.removed()),
            "changed": [dict(zip(names, each, strict=True)) for each in self.changed()],
            "labels": {name: {"a": a, "b": b} for name, (a, b) in self.labels.items()},
        }

    def lines(self, every: bool) -> Iterator[str]:
        """Yield the lines for people, the first 20 places of each kind unless `every`."""
        before, after = (side.prints.rows for side in self.sides)
        yield from _listed("added    ", self.added(), len(self.added_rows), every)
        yield from _listed("removed    ", self.removed(), len(self.removed_rows), every)
        yield from _listed("changed  ", map(_change_line, self.changed()), len(self.pairs[0]), every)
        shifts = Counter((old, new) for old, new in self.changed_labels() if old != new)
        for (old, new), count in shifts.items():
            yield f"shift    {old} → {new}: {counted(count, 'example')}"
        for name, (old_count, new_count) in self.labels.items():
            yield f"label    {name}: {_share(old_count, before)} → {_share(new_count, after)}"
        yield (
            f"{self.sides[0].name} {before} → {self.sides[1].name} {after}: same {self.same}, "
            f"added {len(self.added_rows)}, removed {len(self.removed_rows)}, changed {len(self.pairs[0])}"
        )


def diff(first: str, second: str, folder: Path) -> Difference:
    """Compare two datasets by name, or files of records. The order does not count, repeats do.

    Examples with the same prompt are the same or changed. Among the others, those with one `idx` are changed.
    Memory holds some hundred examples, and their keys while they are compared.
    """
    before, after = Side(first, folder), Side(second, folder)
    result = Difference((before, after))
    old_labels, new_labels = before.label_counts(), after.label_counts()
    if old_labels and new_labels:
        names = sorted(old_labels | new_labels)
        result.labels = {name: (old_labels[name], new_labels[name]) for name in names}
    old, new = before.prints, after.prints
    same, same_there = paired(old.answers, new.answers)
    result.same = len(same)
    removed, added = _others(range(old.rows), same), _others(range(new.rows), same_there)
    changed, changed_there = array(ROW_TYPE), array(ROW_TYPE)
    for keys, others in ((old.prompts, new.prompts), (old.ids, new.ids)):
        candidates, candidates_there = _with_key(removed, keys), _with_key(added, others)
        places, places_there = paired(keys.take(candidates), others.take(candidates_there))
        rows = array(ROW_TYPE, [candidates[place] for place in places])
        rows_there = array(ROW_TYPE, [candidates_there[place] for place in places_there])
        changed.extend(rows)
        changed_there.extend(rows_there)
        removed, added = _others(removed, rows), _others(added, rows_there)
    result.pairs = (changed, changed_there)
    result.removed_rows, result.added_rows = removed, added
    return result


def _with_key(rows: Rows, keys: Spool) -> Rows:
    """The rows that have a key: an example may lack an id."""
    return array(ROW_TYPE, compress(rows, map(ne, keys.take(rows), repeat(NO_ID))))


def _others(rows: Rows, without: Rows) -> Rows:
    """The rows, in rising order, that are not among others."""
    if len(rows) == len(without):
        return ()
    marks = bytearray(rows[-1] + 1)
    for row in without:
        marks[row] = 1
    return array(ROW_TYPE, (row for row in rows if not marks[row]))


def _listed(title: str, lines: Iterator[str], count: int, every: bool) -> Iterator[str]:
    """Yield lines with their title, the first 20 unless `every`, and how many more there are."""
    shown = count if every else min(count, SHOWN)
    for line in islice(lines, shown):
        yield f"{title}{line}"
    if count > shown:
        yield f"{title.rstrip()}    … and {count - shown} more (--all shows them)"


def _change_line(change: Change) -> str:
    place, other_place, old, new = change
    shift = f": {old} → {new}" if old != new else ""
    return f"{place} → {other_place}{shift}"


def _share(count: int, total: int) -> str:
    return f"{count} ({count / total:.1%})" if total else str(count)
