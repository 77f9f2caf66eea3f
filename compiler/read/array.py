"""One JSON document, read piece by piece: a list or an object of rows, a list further inside, one row."""

from collections.abc import Iterator, Sequence

from compiler.problems import Problems
from compiler.read.scan import BrokenError, Scanner, Wrong
from compiler.rows import Line, ObjectRows
from core.errors import Problem, show_value

BATCH = 1000
BATCH_BYTES = 1 << 22
Steps = tuple[str, ...]
Fields = dict[str, object]
Found = tuple[Line, object, Wrong | None]


def read_array(
    scanner: Scanner, shown: str, steps: Steps | None, guessed: bool, problems: Problems, known: set[str]
) -> Iterator[ObjectRows]:
    """Yield the rows under these keys (() the root's, None: the root is one); a list is held item by item.

    A list on the way is walked item by item; a row keeps the other fields of the objects around it, of the
    outermost the scalar ones. `known` keys of the outermost are meant for other rows; the rest that is left
    out is noted. Where the keys are `guessed`, a second list of objects beside theirs is a problem.
    """
    walk = _Walk(scanner, guessed)
    rows: list[Fields] = []
    lines: list[Line] = []
    count = done = 0
    try:
        for place, row, wrong in walk.rows(steps):
            count += 1
            if isinstance(row, dict) and not wrong:
                rows.append(row)
                lines.append(place)
            else:
                code, message = wrong or ("E005", f"found {show_value(row)}, expected an object")
                problems.bad_row([Problem(code, f"{shown}:{place}", message)], row)
            if len(rows) == BATCH or (rows and scanner.offset - done > BATCH_BYTES):
                yield ObjectRows(f"{shown}:", lines, rows)
                rows, lines, done = [], [], scanner.offset
    except BrokenError as error:
        before = f"; {count} whole records came before" if error.code in ("E003", "E014") else ""
        problems.bad_file(Problem(error.code, f"{shown}:{scanner.line_now()}", f"{error}{before}"))
    if rows:
        yield ObjectRows(f"{shown}:", lines, rows)
    nested = [key for key in walk.nested if key not in known]
    for keys, why in ((walk.late, "stand after the list"), (nested, "are lists or objects beside the rows")):
        if keys:
            problems.notes.append(f"{shown}: not kept, as they {why}: {', '.join(map(_shown, keys))}")


class _Walk:
    """The way from the root of a document to its rows."""

    def __init__(self, scanner: Scanner, guessed: bool) -> None:
        self.scanner, self.guessed = scanner, guessed
        self.last_line = -1
        self.late: list[str] = []
        self.nested: list[str] = []

    def rows(self, steps: Steps | None) -> Iterator[Found]:
        """Yield (place, row, what is wrong with it); `BrokenError` where the document cannot be read on."""
        if self.scanner.next_sign() not in ("[", "{"):
            raise BrokenError("E007", "found neither a list nor an object, expected a list of records")
        if steps is None:
            yield self.scanner.row()
        else:
            yield from self._rows(steps, "", {})
        if self.scanner.next_sign():
            raise BrokenError("E003", "found more text after the document's end")

    def _rows(self, steps: Steps, where: str, outer: Fields) -> Iterator[Found]:
        sign = self.scanner.next_sign()
        if sign == "[":
            yield from self._list(steps, where, outer)
        elif sign == "{":
            yield from self._under(steps, where, outer) if steps else self._members(where, outer)
        else:
            found = show_value(self.scanner.value())
            raise BrokenError("E007", f"{where}: found {found}, expected a list of records")

    def _list(self, steps: Steps, where: str, outer: Fields) -> Iterator[Found]:
        for number in self.scanner.items("]"):
            line, value, wrong = self.scanner.row()
            if not (where or steps):
                yield (f"{line} record {number + 1}" if line == self.last_line else line), value, wrong
            elif wrong:
                yield f"{line} {where}[{number}]", value, wrong
            else:
                yield from _inside(value, steps, f"{line} {where}[{number}]", outer)
            self.last_line = line

    def _members(self, where: str, outer: Fields) -> Iterator[Found]:
        for _ in self.scanner.items("}"):
            key = self.scanner.key()
            line, value, wrong = self.scanner.row()
            if not isinstance(value, dict):
                what = f"key {show_value(key)}: found {show_value(value)}"
                raise BrokenError("E007", f"{what}, expected a list of records or an object of rows")
            place = f"{line} {where}.{_shown(key)}" if where else f"{line} key {show_value(key)}"
            yield place, {**outer, **value}, wrong

    def _under(self, steps: Steps, where: str, outer: Fields) -> Iterator[Found]:
        """Go to the rows under the first of the keys, and over what stands beside it."""
        step, outer = steps[0], dict(outer)
        keys: list[str] = []
        for _ in self.scanner.items("}"):
            key = self.scanner.key()
            if key in keys:
                raise BrokenError("E006", f"the key {show_value(key)} stands twice in one object")
            keys.append(key)
            if key == step:
                yield from self._rows(steps[1:], f"{where}.{_shown(key)}".lstrip("."), outer)
            elif self.scanner.next_sign() in ("[", "{"):
                self.nested.append(key)
                if self.scanner.skip() and self.guessed:
                    raise BrokenError("E007", ambiguous([step, key]))
            else:
                _, outer[key], wrong = self.scanner.row()
                if wrong:
                    raise BrokenError(*wrong)
                self.late += [key] if step in keys else []
        if step not in keys:
            there = ", ".join(map(show_value, keys)) or "none"
            raise BrokenError("E007", f"{where}: no key {show_value(step)} (keys: {there})".lstrip(": "))


def _inside(value: object, steps: Steps, where: str, outer: Fields) -> Iterator[Found]:
    """Yield the rows under the keys of a value that is held: an item of the outermost list."""
    if not isinstance(value, dict):
        yield where, value, ("E005", f"found {show_value(value)}, expected an object")
    elif not steps:
        yield where, {**outer, **value}, None
    elif steps[0] not in value:
        there = ", ".join(map(show_value, value)) or "none"
        yield where, value, ("E005", f"no key {show_value(steps[0])} (keys: {there})")
    else:
        others = {key: field for key, field in value.items() if key != steps[0]}
        inner, here = value[steps[0]], f"{where}.{_shown(steps[0])}"
        several = isinstance(inner, list)
        for number, item in enumerate(inner if several else [inner]):
            place = f"{here}[{number}]" if several else here
            yield from _inside(item, steps[1:], place, outer | others)


def ambiguous(keys: Sequence[str]) -> str:
    """Return the words for several lists of objects in one document, of which none is the rows."""
    found = f"found {len(keys)} lists of objects: {', '.join(map(show_value, keys))}"
    return f"{found}; say which holds the rows, in a spec under `source:`, such as `rows: {keys[0]}`"


def _shown(key: str) -> str:
    return key if key.isidentifier() else show_value(key)
