"""A missing package, an old Python, a reader that went away: one sentence or none, and the exit code."""

import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

from tests.conftest import PROJECT, ROOT
from tests.messages import printed_line
from tests.product import FILES, all_imports
from tuneyard.core.installation import packages
from tuneyard.core.installation.packages import CORE, after_setup, install_command, missing, set_up_command

IMPORTED_AS = {"scikit-learn": "sklearn", "pillow": "PIL", "pyyaml": "yaml"}


def test_the_core_packages_are_those_of_pyproject() -> None:
    declared = PROJECT["dependencies"]
    names = [re.split(r"[<>=!~ \[]", name)[0] for name in declared]
    assert set(CORE) == {IMPORTED_AS.get(name, name).replace("-", "_") for name in names}


NOT_IMPORTED = {
    "torchaudio": "llamafactory wants the one that fits this torch",
    "torchvision": "llamafactory wants the one that fits this torch",
    "deepspeed": "imported by transformers where a recipe names a DeepSpeed file",
    "s3fs": "imported by fsspec for s3:// sources",
    "wandb": "imported by transformers where a recipe says report_to: wandb",
    "setuptools": "makes the editable install",
}


def test_what_data_commands_import_is_in_the_core() -> None:
    """Of the compiler's imports at any depth, `tokenizers` and `rensa` belong to extras, asked for first.

    PIL comes with matplotlib, which the core declares.
    """
    files = [path for path in FILES if path.is_relative_to(ROOT / "compiler")]
    modules = {module.partition(".")[0] for path in files for module in all_imports(path)}
    assert modules - set(CORE) - set(sys.stdlib_module_names) == {"tuneyard", "tokenizers", "rensa", "PIL"}
    assert "pillow" in {each.partition(">")[0].lower() for each in requires("matplotlib") or []}


def _imported() -> set[str]:
    """The top-level modules that product code imports, our own and Python's left out."""
    files = [*FILES, *ROOT.glob("tuneyard/*.py"), *ROOT.glob("samples/*.py")]
    found = {module.partition(".")[0] for path in files for module in all_imports(path)}
    return found - {"tuneyard"} - set(sys.stdlib_module_names)


def _declared() -> set[str]:
    """What pyproject.toml declares for users, by the names of its modules. dev and lint are for the code."""
    every = [*PROJECT["dependencies"]]
    for extra, names in PROJECT["optional-dependencies"].items():
        if extra not in ("dev", "lint"):
            every += names
    names = {re.split(r"[<>=!~ \[]", name)[0] for name in every}
    return {IMPORTED_AS.get(name, name).replace("-", "_") for name in names}


def test_what_is_declared_is_imported_and_what_is_imported_is_declared() -> None:
    imported, declared = _imported(), _declared()
    assert declared - imported == set(NOT_IMPORTED), "declared, and imported by no product file"
    assert imported <= declared, "imported, and not declared"


