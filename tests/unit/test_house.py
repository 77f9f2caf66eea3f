"""The plan of the house (design §7): who may import whom."""

import ast
import importlib
import re
import subprocess
from pathlib import Path

import click
import pytest

from tests.conftest import ROOT
from tests.product import FILES, ROOMS, all_imports, imported, nodes, syntax
from tuneyard.cli import GROUPS, cli
from tuneyard.eval.models.backends import backend_kinds

LAYERS = {
    "core": (
        "text language installation errors files documents plugins records execution drawing training "
        "weights llamafactory datasets cli"
    ),
    "compiler": ("rows spec chat columns read check lint write engine publish inspect verify view init cli"),
    "recipes": (
        "recipe machine costs llamafactory rules output_dir checking planning training "
        "check plan new best train sweep base"
    ),
    "adapters": "model kinds methods write merge fuse show export serve",
    "eval": (
        "statistics figures runs judge report data models scoring "
        "nli text defect tools qa preference dialogue cmmlu ab chat compare prove sweep __main__ suite"
    ),
}
"""The folders of a package in the order in which its data flows: each imports those before it.

Commands come last, so that no shared folder imports one. A suite runs the commands of `eval/__main__.py`.
"""
ALLOWED = {"core": set(), "eval": {"core", "adapters"}, "tuneyard": {"tuneyard", "cli", "demo", *ROOMS}}
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
# numpy is what these rooms compute with; a command's --help never reaches them.
MAY_IMPORT_NUMPY = ("adapters/", "core/weights/tensors.py", "eval/")


def room_and_rest(module: str) -> list[str]:
    """The parts of one of our modules behind `tuneyard`; none of another's."""
    first, *rest = module.split(".")
    return rest if first == "tuneyard" else []


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_rooms_import_only_core_and_what_lies_below() -> None:
    offenders = []
    for path in FILES:
        room = name(path).split("/")[0]
        allowed = {room} | ALLOWED.get(room, {"core"})
        for module in all_imports(path):
            rest = room_and_rest(module)
            if rest and rest[0] not in allowed:
                offenders.append(f"{name(path)} imports {module}")
    assert offenders == []


PACKAGE_NAMES = "compiler|recipes|adapters|eval"
NAMES_OF_PACKAGES = re.compile(
    rf"\btuneyard[./](?:{PACKAGE_NAMES})\b"  # a module, or a file of an installation
    rf"|^(?:{PACKAGE_NAMES})[./:]"  # `eval.nli`, `recipes/weights/schema.json`
    r"|^(?:compiler|recipes)$"  # `eval` is a split, too, and `adapters` a key
)


def texts_beside_docstrings(path: Path) -> list[str]:
    docstrings = {node.value for node in nodes(path) if isinstance(node, ast.Expr)}
    constants = [node for node in nodes(path) if isinstance(node, ast.Constant) and node not in docstrings]
    return [node.value for node in constants if isinstance(node.value, str)]


def test_core_names_no_package_above_it_in_a_text() -> None:
    """The folder of the bundled recipes, a path that users type, is the one exception."""
    names = [
        (name(path), text)
        for path in FILES
        if name(path).startswith("core/")
        for text in texts_beside_docstrings(path)
        if NAMES_OF_PACKAGES.search(text)
    ]
    assert names == [("core/datasets/bundled_recipes.py", "recipes")]


@pytest.mark.parametrize(
    "text",
    ["tuneyard.recipes.costs", "tuneyard.compiler.cli:cli", "eval.nli", "recipes/weights/schema.json"],
)
def test_texts_that_name_a_package_are_found(text: str) -> None:
    assert NAMES_OF_PACKAGES.search(text)


def test_each_package_above_core_declares_its_group_of_commands() -> None:
    """`COMMAND_GROUP` is for `python -m PACKAGE`, `GROUPS` for `tuneyard GROUP`: they are equal."""
    packages = [room for room in ROOMS if room != "core"]
    groups = {importlib.import_module(f"tuneyard.{package}").COMMAND_GROUP: package for package in packages}
    modules = {group: location.split(".")[1].partition(":")[0] for group, location in GROUPS.items()}
    assert modules == {**groups, "demo": "demo", "doctor": "core"}
    for group in groups:
        command = cli.get_command(click.Context(cli), group)
        assert command is not None and command.name == group


