"""Read JSON: one object a line, or one document with all rows."""

import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePath

import orjson

from tuneyard.compiler.chat.forms import AI_STUDIO
from tuneyard.compiler.chat.message_rows import MESSAGES
from tuneyard.compiler.read import OpenFile, reader
from tuneyard.compiler.read.scan import (
    BROKEN_JSON,
    BROKEN_LIST,
    DUPLICATE_KEY,
    LINES,
    LOOKED_AT,
    ROW,
    BrokenError,
    Layout,
    Scanner,
    Steps,
    Wrong,
    are_messages,
    have_all_keys,
    layout_of,
)
from tuneyard.compiler.read.stream import (
    LARGE_RECORD,
    SHORTEN,
    TooLongError,
    blocks,
    too_long,
    undecodable,
    whole_lines,
)
from tuneyard.compiler.rows import AtKey, Fields, InList, Line, Location, ObjectRows, Prefix, without
from tuneyard.compiler.rows.problem_codes import NO_RECORDS, NOT_AN_OBJECT
from tuneyard.compiler.rows.problems import Problems, UnreadableFileError
from tuneyard.compiler.spec.column_names import key_in_spec
from tuneyard.compiler.spec.file import Source
from tuneyard.core.datasets.column_meanings import role_of_name
from tuneyard.core.errors import Problem, show_value, show_values
from tuneyard.core.files import DuplicateKeyError, unique
from tuneyard.core.files.bounded_reading import ROW_COST
from tuneyard.core.language.message import Message, _, message_of

BATCH = 1000
BATCH_BYTES = 1 << 22
OVER_LINES = _(
    "an object over several lines, where each line is a row: write each object on one line, as `jq -c .` "
    "does, or name the file .json if the object is all of it"
)
ONE_DOCUMENT = _("{shorten}; if the file is one JSON document, name it .json", shorten=SHORTEN)
AS_JSON = (
    'python -c "import ast, json, sys; [print(json.dumps(ast.literal_eval(line))) for line in sys.stdin '
    'if line.strip()]" < OLD > NEW.jsonl'
)
"""The command that writes lines of Python's notation as JSON."""
LIST = _('a list of records, such as [{{"question": "…", "answer": "…"}}]')
BY_ROWS = _(
    "a table by its columns? pandas writes it by rows: df.to_json(NEW, orient='records', lines=True); texts "
    "by their class? jq -c 'to_entries[] | {{text: .value[], label: .key}}' OLD > NEW.jsonl"
)
"""The commands that write lists of texts under their column or class by rows."""
IGNORED = "ignored next to the rows"
"""What notes on keys that are not read contain, in English."""
Found = tuple[Line, object, Wrong | None]
"""A row: its location, its value, and what is wrong with it besides that it may be no object."""
_CONSTANT = re.compile("NaN|-?Infinity")
_OPEN = re.compile(rb"\s*\{[ \t]*\r?\n")  # an object that is indented


@reader(".json", ".jsonl", ".ndjson")
def read_json(file: OpenFile, problems: Problems) -> Iterator[ObjectRows]:
    """Yield the rows of a JSON file: lines of .jsonl and .ndjson; in .json the content decides.

    A note describes the layout of a document, unless the source names the keys that lead to the rows.
    """
    stream, display_path, suffix, source = file.stream, file.display_path, file.suffix, file.source
    steps = source.steps(file.split)
    start, head = 1, b""
    while not head.strip():
        start += head.count(b"\n")
        head = stream.read(LOOKED_AT)
        if not head:
            return
    whole = chain([head], blocks(stream))
    in_lines = (
        suffix != ".json"
        and (head.lstrip()[:1] != b"[" or b"]\n[" in head)
        and not source.answers_by_question
    )
    message = ""
    if steps or source.answers_by_question:
        layout = Layout(steps, "")
        if in_lines:
            message = _(
                "`rows: {steps}` leads into one document, and in {suffix} each line is a row",
                steps=".".join(steps),
                suffix=suffix,
            )
    elif in_lines:
        layout = LINES
    else:
        layout = layout_of(head, len(head) < LOOKED_AT, source.columns)
        if AI_STUDIO in source.form and head.lstrip()[:1] == b"{":
            layout = ROW
        if len(layout.lists) > 1:
            message = ambiguous(list(layout.lists))
        elif layout.description:
            problems.notes.append(
                _(
                    "{path}: read as {description}",
                    path=display_path,
                    description=layout.description,
                )
            )
    if layout is LINES and _OPEN.match(head):
        message = OVER_LINES
    if message:
        raise UnreadableFileError(NO_RECORDS, message, location=f"{display_path}:{start}")
    if layout.steps is None:
        yield from _read_lines(whole, display_path, start, problems)
    else:
        way = None if layout is ROW else layout.steps
        yield from read_array(Scanner(whole, start), display_path, way, not steps, problems, source)


