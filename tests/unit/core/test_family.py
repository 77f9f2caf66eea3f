"""A program ends with all that it has started, wherever in the tree of processes that is by then."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.processes import alive, wait_for_end, written
from tuneyard.core.execution.family import FAMILIES, start_family

ORPHAN = "setsid sh -c 'echo $$ > pid; exec sleep 600' & sleep 0.1"
"""Starts a process in a session of its own, whose parent then ends."""
WITHOUT_ENVIRONMENT = "env -i setsid sh -c 'echo $$ > pid; exec sleep 600'; true"
ONLY_WITHOUT = "exec env -i sh -c 'echo $$ > pid; exec sleep 600'"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ASKING = """
import sys
from tuneyard.core.execution.family import start_family
start_family(["sh", "-c", sys.argv[1]]).wait()
"""


@pytest.mark.parametrize("code", [0, 3, -signal.SIGSEGV])
def test_the_exit_code_is_that_of_the_command(code: int) -> None:
    command = f"kill -{-code} $$" if code < 0 else f"exit {code}"
    assert start_family(["sh", "-c", command], env=ENVIRONMENT).wait() == code


def test_an_orphan_ends_with_its_command(tmp_path: Path) -> None:
    """As torchrun's ranks do when torchrun itself is killed."""
    assert start_family(["sh", "-c", ORPHAN], cwd=tmp_path, env=ENVIRONMENT).wait() == 0
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    "command",
    [f"{ORPHAN}; sleep 600", WITHOUT_ENVIRONMENT, ONLY_WITHOUT],
    ids=["orphan", "no variables", "the command without variables"],
)
def test_a_member_of_any_kind_ends_with_the_asking_process(
    tmp_path: Path, command: str, sign: signal.Signals
) -> None:
    asking = subprocess.Popen([sys.executable, "-c", ASKING, command], cwd=tmp_path, env=ENVIRONMENT)
    member = int(written(tmp_path / "pid", asking))
    asking.send_signal(sign)
    asking.wait()
    wait_for_end([member])


def test_a_member_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    stubborn += "pathlib.Path('pid').write_text('on'); time.sleep(600)"
    variables = {**ENVIRONMENT, FAMILIES: "outer:mine:inner"}
    member = subprocess.Popen([sys.executable, "-c", stubborn], cwd=tmp_path, env=variables)
    bystander = subprocess.Popen(["sleep", "600"], env={**ENVIRONMENT, FAMILIES: "minesweeper"})
    written(tmp_path / "pid", member)
    ending = "from tuneyard.core.execution import family; family.GRACE = 0.2; family.end_family('mine')"
    subprocess.run([sys.executable, "-c", ending], env=ENVIRONMENT, check=True)
    assert member.wait() == -signal.SIGKILL
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_the_end_of_a_family_inside_another_leaves_the_outer_one_alone(tmp_path: Path) -> None:
    outer = "import pathlib; from tuneyard.core.execution.family import start_family; "
    outer += "assert start_family(['true']).wait() == 0; pathlib.Path('pid').write_text('still here')"
    assert start_family([sys.executable, "-c", outer], cwd=tmp_path, env=ENVIRONMENT).wait() == 0
    assert (tmp_path / "pid").read_text() == "still here"
