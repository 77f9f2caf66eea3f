"""The plan of the house (design §7): who may import whom, and the sizes that keep rooms livable."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ("core", "compiler", "recipes", "adapters", "eval")
ALLOWED = {"core": set(), "eval": {"core", "adapters"}}
HEAVY = {
    "torch",
    "transformers",
    "llamafactory",
    "peft",
    "datasets",
    "scipy",
    "sklearn",
    "matplotlib",
    "numpy",
}
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
# numpy is what these rooms compute with; a command's --help never reaches them.
MAY_IMPORT_NUMPY = ("adapters/", "core/weights.py", "eval/")


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_rooms_import_only_core_and_what_lies_below(path: Path) -> None:
    room = name(path).split("/")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for module in imported(node):
            top = module.split(".")[0]
            if top in ROOMS and top != room:
                assert top in ALLOWED.get(room, {"core"}), f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_heavy_library_is_imported_with_the_module(path: Path) -> None:
    heavy = HEAVY - {"numpy"} if name(path).startswith(MAY_IMPORT_NUMPY) else HEAVY
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for module in imported(node):
            assert module.split(".")[0] not in heavy, f"{name(path)} imports {module} at the top"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} in {name(path)}"
