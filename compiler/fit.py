"""Is the set fit to train on? Duplicates, conflicts, leaks, balance, and text that should not be there."""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from math import ceil
from operator import add
from typing import cast

from compiler.problems import Problems
from compiler.rows import Batch, Line
from compiler.spec import Output, Spec, placeholders
from compiler.turns import Turn
from core.errors import Problem, show_value

LONG = 1_000_000
PROMPT = ("instruction", "input", "system", "user", "text")
ANSWER = ("output", "assistant")
TOKENS = re.compile(
    r"<\|[A-Za-z_0-9 ]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<｜[^｜]{1,40}｜>"
)
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SEPARATOR = "\x1e"
_PLAIN = bytes.maketrans(
    bytes(range(65, 91)) + bytes([*range(9), 11, 12, *range(14, 30), 31, 127]),
    bytes(range(97, 123)) + bytes(9 + 2 + 16 + 2),
)
_SPACE = b" \t\r\n"


@dataclass(slots=True)
class Seen:
    """What one split's kept rows were: 8-byte keys of normalised text, row by row, and their places."""

    prompts: "array[int]" = field(default_factory=lambda: array("q"))
    pairs: "array[int]" = field(default_factory=lambda: array("q"))
    groups: "array[int]" = field(default_factory=lambda: array("q"))
    ids: "array[int]" = field(default_factory=lambda: array("q"))
    starts: list[int] = field(default_factory=list)
    places: list[tuple[str, Sequence[Line]]] = field(default_factory=list)
    labels: Counter[object] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """How many rows were seen."""
        return len(self.prompts)

    def place(self, row: int) -> str:
        """Return the address of the kept row with this number (from 0)."""
        part = bisect_right(self.starts, row) - 1
        prefix, lines = self.places[part]
        return f"{prefix}{lines[row - self.starts[part]]}"


class Fit:
    """Sees every kept row once, batch by batch, and reports at the end."""

    def __init__(self, spec: Spec, problems: Problems) -> None:
        self.spec = spec
        self.problems = problems
        self.splits: dict[str, Seen] = {}
        kinds = {column.name: column.kind for column in spec.columns}
        self.prompt = _used(spec.outputs[0], PROMPT)
        self.answer = _used(spec.outputs[0], ANSWER)
        self.turns = next((name for name, kind in kinds.items() if kind == "turns"), None)
        self.blank = [name for name in self.answer if kinds.get(name) == "answer"]
        self.has_ids = "idx" in kinds

    def see(self, split: str, batch: Batch, numbered: bool) -> None:
        """Take in a batch; `numbered`: its ids come from the file, so that they should differ."""
        seen = self.splits.setdefault(split, Seen())
        if not batch.lines:
            return
        seen.starts.append(seen.rows)
        seen.places.append((batch.prefix, _compact(batch.lines)))
        prompt, answer = self._texts(batch)
        plain = self._normalised([*prompt, *answer], batch)
        keys = [list(map(hash, column)) for column in plain]
        prompts = keys[0] if len(prompt) == 1 else list(map(hash, zip(*keys[: len(prompt)], strict=True)))
        seen.prompts.extend(prompts)
        seen.pairs.extend(map(hash, zip(prompts, *keys[len(prompt) :], strict=True)))
        self._details(seen, batch, prompt, answer, plain)
        if self.spec.group:
            group = self.prompt.index(self.spec.group) if self.spec.group in self.prompt else None
            seen.groups.extend(
                keys[group] if group is not None else map(hash, batch.columns[self.spec.group])
            )
        if numbered:
            seen.ids.extend(map(hash, batch.columns["idx"]))

    def _texts(self, batch: Batch) -> tuple[list[list[str]], list[list[str]]]:
        """Return what is asked and what is to be learned, as columns of text."""
        if self.turns:
            talks = cast("list[list[Turn]]", batch.columns[self.turns])
            asked = ["\n".join(turn.text for turn in talk[:-1]) for talk in talks]
            return [asked], [[talk[-1].text for talk in talks]]
        return [_column(batch, name) for name in self.prompt], [_column(batch, name) for name in self.answer]

    def _normalised(self, columns: list[list[str]], batch: Batch) -> list[list[bytes]]:
        """Return texts without blanks, in lower case (ASCII); look for what should not be in a text."""
        size = len(batch)
        joined = _SEPARATOR.join(chain.from_iterable(columns))
        plain = joined.encode().translate(_PLAIN, _SPACE)
        parts = plain.split(b"\x1e")
        if len(parts) != size * len(columns):
            parts = [text.encode().translate(_PLAIN, _SPACE) for column in columns for text in column]
            self._search(CONTROL, "W206", "a control character", columns, batch)
        elif b"\0" in plain:
            self._search(CONTROL, "W206", "a control character", columns, batch)
        if ("<" in joined or "INST]" in joined) and TOKENS.search(joined):
            self._search(TOKENS, "W205", "a token of a chat template inside the text", columns, batch)
        return [parts[start : start + size] for start in range(0, len(parts), size)]

    def _search(
        self, pattern: re.Pattern[str], code: str, what: str, columns: list[list[str]], batch: Batch
    ) -> None:
        for number, texts in enumerate(zip(*columns, strict=True)):
            hit = next((hit for text in texts if (hit := pattern.search(text))), None)
            if hit:
                self.problems.warn(Problem(code, batch.place(number), f"{what}: {show_value(hit[0])}"))

    def _details(
        self,
        seen: Seen,
        batch: Batch,
        prompt: list[list[str]],
        answer: list[list[str]],
        plain: list[list[bytes]],
    ) -> None:
        lengths = list(map(len, prompt[0]))
        for column in [*prompt[1:], *answer]:
            lengths = list(map(add, lengths, map(len, column)))
        seen.lengths.update(lengths)
        if max(lengths) >= LONG:
            long = [number for number, length in enumerate(lengths) if length >= LONG]
            self._warn("W207", batch, long, "a very long row: a million characters or more")
        if self.spec.labels:
            seen.labels.update(batch.columns["label"])
        for name in self.blank:
            texts = plain[len(prompt) + self.answer.index(name)]
            if b"" in texts:
                empty = [number for number, text in enumerate(texts) if not text]
                self._warn("W204", batch, empty, "an empty answer would be trained on", name)

    def _warn(self, code: str, batch: Batch, numbers: Iterable[int], message: str, field: str = "") -> None:
        for number in numbers:
            self.problems.warn(Problem(code, batch.place(number), message, field))

    def finish(self) -> dict[str, object]:
        """Compare rows with rows; return what the manifest says about each split."""
        for seen in self.splits.values():
            self._repeats(seen)
        names = list(self.splits)
        for other in names[1:]:
            self._leaks(names[0], other)
        return {split: self._summary(seen) for split, seen in self.splits.items() if seen.rows}

    def _repeats(self, seen: Seen) -> None:
        for code, what, keys in (
            ("W201", "the same id", seen.ids),
            ("W202", "the same row", seen.pairs),
        ):
            for first, again in repeated(keys):
                self.problems.warn(Problem(code, seen.place(again), f"{what} as in {seen.place(first)}"))
        for first, again in repeated(seen.prompts):
            if seen.pairs[first] != seen.pairs[again]:
                message = f"the same input as in {seen.place(first)}, another answer"
                self.problems.warn(Problem("W203", seen.place(again), message))

    def _leaks(self, train: str, other: str) -> None:
        one, two = self.splits[train], self.splits[other]
        there = dict(zip(two.prompts, range(two.rows), strict=True))
        for row, key in enumerate(one.prompts):
            if key in there:
                message = f"the same input stands in {other}: {two.place(there[key])}"
                self.problems.warn(Problem("W208", one.place(row), message))

    def _summary(self, seen: Seen) -> dict[str, object]:
        return {
            "rows": seen.rows,
            "labels": dict(sorted(seen.labels.items(), key=str)),
            "characters": _quantiles(seen.lengths),
        }

    def shared_groups(self) -> dict[str, int]:
        """Return, for each split but the first, how many of its groups the first one has too."""
        names = [name for name, seen in self.splits.items() if seen.rows]
        return {
            other: len(set(self.splits[other].groups).intersection(self.splits[names[0]].groups))
            for other in names[1:]
        }


