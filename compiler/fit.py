"""Is the set fit to train on? Duplicates, conflicts, leaks, balance, and text that should not be there."""

import re
from collections.abc import Iterable
from itertools import chain
from operator import add
from typing import cast

from compiler.problems import Problems
from compiler.rows import Batch
from compiler.seen import Seen, repeated
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
Texts = list[str]

# One pass over the bytes of a batch: ASCII letters become small, blanks go, and each control
# character becomes NUL, which is quickly looked for. The separator stays what it is.
_SEPARATOR = "\x1e"
_CONTROLS = bytes([*range(9), 11, 12, *range(14, 30), 31, 127])
_PLAIN = bytes.maketrans(bytes(range(65, 91)) + _CONTROLS, bytes(range(97, 123)) + bytes(len(_CONTROLS)))
_BLANKS = b" \t\r\n"


class Fit:
    """Sees every kept row once, batch by batch, and compares rows with rows at the end."""

    def __init__(self, spec: Spec, problems: Problems) -> None:
        self.problems = problems
        self.splits: dict[str, Seen] = {}
        kinds = {column.name: column.kind for column in spec.columns}
        self.labelled = bool(spec.labels)
        self.group = spec.group
        self.asked = _used(spec.outputs[0], PROMPT)
        self.answer = [name for name in _used(spec.outputs[0], ANSWER) if kinds[name] != "label"]
        self.learned_label = "label" in _used(spec.outputs[0], ANSWER) and self.labelled
        self.may_be_blank = [name for name in self.answer if kinds[name] == "answer"]
        self.turns = next((name for name, kind in kinds.items() if kind == "turns"), None)
        if self.turns:
            self.asked, self.answer = ["asked"], ["answered"]

    def see(self, split: str, batch: Batch, numbered: bool) -> None:
        """Take in a batch; `numbered`: its ids come from the file, so that they should differ."""
        seen = self.splits.setdefault(split, Seen())
        seen.begin(batch.prefix, batch.lines)
        texts = self._texts(batch)
        plain = dict(zip(texts, self._plain(list(texts.values()), batch), strict=True))
        keys = {name: list(map(hash, column)) for name, column in plain.items()}
        answers = [keys[name] for name in self.answer]
        if self.learned_label:
            answers.append(list(map(hash, batch.columns["label"])))
        asked = [keys[name] for name in self.asked]
        prompts = asked[0] if len(asked) == 1 else list(map(hash, zip(*asked, strict=True)))
        seen.prompts.fromlist(prompts)
        seen.pairs.fromlist(list(map(hash, zip(prompts, *answers, strict=True))))
        if self.group:
            seen.groups.fromlist(keys.get(self.group) or list(map(hash, batch.columns[self.group])))
        if numbered:
            seen.ids.fromlist(list(map(hash, batch.columns["idx"])))
        if self.labelled:
            seen.labels.update(batch.columns["label"])
        self._lengths(seen, list(texts.values()), batch)
        for name in self.may_be_blank:
            if b"" in plain[name]:
                empty = [number for number, text in enumerate(plain[name]) if not text]
                self._warn("W204", batch, empty, "an empty answer would be trained on", name)

    def _texts(self, batch: Batch) -> dict[str, Texts]:
        """Return what is asked and what is to be learned, as columns of text by name."""
        if self.turns is None:
            return {name: _text_column(batch.columns[name]) for name in [*self.asked, *self.answer]}
        talks = cast("list[list[Turn]]", batch.columns[self.turns])
        asked = ["\n".join(turn.text for turn in talk[:-1]) for talk in talks]
        return {"asked": asked, "answered": [talk[-1].text for talk in talks]}

    def _plain(self, columns: list[Texts], batch: Batch) -> list[list[bytes]]:
        """Return texts without blanks, in small letters (ASCII); look for what should not be in a text."""
        joined = _SEPARATOR.join(chain.from_iterable(columns))
        plain = joined.encode().translate(_PLAIN, _BLANKS)
        parts = plain.split(b"\x1e")
        size = len(batch)
        odd = len(parts) != size * len(columns)
        if odd:  # a text holds the separator
            parts = [text.encode().translate(_PLAIN, _BLANKS) for text in chain.from_iterable(columns)]
        if odd or b"\0" in plain:
            self._search(CONTROL, "W206", "a control character", columns, batch)
        if ("<" in joined or "INST]" in joined) and TOKENS.search(joined):
            self._search(TOKENS, "W205", "a token of a chat template inside the text", columns, batch)
        return [parts[start : start + size] for start in range(0, len(parts), size)]

    def _search(self, bad: re.Pattern[str], code: str, what: str, columns: list[Texts], batch: Batch) -> None:
        for number, texts in enumerate(zip(*columns, strict=True)):
            hit = next((hit for text in texts if (hit := bad.search(text))), None)
            if hit:
                self._warn(code, batch, [number], f"{what}: {show_value(hit[0])}")

    def _lengths(self, seen: Seen, columns: list[Texts], batch: Batch) -> None:
        lengths = list(map(len, columns[0]))
        for column in columns[1:]:
            lengths = list(map(add, lengths, map(len, column)))
        seen.lengths.update(lengths)
        if max(lengths) >= LONG:
            long = [number for number, length in enumerate(lengths) if length >= LONG]
            self._warn("W207", batch, long, "a very long row: a million characters or more")

    def _warn(self, code: str, batch: Batch, numbers: Iterable[int], message: str, field: str = "") -> None:
        for number in numbers:
            self.problems.warn(Problem(code, batch.place(number), message, field))

    def finish(self) -> dict[str, object]:
        """Compare rows with rows; return what the manifest says about each split."""
        self.splits = {split: seen for split, seen in self.splits.items() if seen.rows}
        for seen in self.splits.values():
            self._repeats(seen)
        names = list(self.splits)
        report: dict[str, object] = {split: seen.summary() for split, seen in self.splits.items()}
        for other in names[1:]:
            self._leaks(names[0], other)
            if self.group:
                first, groups = self.splits[names[0]].groups, set(self.splits[other].groups)
                report[f"{self.group} shared by {names[0]} and {other}"] = len(groups.intersection(first))
        return report

    def _repeats(self, seen: Seen) -> None:
        for code, what, keys in (("W201", "the same id", seen.ids), ("W202", "the same row", seen.pairs)):
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


def _used(output: Output, fields: Iterable[str]) -> list[str]:
    """Return the columns that stand in these templates of an output, each once."""
    texts = [output.templates[name] for name in fields if name in output.templates]
    return list(dict.fromkeys(name for text in texts for _, name in placeholders(text) if name is not None))


def _text_column(values: list[object]) -> Texts:
    return cast("Texts", values) if set(map(type, values)) <= {str} else list(map(str, values))
