"""Each command on one mailed folder whose files do what they can: SECURITY.md, "Code" to "Texts"."""

import hashlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testing.commands import command_names
from testing.forks import IMPORTED, Forks
from testing.mailed_commands import CASES, CODES, NO_FILES
from tests.conftest import ROOT
from tests.safety.mailed_folder import SECRET, make_mailed
from tests.safety.test_terminal import CONTROLS

SETTINGS = {"HF_HUB_OFFLINE": "", "OPENAI_API_KEY": f"{SECRET}2", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Machine:
    """Forks that have imported what commands import, behind a proxy and hub that notes what comes."""

    folder: Path
    """It has the mailed folder, as `template`, and the home."""
    forks: Forks
    received: list[bytes]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    make_mailed(folder / "template")
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=receive, args=(server, received), daemon=True).start()
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        places = dict.fromkeys(("HF_ENDPOINT", "http_proxy", "https_proxy", "all_proxy"), proxy)
        home = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)}
        with Forks(*IMPORTED, env={**SETTINGS, **places, **home}) as forks:
            yield Machine(folder, forks, received)


def receive(server: socket.socket, received: list[bytes]) -> None:
    """Note the beginning of what each connection sends."""
    while True:
        try:
            line, _ = server.accept()
        except OSError:
            return
        with line:
            received.append(line.recv(200))


def contents(folder: Path) -> dict[str, str]:
    """Each path of a folder, but those below OUT, with a hash of the file or the target of the link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file() and not name.startswith("OUT"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_each_command_has_a_case_or_is_listed_as_untested() -> None:
    assert CASES.keys() | NO_FILES == set(command_names())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_mailed_folder_harms_nobody(machine: Machine, tmp_path: Path, name: str) -> None:
    mailed = tmp_path / "mailed"
    shutil.copytree(machine.folder / "template", mailed, symlinks=True)
    before = contents(mailed)
    machine.received.clear()
    connections = tmp_path / "connections"
    command = [machine.forks.python, "-m", "tests.safety.watched_command", connections, *CASES[name].split()]
    done = subprocess.run(command, cwd=mailed, env=machine.forks.env, capture_output=True, timeout=280)
    output = (done.stdout + done.stderr).decode(errors="surrogateescape")
    assert done.returncode == CODES.get(name, 0), output
    assert "Traceback" not in output
    ran = machine.folder / "ran"
    code = ran.read_text() if ran.exists() else ""
    ran.unlink(missing_ok=True)
    if name == "recipe train":  # whose recipe asks for the model's code
        code = code.replace("model code ", "")
    assert code == ""
    assert machine.received == [] and connections.read_text() == ""
    assert contents(mailed) == before
    assert SECRET not in output
    for path in (mailed / "OUT").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
    assert (CONTROLS - {"\r"}).isdisjoint(output), output
