"""The errors that `make mutate` puts into the code: worked out by hand for a small file."""

import atexit
import os
import tempfile
import time

import pytest

from tools.mutate.found import Found, checkout
from tools.mutate.mutants import mutants
from tools.mutate.sandbox import Sandbox

SOURCE = b'''
@dataclass(frozen=True)
class Box:
    """A box of 3."""
    size: Literal[4] = 5

def f(a, b):
    if a < b and not b:
        sync(a)
    return f"{a + 1}" if a is None else (a
        - b)  # and
'''


def test_every_error_of_a_small_file():
    found = [(one.start[0], one.change()) for one in mutants("x.py", SOURCE)]
    assert found == [
        (5, "5 → 6"),
        (8, "< → <="),
        (8, "and → or"),
        (8, "not →"),
        (9, "sync(a) → pass"),
        (10, 'return f"{a + 1}" if a is None else (a - b) → return None'),
        (10, "is → is not"),
        (11, "- → +"),
    ]


def test_an_error_changes_its_place_alone():
    for one in mutants("x.py", SOURCE):
        assert one.old.encode() in SOURCE and one.apply(SOURCE) != SOURCE
        compile(one.apply(SOURCE), "x.py", "exec")
    (edge,) = [one for one in mutants("x.py", SOURCE) if one.old == "<"]
    assert edge.apply(SOURCE) == SOURCE.replace(b"a < b", b"a <= b")


def test_a_run_goes_on_where_it_was_ended_unless_a_file_has_changed(tmp_path):
    code, out = tmp_path / "x.py", tmp_path / "build/found.jsonl"
    code.write_bytes(SOURCE)
    first, second, *_ = (one.key() for one in mutants("x.py", SOURCE))

    def found():
        return Found(out, checkout(tmp_path, ["x.py"]))

    found().add(first, "killed", "a.py::one")
    with out.open("a") as file:
        file.write('{"file": "x')  # torn by a kill
    again = found()
    assert again.by_key == {first: "killed"}
    again.add(second, "survived", "")
    assert found().by_key == {first: "killed", second: "survived"}
    code.write_bytes(SOURCE + b"# more")
    assert found().by_key == {}


@pytest.fixture
def sandbox(tmp_path):
    """One without a copy of the checkout."""
    made = Sandbox.__new__(Sandbox)
    made.copy, made.log = tmp_path / "checkout", tmp_path / "log"
    made.copy.mkdir()
    return made


def test_a_test_that_hangs_in_its_own_folder_hangs(sandbox, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert sandbox.run(lambda: os.chdir(tempfile.gettempdir()) or time.sleep(9), 0.5) == "hangs"


def test_no_fork_of_the_sandbox_runs_exit_handlers(sandbox, tmp_path):
    """A training of the tests runs those of its process; one of them would remove the sandbox."""
    mark = tmp_path / "mark"
    atexit.register(mark.touch)
    try:
        assert sandbox.run(lambda: atexit._run_exitfuncs() or 0) == "survived"
    finally:
        atexit.unregister(mark.touch)
    assert not mark.exists()
