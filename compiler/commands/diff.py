"""Two datasets example by example: what was added, removed, answered otherwise, and how labels moved."""

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
    """What differs between two datasets; `changed` has (place in A, place in B, label in A, label in B)."""

    names: tuple[str, str]
    counts: tuple[int, int]
    same: int = 0
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[tuple[str, str, str, str]] = field(default_factory=list)
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def different(self) -> bool:
        """Whether an example was added, removed or changed (another order is no difference)."""
        return bool(self.added or self.removed or self.changed)

    def as_json(self) -> dict[str, object]:
        """Return all of it for `--json`."""
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
        shifts = [f": {old} → {new}" if old != new else "" for *_, old, new in self.changed]
        changed = [f"{a} → {b}{shift}" for (a, b, *_), shift in zip(self.changed, shifts, strict=True)]
        for what, found in (("added    ", self.added), ("removed    ", self.removed), ("changed  ", changed)):
            shown = found if every else found[:SHOWN]
            yield from (f"{what}{each}" for each in shown)
            if rest := len(found) - len(shown):
                yield f"{what.rstrip()}    … and {rest} more (--all shows them)"
        for (old, new), count in Counter((old, new) for *_, old, new in self.changed if old != new).items():
            yield f"shift    {old} → {new}: {counted(count, 'example')}"
        for name, (before, after) in self.labels.items():
            yield f"label    {name}: {_share(before, self.counts[0])} → {_share(after, self.counts[1])}"
        yield (
            f"{self.names[0]} {self.counts[0]} → {self.names[1]} {self.counts[1]}: same {self.same}, "
            f"added {len(self.added)}, removed {len(self.removed)}, changed {len(self.changed)}"
        )


def diff(first: str, second: str, folder: Path) -> Difference:
    """Compare two datasets by name, or files of records; order is no difference, repeats are counted.

    Examples of the same prompt are the same or changed; of the others, those of one `idx` are changed.
    Memory holds about 300 bytes an example.
    """
    removed, added = (
        [each._replace(prompt="", answer="", other_parts="") for each in stored_examples(name, folder)]
        for name in (first, second)
    )
    result = Difference((first, second), (len(removed), len(added)))
    before, after = (few(Counter(each.label for each in side)) for side in (removed, added))
    if before and after:
        result.labels = {name: (before[name], after[name]) for name in sorted(before | after)}
    removed, added, same = _matched(removed, added, attrgetter("key", "content"))
    result.same = len(same)
    for by in ("key", "idx"):
        removed, added, pairs = _matched(removed, added, attrgetter(by))
        known = bool(result.labels)
        result.changed += [(a.place, b.place, a.label * known, b.label * known) for a, b in pairs]
    result.removed, result.added = [one.place for one in removed], [one.place for one in added]
    return result


def _matched(
    first: list[StoredExample], second: list[StoredExample], by: Callable[[StoredExample], object]
) -> tuple[list[StoredExample], list[StoredExample], list[tuple[StoredExample, StoredExample]]]:
    """Return what is left of both sides, and the pairs that are equal by this, in the order of the second."""
    waiting: defaultdict[object, list[StoredExample]] = defaultdict(list)
    for one in reversed(first):
        waiting[by(one)].append(one)
    waiting.pop(None, None)  # of those without an idx
    pairs, left = [], []
    for one in second:
        if others := waiting.get(by(one)):
            pairs.append((others.pop(), one))
        else:
            left.append(one)
    taken = {id(one) for one, _ in pairs}
    return [one for one in first if id(one) not in taken], left, pairs


def _share(count: int, total: int) -> str:
    return f"{count} ({count / total:.1%})" if total else str(count)
