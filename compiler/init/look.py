"""What a file is: its encoding and dialect, and by path the types and few values of what stands in it."""

import codecs
import contextlib
import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import find_reader, known_suffixes, read
from tuneyard.compiler.read.inputs import data_files
from tuneyard.compiler.read.scan import LOOKED_AT, is_rows, is_turn, layout_of
from tuneyard.compiler.read.stream import GET_AGAIN, DamagedError, NotTextError, Readable, opened, suffix
from tuneyard.compiler.read.zips import members
from tuneyard.compiler.spec.column_meanings import goes_by, usual_steps
from tuneyard.compiler.spec.file import Source
from tuneyard.compiler.spec.model import PART
from tuneyard.core.errors import ContentError
from tuneyard.core.han import HAN

SPLITS = {
    "train": ("train", "training", "训练"),
    "eval": ("eval", "evaluation", "dev", "val", "valid", "validation", "验证"),
    "test": ("test", "测试"),
}
SAMPLE = 20_000
SPLIT_NAMES = {name for names in SPLITS.values() for name in names}
MOST_VALUES = 30
KEPT = 1000
FEW = 0.01
FEWEST_ROWS = 20  # that are worth a split, or prove that a label repeats
PROSE = 15  # characters that a text has on average, at least
SCALARS = ("text", "number", "truth value", "fraction")
CHINESE = re.compile(f"[{HAN}]")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_SENTENCE = re.compile(r"[.?!。？！]$")


@dataclass(slots=True)
class Leaf:
    """One value of a row by its path: how often it has which type, and its values while they are few."""

    path: str
    kinds: Counter[str] = field(default_factory=Counter)
    values: dict[object, None] = field(default_factory=dict)
    characters: int = 0
    chinese: int = 0
    filled: int = 0
    hashes: set[int] = field(default_factory=set)

    @property
    def in_chinese(self) -> bool:
        """Whether it is Chinese text: three tenths of its characters are."""
        return self.chinese > 0.3 * self.characters

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of the path in the vocabulary's spelling, without positions in lists."""
        return usual_steps(self.path)

    @property
    def name(self) -> str:
        """The last step of the path in the vocabulary's spelling."""
        return self.steps[-1] if self.steps else ""

    def goes_by(self, name: str) -> bool:
        """True if the path ends in a name of the vocabulary."""
        return goes_by(self.path, name)

    @property
    def kind(self) -> str:
        """The type that most of its values have, null left aside."""
        kinds = [(count, kind) for kind, count in self.kinds.items() if kind != "null"]
        return max(kinds)[1] if kinds else "null"


@dataclass(slots=True)
class FileProfile:
    """A file looked at: how it is read, the rows looked at, the leaves by path, what was wrong.

    `user_columns` are the paths that the user named, by role; `first` the first thousand rows.
    """

    path: Path
    source: Source
    rows: int = 0
    leaves: dict[str, Leaf] = field(default_factory=dict)
    problems: Problems = field(default_factory=lambda: Problems(1))
    user_columns: dict[str, str] = field(default_factory=dict)
    first: list[dict[str, object]] = field(default_factory=list)

    def filled_columns(self) -> set[str]:
        """The columns that hold a value in one of the first rows."""
        return {name for row in self.first for name, value in row.items() if value not in (None, "", [])}

    def user_leaf(self, role: str) -> Leaf | None:
        """The leaf that the user named for a role (text, text2, label, answer)."""
        return self.leaves.get(self.user_columns.get(role, ""))

    def named(self, names: Iterable[str], kind: str = "text") -> Leaf | None:
        """The first leaf of this type that goes by one of the names, in the order of the names."""
        for name in names:
            for leaf in self.leaves.values():
                if leaf.kind == kind and leaf.goes_by(name):
                    return leaf
        return None