def read_array(
    scanner: Scanner,
    display_path: str,
    steps: Steps | None,
    guessed: bool,
    problems: Problems,
    source: Source,
) -> Iterator[ObjectRows]:
    """Yield the rows under these keys, item by item; () are the rows of the root, None: the root is a row.

    A list on the way is walked item by item. A row keeps the other fields of the objects around it, and the
    scalar fields of the outermost. Other fields of the outermost are noted as left out, without the keys of
    other splits. If the keys are `guessed`, a second list of objects next to theirs is a problem.
    """
    walk = _Walk(scanner, guessed, source.answers_by_question)
    rows = []
    lines = []
    count = done = 0
    since = 0  # rows, also bad ones, since the last batch
    try:
        for line, row, wrong in walk.rows(steps):
            count += 1
            since += 1
            row = as_row(row)
            if isinstance(row, dict) and not wrong:
                rows.append(row)
                lines.append(line)
            else:
                code, message = wrong or (NOT_AN_OBJECT, no_object(row))
                problems.bad_row([Problem(code, Location(Prefix(display_path), line), message)], row)
            if since >= BATCH or scanner.offset - done > BATCH_BYTES:
                yield ObjectRows(Prefix(display_path), lines, rows, text_size=scanner.offset - done)
                rows, lines, since, done = [], [], 0, scanner.offset
    except BrokenError as error:
        message, hint = message_of(error), error.hint
        if error.code in (BROKEN_LIST, LARGE_RECORD):
            message = _("{error}; {count} whole records came before", error=error, count=count)
            hint = hint or _("correct it there, or get the file again")
        location = f"{display_path}:{scanner.line_now()}"
        problems.bad_file(Problem(error.code, location, message, hint=hint))
    if rows:
        yield ObjectRows(Prefix(display_path), lines, rows, text_size=scanner.offset - done)
    rows_of_splits = {path[0] for path in source.rows.values()}
    ignored = [key_in_spec(key) for key in walk.ignored if key not in rows_of_splits]
    if ignored:
        problems.notes.append(
            _("{path}: ignored next to the rows: {keys}", path=display_path, keys=", ".join(ignored))
        )