def repeated(keys: "array[int]") -> list[tuple[int, int]]:
    """Return (first row, later row) for every row whose key came before, in order.

    numpy sorts 400,000 keys in 20 ms but takes 0.2 s to import: below 100,000 plain Python is faster.
    """
    if len(keys) > 100_000:
        import numpy as np

        values = np.frombuffer(keys, np.int64)
        order = np.sort(values)
        twice = order[1:][order[1:] == order[:-1]]
        if not len(twice):
            return []
        candidates: Iterable[int] = np.flatnonzero(np.isin(values, twice)).tolist()
    elif len(set(keys)) == len(keys):
        return []
    else:
        candidates = range(len(keys))
    first: dict[int, int] = {}
    found = [(first.setdefault(keys[row], row), row) for row in candidates]
    return [(one, other) for one, other in found if one != other]


def _used(output: Output, fields: Iterable[str]) -> list[str]:
    """Return the columns that stand in these templates of an output, each once."""
    texts = [output.templates[name] for name in fields if name in output.templates]
    return list(dict.fromkeys(name for text in texts for _, name in placeholders(text) if name is not None))


def _column(batch: Batch, name: str) -> list[str]:
    values = batch.columns[name]
    return cast("list[str]", values) if set(map(type, values)) <= {str} else list(map(str, values))


def _compact(lines: Sequence[Line]) -> Sequence[Line]:
    """Keep a place for every row in as little memory as can be."""
    if isinstance(lines, range) or isinstance(lines[0], str):
        return lines
    return array("L", cast("Sequence[int]", lines)) if all(type(line) is int for line in lines) else lines


def _quantiles(lengths: Counter[int]) -> dict[str, int]:
    """Return the shortest, median, 95th percentile and longest length (nearest rank)."""
    ordered = sorted(lengths.items())
    total = sum(lengths.values())
    sums = list(accumulate(count for _, count in ordered))

    def at(share: float) -> int:
        return ordered[bisect_left(sums, max(1, ceil(share * total)))][0]

    return {"min": ordered[0][0], "median": at(0.5), "p95": at(0.95), "max": ordered[-1][0]}
