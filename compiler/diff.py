"""Two datasets example by example: what was added, removed, answered otherwise, and how labels moved."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from compiler.stored import Example, stored_examples
from core.errors import counted

MOST_LABELS = 30
LONGEST = 60  # characters of an answer that may be a label
SHOWN = 20


@dataclass(frozen=True, slots=True)
class RowKey:
    """An example in a few bytes: hashes of what is asked and answered, place, id, and label ("" for none)."""

    prompt: int
    content: int
    place: str
    idx: object
    label: str


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
        most = None if every else SHOWN
        found = (("added", self.added), ("removed", self.removed))
        for what, places in found:
            yield from (f"{what}    {place}" for place in places[:most])
            yield from _rest(what, len(places), most)
        for a, b, old, new in self.changed[:most]:
            yield f"changed  {a} → {b}" + (f": {old} → {new}" if old != new else "")
        yield from _rest("changed", len(self.changed), most)
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
    sides = [[_key(example) for example in stored_examples(name, folder)] for name in (first, second)]
    labels = [_labels(side) for side in sides]
    result = Difference((first, second), (len(sides[0]), len(sides[1])))
    if all(labels):
        names = dict.fromkeys([*labels[0], *labels[1]])
        result.labels = {name: (labels[0][name], labels[1][name]) for name in sorted(names)}
    removed, added = sides
    for by in ("prompt and content", "prompt", "idx"):
        removed, added, pairs = _matched(removed, added, by)
        if by == "prompt and content":
            result.same = len(pairs)
        else:
            known = bool(result.labels)
            result.changed += [(a.place, b.place, a.label * known, b.label * known) for a, b in pairs]
    result.removed, result.added = [key.place for key in removed], [key.place for key in added]
    return result


def _key(example: Example) -> RowKey:
    label = example.answer if len(example.answer) <= LONGEST else ""
    return RowKey(example.key, example.content, example.place, example.idx, label)


def _labels(side: list[RowKey]) -> Counter[str]:
    """Return how often each label is there; empty where the answers are no few short texts."""
    labels: Counter[str] = Counter()
    for key in side:
        labels[key.label] += 1
        if not key.label or len(labels) > MOST_LABELS:
            return Counter()
    return labels


def _matched(
    first: list[RowKey], second: list[RowKey], by: str
) -> tuple[list[RowKey], list[RowKey], list[tuple[RowKey, RowKey]]]:
    """Return what is left of both sides, and the pairs that are equal by this, in the order of the second."""
    waiting: defaultdict[object, list[RowKey]] = defaultdict(list)
    for key in reversed(first):
        if (value := _value(key, by)) is not None:
            waiting[value].append(key)
    pairs, left = [], []
    for key in second:
        value = _value(key, by)
        others = waiting.get(value) if value is not None else None
        if others:
            pairs.append((others.pop(), key))
        else:
            left.append(key)
    taken = {id(one) for one, _ in pairs}
    return [key for key in first if id(key) not in taken], left, pairs


def _value(key: RowKey, by: str) -> object:
    if by == "idx":
        return key.idx
    return key.prompt if by == "prompt" else (key.prompt, key.content)


def _rest(what: str, count: int, most: int | None) -> Iterator[str]:
    if most is not None and count > most:
        yield f"{what}    … and {count - most} more (--all shows them)"


def _share(count: int, total: int) -> str:
    return f"{count} ({count / total:.1%})" if total else str(count)
