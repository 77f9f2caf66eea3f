"""Programs that models write: what passes, and that none gets further than its bounds."""

import socket
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.json_files import read_lines
from tuneyard.core.errors import RequestError
from tuneyard.eval import code as sandbox
from tuneyard.eval.code import run_tests

TASKS = read_lines(ROOT / "eval/suites/toolkit-code.jsonl")

# A program of nobody's may lack the rights to import socket, so that it would fail for another reason.
CONNECT = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
address = (2).to_bytes(2, "little") + (PORT).to_bytes(2, "big") + bytes([127, 0, 0, 1, *[0] * 8])
libc.connect(libc.socket(2, 1, 0), address, 16)
raise OSError(ctypes.get_errno())
"""


@pytest.fixture(scope="module", autouse=True)
def runnable() -> None:
    try:
        run_tests("", ["True"])
    except RequestError as error:
        pytest.skip(str(error))


def test_a_program_may_import_what_answers_use() -> None:
    """Also where Python's own folder is not for nobody to read, as root's is."""
    names = "calendar contextlib dataclasses enum hashlib queue struct textwrap unicodedata"
    program = f"import {', '.join(names.split())}\nf = lambda: textwrap.dedent(' a')"
    assert run_tests(program, ["f() == 'a'"]) == ""


@pytest.mark.parametrize("task", TASKS, ids=[task["name"] for task in TASKS])
def test_the_solution_of_a_bundled_task_passes_and_nothing_else(task: dict) -> None:
    assert run_tests(task["output"], task["tests"]) == ""
    empty = f"def {task['name']}(*_):\n    return None\n"
    assert run_tests(empty, task["tests"]).startswith(("failed: ", "TypeError: "))


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("def f(:", "SyntaxError: "),
        ("def f(): return 2", "failed: f() == 1"),
        ("raise ValueError('no')", "ValueError: no"),
        ("import os; os._exit(0)", "ended by itself"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("print('passed' * 10**6)\nimport os; os._exit(0)", "ended by itself"),
        ("import os; os.write(1, b'0' * 32); os._exit(0)", "ended by itself"),
        ("x = 'x' * 10**10", "MemoryError"),
        ("import os; os.fork()", "BlockingIOError"),
        ("open('much', 'w').write('x')", ("OSError: [Errno 27]", "PermissionError")),
        (CONNECT, "OSError: 101"),
        ("import os; raise ValueError([n for n in os.environ if n != 'LC_CTYPE'])", "ValueError: []"),
    ],
)
def test_a_program_that_fails_says_why(program: str, why: str | tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = program.replace("PORT", str(server.getsockname()[1]))
        tests = ["f() == 1"] if "return 2" in program else ["True"]
        assert run_tests(program, tests).startswith(why)


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(99)"])
def test_a_program_without_end_is_stopped(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    assert run_tests(program, ["True"]).startswith(
        ("stopped after 2 s", "ended by itself or at a limit (1 s")
    )


def test_a_half_written_file_is_none_of_ours(working_folder: Path) -> None:
    working_folder.chmod(0o777)  # as root, the program is nobody's
    run_tests("open('left', 'w')", ["True"])
    assert not list(working_folder.iterdir())