def look(path: Path) -> Iterator[FileProfile]:
    """Read the first 20,000 rows, for each list that may hold them, the outermost first.

    Of a folder or an archive the first data file (of train, where one is) tells how all are written.
    `RequestError` or `ContentError` where there are none to be read.
    """
    files = data_files(path)
    parts = _parts(files)
    splits: dict[str, tuple[str, ...]] = {name: (name,) for name in parts}
    first: Readable = Path(parts["train"][0]) if "train" in parts else files[0]
    try:
        with contextlib.ExitStack() as stack:
            if isinstance(first, Path) and suffix(first) == ".zip":
                inside = stack.enter_context(members(first))
                if not inside:
                    raise ContentError(f"{first}: no data file in the archive (known: {known_suffixes()})")
                first = inside[0]
            encoding = _encoding(first) if find_reader(suffix(first), str(first)).text else "utf-8"
            for ways in _ways(first, encoding):
                found = _best_reading(path, first, ways)
                if not found.rows:
                    errors = found.problems.errors
                    why = errors[0].line() if errors else f"{path}: no rows"
                    raise ContentError(f"{why}; there is nothing to guess from")
                if parts:
                    found.source = replace(found.source, files=parts, splits=splits)
                yield found
    except DamagedError as error:
        raise ContentError(f"{path}: {error}; {GET_AGAIN}") from error


def _parts(files: list[Path]) -> dict[str, tuple[str, ...]]:
    """Return a folder's files by split, where the names of all tell one and there are two splits at least."""
    parts: dict[str, list[str]] = {}
    for file in files:
        words = re.split(r"[\W_\d]+", file.name.split(".")[0].lower())
        split = next((split for split, names in SPLITS.items() if set(names).intersection(words)), None)
        if split is None:
            return {}
        parts.setdefault(split, []).append(str(file))
    return {split: tuple(paths) for split, paths in parts.items()} if len(parts) > 1 else {}


def _best_reading(path: Path, file: Readable, ways: Iterable[Source]) -> FileProfile:
    """Read a file in each way that it may be written; the one with the fewest problems wins."""
    readings = []
    for source in ways:
        readings.append(found := FileProfile(path, source))
        several: set[str] = set()
        for split in source.splits or (PART,):
            for rows in read(file, str(file), source, found.problems, split):
                found.rows += len(rows.lines)
                for number in range(len(rows.lines)):
                    row = cast("dict[str, object]", rows.row(number))
                    _note(found.leaves, several, "", row)
                    found.first += [row] if len(found.first) < KEPT else []
                if found.rows >= SAMPLE:
                    break
        for path_in in several:  # the first of several is not all of them
            found.leaves = {p: x for p, x in found.leaves.items() if not p.startswith(f"{path_in}.")}
        if not found.problems.errors:
            break
    return min(readings, key=lambda reading: reading.problems.count("E"))


def _ways(path: Readable, encoding: str) -> Iterator[Iterable[Source]]:
    """Yield, for each list of a file that may hold its rows, the ways in which the file may be written."""
    if suffix(path) in (".csv", ".tsv"):
        yield _dialects(path, encoding)
        return
    head = _head(path, encoding) if suffix(path) == ".json" else b""
    lists = layout_of(head, len(head) < LOOKED_AT).lists
    if len(lists) > 1 and SPLIT_NAMES.issuperset(map(str.lower, lists)):
        yield [Source({}, {}, {name: (name,) for name in lists}, encoding, rows={x: (x,) for x in lists})]
    elif len(lists) == 1:
        for steps in _deeper(next(iter(lists.values())), tuple(lists)):
            yield [Source({}, {}, {}, encoding, rows={"": steps})]
    else:
        yield [Source({}, {}, {}, encoding)]


