"""Compares two datasets example by example: added, removed and changed examples, and shifts of labels."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from tuneyard.compiler.commands.dataset_reader import StoredExample, few, stored_examples
from tuneyard.core.errors import counted

SHOWN = 20


@dataclass(slots=True)
class Difference:
    """The differences of two datasets; `changed` has (place in A, place in B, label in A, label in B)."""

    names: tuple[str, str]
    counts: tuple[int, int]
    same: int = 0
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[tuple[str, str, str, str]] = field(default_factory=list)
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def different(self) -> bool:
        """True if an example was added, removed or changed. The order does not count."""
        return bool(self.added or self.removed or self.changed)

    def as_json(self) -> dict[str, object]:
        """The differences for `--json`."""
        names = ("a", "b", "label_a", "label_b")
        return {
            "a": {"name": self.names[0], "examples": self.counts[0]},
            "b": {"name": self.names[1], "examples": self.counts[1]},
            "same": self.same,
            "added": self.added,
            "removed": self.removed,
            "changed": [dict(zip(names, each, strict=True)) for each in self.changed],
            "labels": {name: {"a": a, "b": b} for name, (a, b) in self.labels.items()},
        }

    def lines(self, every: bool) -> Iterator[str]:
        """Yield the lines for people, the first 20 places of each kind unless `every`."""
        changed = []
        shifts: Counter[tuple[str, str]] = Counter()
        for place, other_place, old, new in self.changed:
            line = f"{place} → {other_place}"
            if old != new:
                line += f": {old} → {new}"
                shifts[old, new] += 1
            changed.append(line)
        for title, places in (
            ("added    ", self.added),
            ("removed    ", self.removed),
            ("changed  ", changed),
        ):
            listed = places if every else places[:SHOWN]
            for place in listed:
                yield f"{title}{place}"
            rest = len(places) - len(listed)
            if rest:
                yield f"{title.rstrip()}    … and {rest} more (--all shows them)"
        for (old, new), count in shifts.items():
            yield f"shift    {old} → {new}: {counted(count, 'example')}"
        for name, (before, after) in self.labels.items():
            yield f"label    {name}: {_share(before, self.counts[0])} → {_share(after, self.counts[1])}"
        yield (
            f"{self.names[0]} {self.counts[0]} → {self.names[1]} {self.counts[1]}: same {self.same}, "
            f"added {len(self.added)}, removed {len(self.removed)}, changed {len(self.changed)}"
        )


def diff(first: str, second: str, folder: Path) -> Difference:
    """Compare two datasets by name, or files of records. The order does not count, repeats do.

    Examples with the same prompt are the same or changed. Among the others, those with one `idx` are changed.
    Memory holds about 300 bytes an example.
    """
    removed = _examples_without_texts(first, folder)
    added = _examples_without_texts(second, folder)
    result = Difference((first, second), (len(removed), len(added)))
    before = few(Counter(example.label for example in removed))
    after = few(Counter(example.label for example in added))
    if before and after:
        result.labels = {name: (before[name], after[name]) for name in sorted(before | after)}
    removed, added, same = _matched(removed, added, attrgetter("key", "content"))
    result.same = len(same)
    for by in ("key", "idx"):
        removed, added, pairs = _matched(removed, added, attrgetter(by))
        for old, new in pairs:
            labels = (old.label, new.label) if result.labels else ("", "")
            result.changed.append((old.place, new.place, *labels))
    result.removed = [example.place for example in removed]
    result.added = [example.place for example in added]
    return result


def _examples_without_texts(name: str, folder: Path) -> list[StoredExample]:
    """The examples of a dataset with their hashes only, since memory holds all of them."""
    examples = stored_examples(name, folder)
    return [example._replace(prompt="", answer="", other_parts="") for example in examples]


def _matched(
    first: list[StoredExample], second: list[StoredExample], by: Callable[[StoredExample], object]
) -> tuple[list[StoredExample], list[StoredExample], list[tuple[StoredExample, StoredExample]]]:
    """Pair examples with equal keys. Returns the other examples of both sides, and the pairs."""
    waiting: defaultdict[object, list[StoredExample]] = defaultdict(list)
    for example in reversed(first):
        waiting[by(example)].append(example)
    waiting.pop(None, None)  # examples without an idx
    pairs, left = [], []
    for example in second:
        candidates = waiting.get(by(example))
        if candidates:
            pairs.append((candidates.pop(), example))
        else:
            left.append(example)
    paired = {id(example) for example, _ in pairs}
    return [example for example in first if id(example) not in paired], left, pairs


def _share(count: int, total: int) -> str:
    return f"{count} ({count / total:.1%})" if total else str(count)