def _without(package: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours in a Python in which `package` cannot be found."""
    code = (
        "import sys, runpy\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package_=None: "
        f"None if name == {package!r} else found(name, package_)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        f"sys.argv = {['-m', *command[1:]]!r}\n"
        f"runpy.run_module({command[0]!r}, run_name='__main__', alter_sys=True)\n"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("package", "command"),
    [
        *((package, ("compiler", "list")) for package in ("click", "jsonschema_rs", "tqdm", "yaml")),
        *(("click", command) for command in (("eval.nli", "--help"), ("adapters", "show", "x"))),
        ("numpy", ("adapters", "merge", "a=1", "--out", "o")),
    ],
)
def test_a_missing_core_package_is_a_sentence(package: str, command: tuple[str, ...]) -> None:
    ended = _without(package, *command)
    assert (ended.returncode, ended.stdout) == (2, "")
    commands = ('"make setup-core"', '"make setup"', '"source .venv/bin/activate"')
    python = sys.executable.removeprefix(f"{ROOT}/")
    printed_line(ended.stderr, "error", package, python, *commands)
    assert ended.stderr.count("\n") == 1


def test_a_package_of_the_whole_set_up_names_that(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("stage: sft\n")
    ended = _without("llamafactory", "recipes", "check", str(tmp_path / "r.yaml"))
    assert ended.returncode == 2 and "E304" in ended.stdout
    commands = ('"make setup"', '"source .venv/bin/activate"')
    python = sys.executable.removeprefix(f"{ROOT}/")  # the errors of commands name paths from here
    printed_line(ended.stderr, "error", "llamafactory", python, *commands)
    assert ended.stderr.count("\n") == 1


def test_where_the_environment_is_there_it_is_only_to_be_activated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Makefile").touch()
    set_up = missing("click")
    assert "make setup-core" in set_up
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    activate = 'run "source .venv/bin/activate"'
    assert missing("click") == f"click is not installed in {sys.executable}; {activate}"
    assert missing("torch.nn") == f"torch is not installed in {sys.executable}; {activate}"
    assert ".venv-vllm" in missing("vllm")
    monkeypatch.chdir("/")
    assert missing("click").endswith(f'; run "cd {tmp_path} && source .venv/bin/activate"')
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert missing("click") == set_up


def test_an_installed_wheel_names_the_extra_and_no_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    for installer in ("uv", None):
        monkeypatch.setattr(packages.shutil, "which", lambda name, installer=installer: installer == name)
        assert missing("click").endswith(
            " install tuneyard" if installer is None else f"{sys.executable} tuneyard"
        )
        for text in (missing("torch"), set_up_command(), install_command("deepspeed")):
            assert "'tuneyard[train]'" in text and "make" not in text
            assert ("uv pip install" in text) == bool(installer)
        assert "'tuneyard[wandb]'" in install_command("wandb")
        assert after_setup("tuneyard data verify x", "no_such_package").endswith(" && tuneyard data verify x")


COMMANDS = [
    ("compiler", "list"),
    ("recipes", "check", "recipes/rte.yaml"),
    ("adapters", "show", "nothing"),
    ("eval.nli", "--help"),
]


def into_a_closed_pipe(command: tuple[str, ...], stderr: int) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose reader went away."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, stdout=writing, stderr=stderr)
    os.close(writing)
    return ended


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_went_away_is_141_without_a_word(command: tuple[str, ...]) -> None:
    assert into_a_closed_pipe(command, subprocess.STDOUT).returncode == 141


def test_help_into_a_closed_pipe_says_nothing() -> None:
    ended = into_a_closed_pipe(("compiler", "--help"), subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_an_output_that_is_closed_is_no_traceback() -> None:
    command = f"{sys.executable} -m compiler list -q >&-"
    ended = subprocess.run(command, shell=True, cwd=ROOT, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, b"")


def run_code(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in the checkout."""
    return subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("module", ["compiler", "recipes", "adapters", "eval", "eval.nli", "tuneyard"])
def test_a_command_names_what_this_machine_lacks(module: str) -> None:
    run = (
        f"sys.argv = ['-m']; import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    done = run_code(f"import sys; sys.modules['click'] = None; {run}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: click is not installed in ") and "Traceback" not in done.stderr


def test_native_windows_is_named_before_anything_is_imported() -> None:
    start = "from tuneyard.core.installation.start import start; start('tuneyard.compiler.cli')"
    done = run_code(f"import sys; sys.platform = 'win32'; sys.modules['fcntl'] = None; {start}")
    assert done.returncode == 2 and "WSL" in done.stderr and "Traceback" not in done.stderr


def test_an_import_neither_exits_nor_prints() -> None:
    hidden = ", ".join(f"{name!r}: None" for name in CORE if name != "click")
    done = run_code(
        f"import sys; sys.modules |= {{{hidden}}}; import tuneyard.core.errors, tuneyard.compiler"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["core", "compiler", "recipes", "adapters", "eval", "eval.nli"])
def test_a_package_has_one_name(name: str) -> None:
    done = run_code(f"import {name}")
    package = name.partition(".")[0]
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: import tuneyard.{package}: ")


def test_a_next_command_is_behind_the_set_up_command_where_a_package_is_missing(
    monkeypatch, tmp_path
) -> None:
    assert after_setup("tuneyard data verify x", "click") == "tuneyard data verify x"
    monkeypatch.chdir(ROOT)
    assert after_setup("tuneyard data verify x", "no_such_package") == "make setup && tuneyard data verify x"
    monkeypatch.chdir(tmp_path)
    elsewhere = after_setup("tuneyard data verify x", "no_such_package")
    assert elsewhere == f"(cd {ROOT} && make setup) && tuneyard data verify x"
