"""The errors that are put into a file: one comparison, number, branch, call or return changed in each."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
}  # fmt: skip
COMPUTED: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"), ast.Pow: ("**", "*"),
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}
Place = tuple[int, int]  # line from 1, column in bytes from 0
Key = tuple[str, str, int, str]  # file, line, column behind the indent, change


@dataclass(frozen=True, slots=True)
class Mutant:
    """One error: the bytes of a file from `start` to `end` replaced; `line` is the line it stands in."""

    path: str
    start: Place
    end: Place
    old: str
    new: str
    line: str
    column: int

    def change(self) -> str:
        """Return the change in one line, as it stands in equivalent.yaml."""
        return " ".join(f"{self.old} → {self.new}".split())

    def key(self) -> Key:
        """Return what names it in equivalent.yaml: file, line, column behind the indent, change."""
        return self.path, self.line, self.column, self.change()

    def apply(self, source: bytes) -> bytes:
        """Return the file's bytes with the error in them."""
        lines = source.splitlines(keepends=True)
        first, last = self.start[0] - 1, self.end[0] - 1
        head, tail = lines[first][: self.start[1]], lines[last][self.end[1] :]
        lines[first : last + 1] = [head + self.new.encode() + tail]
        return b"".join(lines)


def mutants(path: str, source: bytes) -> list[Mutant]:
    """Return every error that can be put into a file, in the order of the file."""
    lines = source.splitlines(keepends=True)
    found = []
    for start, end, new in _changes(ast.parse(source), lines):
        line = lines[start[0] - 1]
        column = start[1] - (len(line) - len(line.lstrip()))
        mutant = Mutant(path, start, end, _text(lines, start, end), new, line.decode().strip(), column)
        try:
            compile(mutant.apply(source), path, "exec")
        except SyntaxError:
            continue
        found.append(mutant)
    return sorted(found, key=lambda one: (one.start, one.end, one.new))


def _text(lines: list[bytes], start: Place, end: Place) -> str:
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]].decode()
    middle = lines[start[0] : end[0] - 1]
    return b"".join([lines[start[0] - 1][start[1] :], *middle, lines[end[0] - 1][: end[1]]]).decode()


def _changes(node: ast.AST, lines: list[bytes]) -> Iterator[tuple[Place, Place, str]]:
    """Yield (start, end, new text) below a node: annotations, decorators and f-strings are left alone."""
    if isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ):
        return
    yield from _of_node(node, lines)
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changes(child, lines)


def _of_node(node: ast.AST, lines: list[bytes]) -> Iterator[tuple[Place, Place, str]]:
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        for i, op in enumerate(node.ops):
            yield from _between(lines, sides[i], sides[i + 1], *COMPARED[type(op)])
    elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
        yield from _between(lines, node.left, node.right, *COMPUTED[type(node.op)])
    elif isinstance(node, ast.BoolOp):
        words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for one, other in zip(node.values, node.values[1:], strict=False):
            yield from _between(lines, one, other, *words)
    elif isinstance(node, ast.AugAssign) and type(node.op) in COMPUTED:
        old, new = COMPUTED[type(node.op)]
        yield from _between(lines, node.target, node.value, f"{old}=", f"{new}=")
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield _start(node), _start(node.operand), ""
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in NAMES:
        yield _start(node), _end(node), NAMES[node.id]
    elif isinstance(node, ast.Constant):
        yield from _of_constant(node)
    elif isinstance(node, ast.stmt | ast.IfExp):
        yield from _of_statement(node)


def _of_constant(node: ast.Constant) -> Iterator[tuple[Place, Place, str]]:
    if isinstance(node.value, bool):
        yield _start(node), _end(node), str(not node.value)
    elif isinstance(node.value, int | float):
        yield (
            _start(node),
            _end(node),
            repr(node.value + 1 if isinstance(node.value, int) else node.value * 2 + 0.1),
        )


def _of_statement(node: ast.stmt | ast.IfExp) -> Iterator[tuple[Place, Place, str]]:
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        if isinstance(node.test, ast.Name | ast.Attribute | ast.Call | ast.NamedExpr):
            yield _start(node.test), _start(node.test), "not "
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield _start(node), _end(node), "pass"
    elif isinstance(node, ast.Continue | ast.Break):
        yield _start(node), _end(node), "break" if isinstance(node, ast.Continue) else "continue"
    elif isinstance(node, ast.Return) and node.value and not isinstance(node.value, ast.Constant):
        yield _start(node), _end(node), "return None"


def _between(
    lines: list[bytes], one: ast.expr, other: ast.expr, old: str, new: str
) -> Iterator[tuple[Place, Place, str]]:
    """Yield the operator that stands between two nodes (beside it are blanks, brackets and comments)."""
    for number in range(_end(one)[0], _start(other)[0] + 1):
        line = lines[number - 1]
        left = _end(one)[1] if number == _end(one)[0] else 0
        right = _start(other)[1] if number == _start(other)[0] else len(line)
        word = re.escape(old.encode()).replace(rb"\ ", rb"\s+")
        match = re.search(rb"\b" + word + rb"\b" if old.isalpha() else word, line[left:right].split(b"#")[0])
        if match:
            yield (number, left + match.start()), (number, left + match.end()), new
            return


def _start(node: ast.AST) -> Place:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _end(node: ast.AST) -> Place:
    return getattr(node, "end_lineno", 0), getattr(node, "end_col_offset", 0)