def test_our_modules_go_by_the_name_tuneyard() -> None:
    """A bare `core` or `eval` would be somebody else's in an installation."""
    bare = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(ROOMS)})\b", re.MULTILINE)
    tests = [path for folder in ("tests", "testing", "tools") for path in (ROOT / folder).rglob("*.py")]
    assert [name(path) for path in (*FILES, *tests) if bare.search(path.read_text(encoding="utf-8"))] == []


def test_source_rows_are_read_and_checked_by_one_loop() -> None:
    """`compile`, `show` and `init` take them from engine/row_loop.py."""
    one_loop = {"tuneyard.compiler.read.read", "tuneyard.compiler.check.checker.Checker"}
    users = []
    for path in FILES:
        if name(path).startswith(("compiler/read/", "compiler/check/")):
            continue  # files inside an archive, and records of compiled datasets, which need no spec
        for node in nodes(path):
            if isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                users += [name(path)] if names & one_loop else []
    assert set(users) == {"compiler/engine/row_loop.py"}


@pytest.mark.parametrize("package", LAYERS)
def test_folders_flow_one_way(package: str) -> None:
    layers = LAYERS[package].split()
    offenders = []
    for path in FILES:
        room, *folders = name(path).split("/")
        if room != package or folders[0] in ("__init__.py", "__main__.py"):
            continue
        layer = folders[0].removesuffix(".py")
        below = [*layers, layer]  # a new command; a new folder that others import has its place in LAYERS
        if layer in layers:
            below = layers[: layers.index(layer) + 1]
        for module in all_imports(path):
            rest = room_and_rest(module)
            if rest[:1] == [package] and rest[1:2] != [] and rest[1] not in below:
                offenders.append(f"{name(path)} imports {module}")
    assert offenders == []


@pytest.mark.parametrize("package", sorted(LAYERS.keys() - {"eval"}))
def test_only_the_command_lies_directly_in_a_package(package: str) -> None:
    loose = {path.name for path in (ROOT / package).glob("*.py")}
    assert loose <= {"__init__.py", "__main__.py", "cli.py"}


@pytest.mark.parametrize("package", ["eval", "recipes"])
def test_a_folder_of_a_command_has_its_main_file_and_no_other_has(package: str) -> None:
    """In eval, a command of one file lies in the package itself."""
    with_main = {path.parent.name for path in (ROOT / package).glob("*/__main__.py")}
    commands = importlib.import_module(f"tuneyard.{package}.__main__").COMMANDS
    files = {path.stem for path in (ROOT / package).glob("*.py")}
    assert with_main == set(commands) - files


def test_no_command_of_recipes_imports_another_one() -> None:
    """What two commands need is in a shared folder."""
    commands = {path.parent.name for path in (ROOT / "recipes").glob("*/__main__.py")}
    offenders = []
    for path in FILES:
        _package, *folders = name(path).split("/")
        for module in all_imports(path):
            of_module = room_and_rest(module)
            if of_module[:1] == ["recipes"] and commands & {*of_module[1:2]} - {*folders[:1]}:
                offenders.append(f"{name(path)} imports {module}")
    assert offenders == []


def test_llamafactory_has_one_door() -> None:
    """Imports inside functions and those by a text count, too."""
    by_text = re.compile(r"""import_module\(f?["']llamafactory[.]|patch\(["']llamafactory[.]""")
    offenders = [
        name(path)
        for path in FILES
        if any(module.split(".")[0] == "llamafactory" for module in all_imports(path))
        or by_text.search(path.read_text(encoding="utf-8"))
    ]
    assert [path for path in offenders if not path.startswith("core/llamafactory/")] == []
    assert len(offenders) > 5


def test_yaml_is_read_and_written_in_one_place() -> None:
    users = {name(path) for path in FILES if "yaml" in all_imports(path)}
    errors_of_omegaconf = "recipes/recipe/__init__.py"
    assert users == {"core/documents/__init__.py", errors_of_omegaconf}


def test_no_heavy_library_is_imported_with_the_module() -> None:
    offenders = []
    for path in FILES:
        heavy = HEAVY - {"numpy"} if name(path).startswith(MAY_IMPORT_NUMPY) else HEAVY
        at_the_top = [module for node in syntax(path).body for module in imported(node)]
        offenders += [f"{name(path)} imports {top}" for top in at_the_top if top.split(".")[0] in heavy]
    assert offenders == []


def test_a_name_of_a_class_has_one_meaning() -> None:
    paths_by_class: dict[str, list[str]] = {}
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                paths_by_class.setdefault(node.name, []).append(name(path))
    assert {title: paths for title, paths in paths_by_class.items() if len(paths) > 1} == {}