@dataclass
class _Walk:
    """The way from the root of a document to its rows. `ignored` are the keys that it leaves out."""

    scanner: Scanner
    guessed: bool
    by_question: bool
    last_line: int = -1
    ignored: list[str] = field(default_factory=list)

    def rows(self, steps: Steps | None) -> Iterator[Found]:
        """Yield the rows; `BrokenError` if the rest of the document cannot be read."""
        if self.scanner.next_sign() not in ("[", "{"):
            raise BrokenError(
                NO_RECORDS, _("found neither a list nor an object, expected {expected}", expected=LIST)
            )
        if steps is None:
            yield self.scanner.row()
        else:
            yield from self._rows(steps, "", {})
        if self.scanner.next_sign():
            raise BrokenError(BROKEN_LIST, _("found more text after the document's end"))

    def _rows(self, steps: Steps, where: str, outer: Fields) -> Iterator[Found]:
        sign = self.scanner.next_sign()
        if sign == "[":
            yield from self._list(steps, where, outer)
        elif sign == "{":
            if steps:
                yield from self._under(steps, where, outer)
            else:
                yield from self._members(where, outer)
        else:
            value = show_value(self.scanner.value())
            raise BrokenError(
                NO_RECORDS,
                _("{where}: found {value}, expected {expected}", where=where, value=value, expected=LIST),
            )

    def _list(self, steps: Steps, where: str, outer: Fields) -> Iterator[Found]:
        before = f"{where}[" if where else ""
        number = 0
        for _unused in self.scanner.items("]"):
            lines, rows = ([], []) if steps else self.scanner.objects()
            for line, row in zip(lines, rows, strict=True):
                yield self._location(line, before, number), {**outer, **row} if outer else row, None
                number += 1
            if rows:
                continue
            line, value, wrong = self.scanner.row()
            location = self._location(line, before, number)
            if wrong or not (where or steps):
                yield location, value, wrong
            else:
                yield from _inside(value, steps, location, outer)
            number += 1

    def _location(self, line: int, before: str, number: int) -> Line:
        """The location of a row of a list: `before` is `rows[`, "" for the outermost list.

        Rows of the outermost list that begin on one line need their numbers, too.
        """
        location: Line = line
        if before:
            location = InList(line, number, before, "]")
        elif line == self.last_line:
            location = InList(line, number + 1, "record ", "")
        self.last_line = line
        return location

    def _members(self, where: str, outer: Fields) -> Iterator[Found]:
        for number in self.scanner.items("}"):
            key = self.scanner.key()
            line, value, wrong = self.scanner.row()
            if self.by_question:
                if isinstance(value, dict) and not any(map(role_of_name, value)):
                    for question, answer in value.items():
                        location = AtKey(line, number, f"key {show_value(key)}, {show_value(question)}")
                        yield location, {"topic": key, "question": question, "answer": answer}, wrong
                    continue
                answer = value if isinstance(value, dict) else {"answer": value}
                value = {"question": key, **answer}
            value = as_row(value)
            if not isinstance(value, dict):
                message = _(
                    "key {key}: found {value}, expected {expected}, or an object of rows",
                    key=show_value(key),
                    value=show_value(value),
                    expected=LIST,
                )
                fix = BY_ROWS if isinstance(value, list) else ""
                raise BrokenError(NO_RECORDS, message, fix)
            text = f"{where}.{key_in_spec(key)}" if where else f"key {show_value(key)}"
            yield AtKey(line, number, text), {**outer, **value}, wrong

    def _under(self, steps: Steps, where: str, outer: Fields) -> Iterator[Found]:
        """Read the rows under the first key, and skip the other keys."""
        step, outer = steps[0], dict(outer)
        keys = []
        for _unused in self.scanner.items("}"):
            key = self.scanner.key()
            if key in keys:
                raise BrokenError(DUPLICATE_KEY, _("duplicate key {key}", key=show_value(key)))
            keys.append(key)
            if key == step:
                yield from self._rows(steps[1:], f"{where}.{key_in_spec(key)}".lstrip("."), outer)
            elif self.scanner.next_sign() in ("[", "{"):
                self.ignored.append(key)
                if self.scanner.skip() and self.guessed:
                    raise BrokenError(NO_RECORDS, ambiguous([step, key]))
            else:
                _unused, outer[key], wrong = self.scanner.row()
                if wrong:
                    raise BrokenError(*wrong)
                if step in keys:
                    self.ignored.append(key)
        if step not in keys:
            message = _no_key(step, keys)
            raise BrokenError(
                NO_RECORDS, _("{where}: {message}", where=where, message=message) if where else message
            )


def _inside(value: object, steps: Steps, location: Line, outer: Fields) -> Iterator[Found]:
    """Yield the rows under the keys of a value that is held: an item of the outermost list."""
    if not isinstance(value, dict):
        yield location, value, None
    elif not steps:
        yield location, {**outer, **value}, None
    elif steps[0] not in value:
        yield location, value, (NOT_AN_OBJECT, _no_key(steps[0], value))
    else:
        others = without(value, steps[0])
        inner, here = value[steps[0]], f"{location}.{key_in_spec(steps[0])}"
        several = isinstance(inner, list)
        for number, item in enumerate(inner if several else [inner]):
            text = f"{here}[{number}]" if several else here
            yield from _inside(item, steps[1:], text, outer | others)


def _no_key(key: str, keys: Collection[str]) -> Message:
    return _(
        "no key {key} (keys: {keys})", key=show_value(key), keys=show_values(keys) if keys else _("none")
    )


