"""The files of the product and their syntax trees, each parsed once for all tests that look through them."""

import ast
import functools
from pathlib import Path

from tests.conftest import ROOT

ROOMS = ("core", "compiler", "recipes", "adapters", "eval")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@functools.cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