def test_the_rules_are_asked_of_many_files() -> None:
    assert len(FILES) > 150 and {name(path).split("/")[0] for path in FILES} == {*ROOMS, "tuneyard"}


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


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/extending.md"])
def test_the_pages_for_developers_name_only_what_exists(page: str) -> None:
    """Paths (`core/files/`, `compiler/read/jsons.py`) and files by their name (`jsons.py`)."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    files = {
        path.name for path in [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "testing").glob("*.py")]
    }
    missing = []
    for quoted in re.findall(r"`([^`\n]+)`", text):
        if re.fullmatch(r"[\w.-]+/[\w./-]*", quoted):
            path = ROOT / quoted.removesuffix("NAME")  # tests/examples/good/NAME
            if not path.exists():
                missing.append(quoted)
        elif re.fullmatch(r"\w+\.py", quoted) and quoted not in files:
            missing.append(quoted)
    assert missing == []


def test_nobody_outside_the_models_asks_which_backend_it_has() -> None:
    """What differs is a field of `BackendKind`, so that a new backend is one file."""
    names = set(backend_kinds())
    assert len(names) >= 3
    offenders = []
    for path in FILES:
        if not name(path).startswith("eval/") or name(path).startswith("eval/models/"):
            continue
        offenders += [f"{name(path)} names {text}" for text in texts_beside_docstrings(path) if text in names]
    assert offenders == []


def test_tools_and_tests_do_not_import_each_other() -> None:
    """What both need is in testing/, which imports neither. The product imports none of the three."""
    forbidden = {"tests": {"tools"}, "tools": {"tests"}, "testing": {"tests", "tools"}}
    forbidden |= {room: {"tests", "testing", "tools"} for room in (*ROOMS, "tuneyard")}
    files = [*FILES]
    for folder in ("tests", "tools", "testing"):
        files += sorted((ROOT / folder).rglob("*.py"))
    by_text = re.compile(r"""(?:["']-m["'], *|import_module\()f?["'](tests|tools|testing)\.""")
    offenders = []
    for path in files:
        folder = name(path).split("/")[0]
        modules = {module.split(".")[0] for module in all_imports(path)}
        if folder != "tests":  # they run `python -m tools.…`, as a developer does
            modules |= set(by_text.findall(path.read_text(encoding="utf-8")))
        offenders += [f"{name(path)} imports {module}" for module in modules & forbidden[folder]]
    assert offenders == []
    assert sum("testing" in all_imports(path) for path in files) > 5


COMPUTES = ("eval/statistics/", "eval/figures/", "eval/runs/", "eval/judge/")
SHOWS = {
    "tuneyard.core.language.message": {"tr", "translated"},
    "tuneyard.core.language.messages": {"say", "warn", "warn_once"},
    "tuneyard.core.language.number_format": {
        "Table",
        "grid",
        "limits",
        "number",
        "percent",
        "points",
        "show_p",
    },
    "tuneyard.core.text.markdown": {"markdown_table"},
}
FORMATTED = re.compile(r"\{\w*(?:![rsa])?:[^{}]*[%defgn,]\}")


def shown_below_the_report(source: str) -> list[str]:
    """What a module translates, prints or formats; the message of an error may format a number."""
    shown = []
    tree = ast.parse(source)
    in_errors = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.Raise) for part in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            shown += [alias.name for alias in node.names if alias.name in SHOWS.get(node.module or "", ())]
        if id(node) in in_errors:
            continue
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            shown.append(ast.unparse(node))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            shown += FORMATTED.findall(node.value)
    return shown


def test_nothing_below_the_report_is_translated_printed_or_formatted() -> None:
    """`judge` computes and `report` shows: below it are records and findings, no sentences or tables."""
    computing = [path for path in FILES if name(path).startswith(COMPUTES)]
    assert len(computing) > 30
    shown = {name(path): shown_below_the_report(path.read_text(encoding="utf-8")) for path in computing}
    assert {path: parts for path, parts in shown.items() if parts} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from tuneyard.core.language.message import _, tr",
        "from tuneyard.core.language.number_format import Table",
        "from tuneyard.core.language.messages import warn",
        "share = f'{value:.1%}'",
        "text = _('{share:.1f} of {count}', share=share, count=3)",
        "text = _('{count:,} rows', count=3)",
    ],
)
def test_what_is_shown_below_the_report_is_found(source: str) -> None:
    assert shown_below_the_report(source)
    assert shown_below_the_report(f"raise ContentError({source.partition('= ')[2]})") == []