def _deeper(items: list[object], steps: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the keys to a list of objects, then those to the one list of objects in each of them, and on."""
    yield steps
    inner: dict[str, list[object]] = {}
    for item in items:
        for name, value in cast("dict[str, object]", item).items():
            if is_rows(value) and not is_turn(value[0]):
                inner.setdefault(name, []).extend(value)
    if len(inner) == 1:
        for name, inside in inner.items():
            yield from _deeper(inside, (*steps, name))


def _head(path: Readable, encoding: str) -> bytes:
    try:
        with opened(path, encoding) as stream:
            return stream.read(LOOKED_AT)
    except NotTextError as error:
        raise ContentError(f"{path}: {error}: {error.hint}") from error


def _encoding(path: Readable) -> str:
    """Return utf-8, what the byte-order mark says, or gb18030 where the bytes are Chinese text in it."""
    try:
        with opened(path, "utf-8") as stream:
            data = stream.read(LOOKED_AT)
    except NotTextError as error:
        return error.guess
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data)
    if text.count("\ufffd") <= FEW * len(text):  # UTF-8, at most with broken places that compile names
        return "utf-8"
    try:
        text = codecs.getincrementaldecoder("gb18030")().decode(data)
    except UnicodeDecodeError:
        text = ""
    foreign = [sign for sign in text if not sign.isascii()]
    chinese = [sign for sign in foreign if "\u3000" <= sign <= "\u9fff" or "\uff00" <= sign <= "\uffef"]
    if len(chinese) < 0.9 * len(foreign) or not chinese:
        raise ContentError(f"{path}: not UTF-8, and no other encoding can be told: save it as UTF-8")
    return "gb18030"


def _dialects(path: Readable, encoding: str) -> Iterator[Source]:
    """Yield the ways in which a table may be written, the usual one first."""
    usual = "\t" if suffix(path) == ".tsv" else ","
    head = _head(path, encoding).decode(errors="replace")
    first = head.partition("\n")[0]
    counts = {sign: first.count(sign) for sign in (usual, ";", "\t", "|", ",")}
    most = usual if counts[usual] else max(counts, key=lambda sign: counts[sign])
    csv_like = suffix(path) == ".csv"
    for quoted in (None, not csv_like):
        names = _header_of(head, most, csv_like if quoted is None else quoted)
        yield Source({}, {}, {}, encoding, None if most == usual else most, quoted, names)


def _header_of(text: str, delimiter: str, quoted: bool) -> tuple[str, ...]:
    """Return names for the columns of a table that begins with a row, () where it begins with a header."""
    lines = text.splitlines()[:200]
    try:
        rows = list(csv.reader(lines, delimiter=delimiter)) if quoted else [x.split(delimiter) for x in lines]
    except csv.Error:
        return ()
    width = len(rows[0]) if rows else 0
    rows = [row for row in rows if len(row) == width]
    if width < 2 or len(rows) < 2 or rows[0] == [str(number) for number in range(width)]:
        return ()
    columns = list(zip(*rows, strict=True))
    return _named(columns) if any(map(_is_row, columns)) else ()


def _is_row(cells: Sequence[str]) -> bool:
    """Whether the first cell is a number among numbers, a label that comes again, or a sentence."""
    first, others = cells[0], cells[1:]
    if _NUMBER.fullmatch(first):
        return all(_NUMBER.fullmatch(cell) for cell in others)
    again = first in others and len(set(others)) <= MOST_VALUES
    return bool(first) and (again or (len(first) > 40 and bool(_SENTENCE.search(first))))


def _named(columns: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return names that tell the roles: idx, label, and the texts by how many there are."""
    names = [f"column_{number}" for number in range(1, len(columns) + 1)]
    texts = [n for n, cells in enumerate(columns) if sum(map(len, cells)) >= PROSE * len(cells)]
    few = [
        n
        for n, cells in enumerate(columns)
        if n not in texts and "" not in cells and 2 <= len(set(cells)) <= min(MOST_VALUES, len(cells) // 2)
    ]
    for number, cells in enumerate(columns):
        if all(map(_NUMBER.fullmatch, cells)) and len(set(cells)) == len(cells):
            names[number] = "idx" if "idx" not in names else names[number]
    if few:
        names[few[-1]] = "label"
    roles = ("premise", "hypothesis") if few else ("question", "answer")
    for number, role in zip(texts, roles if len(texts) > 1 else ("text",), strict=False):
        names[number] = role
    return tuple(names)


def _note(leaves: dict[str, Leaf], several: set[str], path: str, value: object) -> None:
    """Walk into a row and note every leaf; lists of texts, of turns, of several objects are leaves."""
    kind = _kind(value)
    if kind == "object":
        for key, inner in cast("dict[str, object]", value).items():
            _note(leaves, several, f"{path}.{key}" if path else str(key), inner)
    elif kind == "one object":
        _note(leaves, several, f"{path}.0", cast("list[object]", value)[0])
    elif path:
        several |= {path} if kind == "several objects" else set()
        leaf = leaves.setdefault(path, Leaf(path))
        leaf.kinds[kind] += 1
        if isinstance(value, str):
            leaf.characters += len(value)
            leaf.chinese += len(CHINESE.findall(value))
        if kind in SCALARS and value != "":
            leaf.filled += 1
            leaf.hashes.add(hash(value))
        if kind in SCALARS and len(leaf.values) <= MOST_VALUES:
            leaf.values[value] = None


def _kind(value: object) -> str:
    if isinstance(value, list):
        if is_rows(value):
            return "turns" if is_turn(value[0]) else "one object" if len(value) == 1 else "several objects"
        return "texts" if value and all(isinstance(item, str) for item in value) else "list"
    names = {str: "text", bool: "truth value", int: "number", float: "fraction", dict: "object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
