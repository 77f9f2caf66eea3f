"""What a registered file should become: its entry as LLaMA-Factory 0.9.5 (data/parser.py) has it, its turns.

Naming `columns` (or `tags`) makes every one of them that is not named None, and a key that it does not know
is passed over. Records are read by our own readers, after the documented format and not after its code, so
that the two can be compared; not by core.prompt, which scores records that LLaMA-Factory drops and defaults
tags that it takes for None.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tuneyard.compiler.kinds.pair import PAIR
from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import read
from tuneyard.compiler.rows import Rows
from tuneyard.compiler.spec.file import Source
from tuneyard.core.datasets import PARTS, REMOTE_SOURCES, is_input, left_out_texts, loaded_files, query_fix
from tuneyard.core.documents import BOM
from tuneyard.core.errors import ContentError, Problem, ProblemsError, counted, nearest, show_value
from tuneyard.core.records import ALPACA, PLACEHOLDERS, SHAREGPT_TAGS, strings

SHAREGPT = {"messages": "conversations"}
EXTRAS = ("history", "system", "tools", "images", "videos", "audios", "chosen", "rejected", "kto_tag")
NOT_NEEDED = ("system_tag", "observation_tag", "function_tag")  # a record with such a turn is E406
FORMATS = ("alpaca", "sharegpt")
OPENAI = "LLaMA-Factory's openai adds words of its own to each system text: use sharegpt with tags"
KEYS = {
    "file_name", "formatting", "columns", "tags", "ranking", "subset", "split", "folder", "num_samples",
    *REMOTE_SOURCES,
}  # fmt: skip
Record = Mapping[str, object]
Turn = tuple[str, str]
SHAPES = 1000  # kinds of records remembered; a file of more is only slower
# Of Arrow; null goes with every type.
TYPES = {bool: "truth values", int: "numbers", float: "numbers", str: "texts", list: "lists", dict: "objects"}
LEFT_OUT = "and the entry does not name it: LLaMA-Factory leaves it out"
ROLES = ("user", "assistant", "observation", "function", "system")


def entry_problems(place: str, entry: Mapping[str, object], meaning: Meaning) -> Iterator[Problem]:
    """Yield what is wrong with an entry by itself: unknown keys, parts that are left out."""
    yield from _unknown(place, entry, KEYS, "")
    yield from _unknown(place, entry.get("columns"), {*ALPACA, *SHAREGPT, *EXTRAS}, "columns.")
    yield from _unknown(place, entry.get("tags"), set(SHAREGPT_TAGS), "tags.")
    if meaning.format not in FORMATS:
        message = f"found {show_value(meaning.format)}, expected one of {', '.join(FORMATS)}"
        hint = OPENAI if meaning.format == "openai" else nearest(meaning.format, FORMATS)
        yield Problem("E401", place, message, "formatting", hint)
        return
    alpaca = meaning.format == "alpaca"
    answers = PAIR if meaning.ranking else ("response",) if alpaca else ()
    due = dict.fromkeys(("prompt" if alpaca else "messages", *answers), "its column")
    tags = {} if alpaca else {tag: repr(text) for tag, text in SHAREGPT_TAGS.items() if tag not in NOT_NEEDED}
    for part, known, needed, effect in (
        ("columns", meaning.columns, due, "part that is not named empty"),
        ("tags", meaning.tags, tags, "tag that is not named None"),
    ):
        for name in (name for name in needed if name not in known):
            message = f"{name!r} is not named: naming `{part}` makes every {effect}"
            yield Problem("E402", place, message, part, f"add {name!r}: {needed[name]}")


def column_problems(place: str, meaning: Meaning, found: set[str]) -> Iterator[Problem]:
    """Yield the columns that an entry names and no record has; `found` are the keys of all records."""
    wanted = set(ALPACA) | {"history"} if meaning.format == "alpaca" else {"messages"}
    for part, column in meaning.columns.items():
        if part in wanted | {"system", "tools"} and column not in found:
            there = ", ".join(map(show_value, sorted(found)))
            message = f"no record has {show_value(column)} (found: {there})"
            yield Problem("E403", place, message, f"columns.{part}", nearest(column, found))


def _unknown(place: str, value: object, known: set[str], where: str) -> Iterator[Problem]:
    if value is not None and not isinstance(value, dict):
        yield Problem("E401", place, f"found {show_value(value)}, expected an object", where.rstrip("."))
        return
    for key in cast("dict[str, object]", value or {}):
        if key not in known:
            message = "LLaMA-Factory does not know this key and passes over it"
            yield Problem("E401", place, message, f"{where}{key}", nearest(key, known))


@dataclass(slots=True)
class Expected:
    """Reads a file, or those of a folder, record by record and notes what makes the loader fail on all of it.

    `count` is the number of records read so far.
    """

    path: Path
    meaning: Meaning
    count: int = 0
    keys: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    _left_out: dict[str, tuple[str, int]] = field(default_factory=dict)
    _types: dict[str, str] = field(default_factory=dict)
    _shapes: set[tuple[object, ...]] = field(default_factory=set)

    def records(self, selected: Container[int] | None = None) -> Iterator[tuple[str, ExpectedRow | str]]:
        """Yield (place, talk) for every record, or (place, why it is lost).

        `selected` has the numbers (from 0) of the records to yield; None: all of them.
        `ProblemsError` where the file itself cannot be read on; its problems have their places.
        """
        for path in loaded_files(self.path):
            yield from self._records_of(path, selected)
        self.problems += self._left_out_problems()

    def _left_out_problems(self) -> Iterator[Problem]:
        """One problem for each part that the entry does not name, one for all inputs, one for other texts."""
        inputs: list[str] = []
        texts: list[str] = []
        for name, (place, count) in self._left_out.items():
            if name in PARTS:
                message = f"{name!r} is filled in {counted(count, 'record')}, {LEFT_OUT}"
                fix = f'add "{name}": "{name}" to the entry\'s `columns`, or take it out of the file'
                yield Problem("E409", place, message, name, fix)
            elif is_input(name):
                inputs.append(name)
            else:
                texts.append(name)
        if inputs:
            yield self._left_out_columns("E409", inputs, f"{query_fix(inputs)}, or take it out of the file")
        if texts:
            yield self._left_out_columns("W409", texts, f"if the prompt needs it, {query_fix(texts)}")

    def _left_out_columns(self, code: str, names: list[str], fix: str) -> Problem:
        """The problem of several columns, at the first record of the first of them."""
        shares = []
        for name in names:
            _, count = self._left_out[name]
            shares.append(f"{name!r} is filled in {counted(count, 'record')}")
        first_place, _ = self._left_out[names[0]]
        return Problem(code, first_place, f"{' and '.join(shares)}, {LEFT_OUT}", ", ".join(names), fix)

    def _records_of(
        self, path: Path, selected: Container[int] | None
    ) -> Iterator[tuple[str, ExpectedRow | str]]:
        with path.open("rb") as file:
            if file.read(3) == BOM:
                message = "begins with a byte-order mark, which LLaMA-Factory's loader takes for broken JSON"
                self.problems.append(Problem("E404", f"{path}:1", message, hint="save it without one"))
        found = Problems()
        for rows in read(path, str(path), Source({}, {}, {}), found):
            self._look_for_left_out(rows)
            for number, line in enumerate(rows.lines):
                record, place = cast("Record", rows.row(number)), f"{rows.prefix}{line}"
                self._note(record, place)
                self._look_for_texts(record, place)
                if selected is None or self.count in selected:
                    yield place, expected_row(record, self.meaning)
                self.count += 1
        if found.errors:
            raise ProblemsError(found.errors, str(path))

    def _look_for_left_out(self, rows: Rows) -> None:
        """Count the records that hold a part which LLaMA-Factory knows and this entry does not name."""
        if self.meaning.text_only:
            return
        held, named = set(rows.names()), set(self.meaning.columns.values())
        for name in (part for part in PARTS if part in held and part not in named):
            if numbers := rows.filled(name):
                place, count = self._left_out.get(name, (f"{rows.prefix}{rows.lines[numbers[0]]}", 0))
                self._left_out[name] = (place, count + len(numbers))

    def _look_for_texts(self, record: Record, place: str) -> None:
        """Count the records with a text that the entry does not map to `query`."""
        if self.meaning.text_only:
            return
        for column in left_out_texts(record, self.meaning.columns, self.meaning.format):
            first_place, count = self._left_out.get(column, (place, 0))
            self._left_out[column] = (first_place, count + 1)

    def _note(self, record: Record, place: str) -> None:
        """Remember keys and types: one number among texts makes the loader refuse the whole file."""
        shape = (*record, *map(type, record.values()))
        if shape in self._shapes:
            return
        for key, value in record.items():
            self.keys.add(key)
            name = TYPES.get(type(value), "")
            first = self._types.setdefault(key, name) if name else name
            if name != first and not any(problem.field == key for problem in self.problems):
                odd = f"found {show_value(value)} ({name}) in a column of {first}"
                message = f"{odd}: the loader refuses the file"
                self.problems.append(Problem("E404", place, message, key, f"write it as {first}"))
        if len(self._shapes) < SHAPES:
            self._shapes.add(shape)
