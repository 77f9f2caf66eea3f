"""The files of the product and their syntax, parsed and walked once for all tests that look through it."""

import ast
import functools
from pathlib import Path

from tests.conftest import ROOT

ROOMS = ("core", "compiler", "recipes", "adapters", "eval")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
FILES += sorted((ROOT / "tuneyard").glob("*.py"))


@functools.cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file: walking through those of the product takes a second."""
    return tuple(ast.walk(syntax(path)))


@functools.cache
def all_imports(path: Path) -> list[str]:
    """The modules that a file imports anywhere, inside functions too."""
    return [module for node in nodes(path) for module in imported(node)]


def imported(node: ast.AST) -> list[str]:
    """The modules, but not those by relative names, that a statement imports."""
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
