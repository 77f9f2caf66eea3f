"""What a file is: its encoding and dialect, and by path the types and few values of what stands in it."""

import codecs
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from compiler.problems import Problems
from compiler.read import SUFFIXES, read
from compiler.read.stream import DamagedError, NotTextError, opened, suffix
from compiler.rows import Rows
from compiler.spec import Source
from core.errors import ContentError, RequestError

SAMPLE = 20_000
LOOKED_AT = 1 << 20
MOST_VALUES = 30
FEW = 0.01


@dataclass(slots=True)
class Leaf:
    """One value of a row by its path: how often it has which type, and its values while they are few."""

    path: str
    kinds: Counter[str] = field(default_factory=Counter)
    values: dict[object, None] = field(default_factory=dict)
    characters: int = 0

    @property
    def name(self) -> str:
        """The last step of the path that is no number, in small letters."""
        steps = [step for step in self.path.lower().split(".") if not step.isdigit()]
        return steps[-1] if steps else ""

    @property
    def kind(self) -> str:
        """The type that most of its values have, null left aside."""
        kinds = [(count, kind) for kind, count in self.kinds.items() if kind != "null"]
        return max(kinds)[1] if kinds else "null"


@dataclass(slots=True)
class Found:
    """A file looked at: the lines of a spec's `source`, the rows looked at, the leaves by path."""

    path: Path
    source: list[str]
    rows: int
    leaves: dict[str, Leaf]


def look(path: Path) -> Found:
    """Read the first 20,000 rows; `RequestError` or `ContentError` where there are none to be read."""
    if not path.is_file():
        raise RequestError(f"{path}: {'not a file' if path.exists() else 'file not found'}")
    if suffix(path) not in SUFFIXES:
        known = f"{', '.join(SUFFIXES)}, each also .gz or .zst"
        raise RequestError(f"{path}: unknown kind of file {suffix(path)!r} (known: {known})")
    problems, source, rows = _best_reading(path)
    if not rows:
        why = problems.errors[0].line() if problems.errors else f"{path}: no rows"
        raise ContentError(f"{why}; there is nothing to guess from")
    leaves: dict[str, Leaf] = {}
    for batch in rows:
        for number in range(len(batch.lines)):
            _note(leaves, "", batch.row(number))
    return Found(path, _source_lines(source), sum(len(batch.lines) for batch in rows), leaves)


def _best_reading(path: Path) -> tuple[Problems, Source, list[Rows]]:
    """Read the file in each way that it may be written; the one with the fewest problems wins."""
    readings = []
    try:
        encoding = "utf-8" if suffix(path) == ".parquet" else _encoding(path)
        for source in _dialects(path, encoding):
            problems = Problems(1)
            readings.append((problems, source, list(_some(read(path, str(path), source, problems)))))
            if not problems.errors:
                break
    except DamagedError as error:
        raise ContentError(f"{path}: {error}; get the file again") from error
    return min(readings, key=lambda reading: reading[0].count("E"))


def _encoding(path: Path) -> str:
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


def _dialects(path: Path, encoding: str) -> Iterator[Source]:
    """Yield the ways in which a file may be written, the usual one first."""
    if suffix(path) not in (".csv", ".tsv"):
        yield Source({}, {}, {}, encoding)
        return
    usual = "\t" if suffix(path) == ".tsv" else ","
    with opened(path, encoding) as stream:
        header = stream.readline(LOOKED_AT).decode(errors="replace")
    counts = {sign: header.count(sign) for sign in (usual, ";", "\t", "|", ",")}
    most = usual if counts[usual] else max(counts, key=lambda sign: counts[sign])
    delimiter = None if most == usual else most
    yield Source({}, {}, {}, encoding, delimiter)
    yield Source({}, {}, {}, encoding, delimiter, quoted=suffix(path) == ".tsv")


def _some(batches: Iterable[Rows]) -> Iterator[Rows]:
    seen = 0
    for rows in batches:
        yield rows
        seen += len(rows.lines)
        if seen >= SAMPLE:
            return


def _source_lines(source: Source) -> list[str]:
    lines = [f"  encoding: {source.encoding} # guessed from the bytes"] if source.encoding != "utf-8" else []
    if source.delimiter:
        lines.append(f"  delimiter: {json.dumps(source.delimiter)} # guessed from the header")
    if source.quoted is not None:
        lines.append(f"  quoted: {str(source.quoted).lower()} # guessed: otherwise rows differ in fields")
    return lines


def _note(leaves: dict[str, Leaf], path: str, value: object) -> None:
    """Walk into a row and note every leaf; lists of texts and of turns are leaves themselves."""
    kind = _kind(value)
    if kind == "object":
        for key, inner in cast("dict[str, object]", value).items():
            _note(leaves, f"{path}.{key}" if path else str(key), inner)
    elif kind == "objects":
        _note(leaves, f"{path}.0", cast("list[object]", value)[0])
    elif path:
        leaf = leaves.setdefault(path, Leaf(path))
        leaf.kinds[kind] += 1
        leaf.characters += len(value) if isinstance(value, str) else 0
        if kind in ("text", "number") and len(leaf.values) <= MOST_VALUES:
            leaf.values[value] = None


def _kind(value: object) -> str:
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):
            turns = any(keys <= value[0].keys() for keys in ({"from", "value"}, {"role", "content"}))
            return "turns" if turns else "objects"
        return "texts" if value and all(isinstance(item, str) for item in value) else "list"
    names = {str: "text", bool: "truth value", int: "number", float: "fraction", dict: "object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
