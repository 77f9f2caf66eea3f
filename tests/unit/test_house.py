"""The plan of the house (design §7): who may import whom."""

import ast
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ("core", "compiler", "recipes", "adapters", "eval")
EVAL = {
    "statistics": set(),
    "metrics": {"statistics"},
    "datasets": {"statistics"},
    "backends": {"metrics"},
    "runs": {"metrics", "statistics"},
    "scoring": {"backends", "datasets", "metrics", "runs", "statistics"},
    "reports": {"metrics", "runs", "statistics"},
}
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


@pytest.mark.parametrize("path", [path for path in FILES if name(path.parent).startswith("eval/")], ids=name)
def test_inside_eval_imports_go_one_way(path: Path) -> None:
    """Statistics are lowest, reports and scoring highest and apart; only commands, on top, use both."""
    layer = name(path).split("/")[1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for module in imported(node):
            top, *below = module.split(".")
            if top == "eval" and below and below[0] != layer:
                assert below[0] in EVAL[layer], f"{name(path)} imports {module}"


def test_yaml_is_read_and_written_in_one_place() -> None:
    nodes = ((path, node) for path in FILES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    users = {name(path) for path, node in nodes if "yaml" in imported(node)}
    assert users == {"core/documents.py", "recipes/recipe.py"}  # OmegaConf raises its errors


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_heavy_library_is_imported_with_the_module(path: Path) -> None:
    heavy = HEAVY - {"numpy"} if name(path).startswith(MAY_IMPORT_NUMPY) else HEAVY
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for module in imported(node):
            assert module.split(".")[0] not in heavy, f"{name(path)} imports {module} at the top"


def test_a_name_of_a_class_has_one_meaning() -> None:
    parsed = [(path, ast.walk(ast.parse(path.read_text(encoding="utf-8")))) for path in FILES]
    classes = [
        (node.name, name(path)) for path, nodes in parsed for node in nodes if isinstance(node, ast.ClassDef)
    ]
    where: dict[str, list[str]] = {}
    for found, path in classes:
        where.setdefault(found, []).append(path)
    assert {found: paths for found, paths in where.items() if len(paths) > 1} == {}


PRIVATE_OR_GENERATED = (
    "my_dataset.json",
    "mixed_finetune_dataset.jsonl",
    "Qwen_finetuning_model/adapter_config.json",
    "outputs/checkpoint-50/trainer_state.json",
    "evaluation_results/predictions.jsonl",
    "evaluation_results_ori_0403.json",
    "overall_accuracy_comparison.png",
    "dataset/train.jsonl",
    "wandb/latest-run",
    "recipes/wandb/run-1/files",
)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a copy without git")
def test_private_data_and_generated_files_of_the_documents_are_not_committed() -> None:
    """.gitignore names each of them, and nothing that is committed."""
    ignored = subprocess.run(
        ("git", "check-ignore", "--no-index", *PRIVATE_OR_GENERATED), cwd=ROOT, capture_output=True, text=True
    )
    assert ignored.stdout.splitlines() == list(PRIVATE_OR_GENERATED)
    listed = ("git", "ls-files", "--cached", "--ignored", "--exclude-standard")
    assert subprocess.run(listed, cwd=ROOT, capture_output=True, text=True).stdout == ""
