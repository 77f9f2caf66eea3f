"""Compares two datasets example by example: added, removed and changed examples, and shifts of labels."""

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from sys import intern

from tuneyard.compiler.lint.matching import paired
from tuneyard.compiler.lint.text_keys import keys_of_texts, plain_text
from tuneyard.compiler.read.dataset_reader import few, label_of, stored_examples
from tuneyard.compiler.rows.draw import ROW_TYPE
from tuneyard.compiler.rows.locations import Locations
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import _, counted, joined
from tuneyard.core.records import Example

SHOWN = 20
Rows = Sequence[int]
Change = tuple[str, str, str, str]


class Side:
    """Keys, locations and labels of one of two datasets. `labels` is empty if its answers are no labels."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.locations = Locations()
        self.prompts, self.contents = array("q"), array("q")
        self.labels: list[str] = []
        self.label_counts: Counter[str] = Counter()
        has_labels = True
        for examples in stored_examples(name, folder):
            self.locations.add(examples.prefix, examples.lines)
            # prompts are compared as in a compile, contents exactly
            self.prompts.extend(keys_of_texts(map(plain_text, examples.prompts())))
            self.contents.extend(keys_of_texts(map(_content, examples.examples)))
            if has_labels:
                labels = list(map(label_of, examples.examples))
                self.label_counts.update(labels)
                self.labels += map(intern, labels)
                has_labels = bool(few(self.label_counts))
        if not has_labels:
            self.labels, self.label_counts = [], Counter()


def _content(example: Example) -> bytes:
    """Everything that the model learns from."""
    messages = [(message.role, message.text) for message in example.messages]
    answers = [(answer.role, answer.text) for answer in example.answers]
    prompt = [example.system, messages, example.tools, example.media]
    return json.dumps([prompt, answers, example.desirable], default=str).encode()


@dataclass
class Difference:
    """The differences of two datasets, as numbers of their rows.

    `pairs` has the rows of A and of B that were changed into one another.
    """

    before: Side
    after: Side
    same: int
    removed_rows: Rows
    added_rows: Rows
    pairs: tuple[Rows, Rows]

    @property
    def different(self) -> bool:
        """True if an example was added, removed or changed. The order does not count."""
        return bool(self.added_rows or self.removed_rows or self.pairs[0])

    def removed(self) -> Iterator[str]:
        """Yield the locations of examples that only A has."""
        return map(self.before.locations.__getitem__, self.removed_rows)

    def added(self) -> Iterator[str]:
        """Yield the locations of examples that only B has."""
        return map(self.after.locations.__getitem__, self.added_rows)

    def changed(self) -> Iterator[Change]:
        """Yield location in A, location in B, label in A and label in B of changed examples.

        The labels are "" if the answers of a dataset are no labels.
        """
        before, after = self.before, self.after
        old, new = "", ""
        for row, other in zip(*self.pairs, strict=True):
            if before.labels and after.labels:
                old, new = before.labels[row], after.labels[other]
            yield before.locations[row], after.locations[other], old, new

    def as_json(self) -> JsonObject:
        """The differences for `--json`."""
        before, after = self.before, self.after
        names = ("a", "b", "label_a", "label_b")
        return {
            "a": {"name": before.name, "examples": before.locations.rows},
            "b": {"name": after.name, "examples": after.locations.rows},
            "same": self.same,
            "added": list(self.added()),
            "removed": list(self.removed()),
            "changed": [dict(zip(names, each, strict=True)) for each in self.changed()],
            "labels": {"a": before.label_counts, "b": after.label_counts},
        }

    def lines(self, every: bool) -> Iterator[str]:
        """Yield the lines for people, the first 20 locations of each kind unless `every`."""
        before, after = self.before, self.after
        yield from _listed("added    ", self.added(), len(self.added_rows), every)
        yield from _listed("removed  ", self.removed(), len(self.removed_rows), every)
        yield from _listed("changed  ", map(_change_line, self.changed()), len(self.pairs[0]), every)
        shifts = Counter((old, new) for _unused, _unused, old, new in self.changed() if old != new)
        for (old, new), count in shifts.items():
            yield _(
                "shift    {old} → {new}: {count}",
                old=old,
                new=new,
                count=counted(count, "example", "examples"),
            )
        for name in sorted(before.label_counts | after.label_counts):
            yield _(
                "label    {label}: {before} → {after}",
                label=name,
                before=before.label_counts[name],
                after=after.label_counts[name],
            )
        yield (
            _(
                "{before} {rows_before} → {after} {rows_after}: same {same}, added {added}, removed "
                "{removed}, changed {changed}",
                before=before.name,
                rows_before=before.locations.rows,
                after=after.name,
                rows_after=after.locations.rows,
                same=self.same,
                added=len(self.added_rows),
                removed=len(self.removed_rows),
                changed=len(self.pairs[0]),
            )
        )


def diff(first: str, second: str, folder: Path) -> Difference:
    """Compare two datasets by name, or files of records. The order does not count, repeats do.

    Examples with the same prompt, blanks and upper case left aside, are the same or changed. Memory holds
    some hundred examples, and two keys of each.
    """
    before, after = Side(first, folder), Side(second, folder)
    same, same_there = paired(before.contents, after.contents)
    removed, added = (
        _others(range(before.locations.rows), same),
        _others(range(after.locations.rows), same_there),
    )
    positions, places_there = paired(_taken(before.prompts, removed), _taken(after.prompts, added))
    changed = _taken(removed, positions), _taken(added, places_there)
    removed, added = _others(removed, changed[0]), _others(added, changed[1])
    return Difference(before, after, len(same), removed, added, changed)


def _taken(numbers: Rows, positions: Rows) -> "array[int]":
    return array("q", map(numbers.__getitem__, positions))


def _others(rows: Rows, without: Rows) -> Rows:
    """The rows, in rising order, that are not among others."""
    if len(rows) == len(without):
        return ()
    is_taken = bytearray(rows[-1] + 1)
    for row in without:
        is_taken[row] = 1
    return array(ROW_TYPE, (row for row in rows if not is_taken[row]))


def _listed(title: str, lines: Iterator[str], count: int, every: bool) -> Iterator[str]:
    """Yield lines with their title, the first 20 unless `every`, and how many more there are."""
    count_to_print = count if every else min(count, SHOWN)
    for line in islice(lines, count_to_print):
        yield joined((title, line), "")
    if count > count_to_print:
        yield _(
            "{title}    … and {count} more (--all shows them)",
            title=title.rstrip(),
            count=count - count_to_print,
        )


def _change_line(change: Change) -> str:
    location, other_place, old, new = change
    shift = f": {old} → {new}" if old != new else ""
    return joined((location, " → ", other_place, shift), "")