def as_row(value: object) -> object:
    """A list of messages as a row. Any other value stays."""
    return {MESSAGES: value} if are_messages(value) else value


def no_object(value: object) -> str:
    """The message for a row that is not an object."""
    return _(
        'found {value}, expected an object, such as {{"question": "…", "answer": "…"}}',
        value=show_value(value),
    )


def ambiguous(keys: Sequence[str]) -> str:
    """The message for a document with several lists of objects, any of which may be the rows."""
    return _(
        "found {number} lists of objects: {keys}; name the list that holds the rows in a spec, under "
        "`source:`: `rows: {key}`",
        number=len(keys),
        keys=show_values(keys),
        key=keys[0],
    )


def _read_lines(
    chunks: Iterable[bytes], display_path: str, start: int, problems: Problems
) -> Iterator[ObjectRows]:
    """Yield the rows of lines; `start` is the number of the first one."""
    prefix = Prefix(display_path)
    try:
        for data in whole_lines(chunks):
            block = io.BytesIO(data).readlines()
            lines: Sequence[int] = range(start, start + len(block))
            try:
                rows = list(map(orjson.loads, block))
                good = set(map(type, rows)) == {dict}
                if good and data.count(b":") != sum(map(len, rows)):  # else no row has more colons than keys
                    good = have_all_keys(data, rows)
            except orjson.JSONDecodeError:
                good = False
            if not good:
                lines, rows = _parse_each(block, start, prefix, problems)
            text_size = len(data) + ROW_COST * (len(block) - len(rows))
            yield ObjectRows(prefix, lines, rows, text_size=text_size)
            start += len(block)
    except TooLongError as error:
        hint = ONE_DOCUMENT
        if ".json" in PurePath(display_path.lower()).suffixes:
            hint = SHORTEN
        raise too_long(f"{display_path}:{start}", hint) from error


def _parse_each(
    block: list[bytes], start: int, prefix: Prefix, problems: Problems
) -> tuple[list[int], list[Fields]]:
    """The rows of the good lines, with their line numbers. Each other line becomes a problem."""
    lines, rows = [], []
    for number, text in enumerate(block, start):
        location = Location(prefix, number)
        line_text = text.decode(errors="backslashreplace").rstrip("\r\n")
        try:
            row = as_row(orjson.loads(text))
            if not isinstance(row, dict):
                problems.bad_row([Problem(NOT_AN_OBJECT, location, no_object(row))], row)
                continue
            key = _repeated(text, row)
            if key is not None:
                problem = Problem(DUPLICATE_KEY, location, _("duplicate key"), key)
                problems.bad_row([problem], line_text)
            else:
                lines.append(number)
                rows.append(row)
        except orjson.JSONDecodeError as error:
            if text.strip():
                problems.bad_row([_broken(text, location, error)], line_text)
    return lines, rows


def _broken(text: bytes, location: Location, error: orjson.JSONDecodeError) -> Problem:
    problem = undecodable(text, location)
    if problem:
        return problem
    rest = text.decode()[error.pos :]
    constant = _CONSTANT.match(rest)
    message = _(
        "broken JSON at column {column}: {reason}", column=error.colno, reason=error.msg.split(": line")[0]
    )
    hint = ""
    if constant:
        message = _("found {constant} at column {column}: not JSON", constant=constant[0], column=error.colno)
        hint = _("write null or a number")
    elif text.lstrip().startswith((b"{'", b"[{'")):
        hint = _("this is Python's notation, not JSON: {command}", command=AS_JSON)
    elif rest.strip() == ",":
        hint = _("each line is a whole row, without a comma at its end: sed 's/, *$//' OLD > NEW.jsonl")
    return Problem(BROKEN_JSON, location, message, hint=hint)


def _repeated(text: bytes, row: Fields) -> str | None:
    """The first duplicate key in an object of a row, None without one."""
    if have_all_keys(text, [row]):
        return None
    try:
        _DECODER.decode(text.decode())
    except DuplicateKeyError as error:
        return error.key
    except RecursionError:
        pass  # no key is looked for so deep inside
    return None


_DECODER = json.JSONDecoder(object_pairs_hook=unique, parse_int=str, parse_float=str)
