"""Each command on one mailed folder whose files do what they can: SECURITY.md, "Code" to "Texts"."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.safety.mailed_folder import CASES, NO_FILES, REFUSED, SECRET, make_mailed
from tests.safety.test_terminal import CONTROLS
from tools.security_table import command_names

PROGRAM = """
import os, sys
connections = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        address = arguments[1] if event == "socket.connect" else arguments
        if not isinstance(address, str):
            os.write(connections, f"{event} {address}\\n".encode())
sys.addaudithook(note)
del sys.argv[1]
from tuneyard.core.cli.main import main
main()
"""
"""Runs a command, and notes each connection but those to sockets with a path."""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mailed(tmp_path_factory.mktemp("template") / "mailed")


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """A proxy and hub that notes what comes."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def receive() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with line:
                    received.append(line.recv(200))

        threading.Thread(target=receive, daemon=True).start()
        yield server.getsockname()[1], received


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
    assert CASES.keys() | NO_FILES <= set(command_names())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CASES)
def test_a_mailed_folder_harms_nobody(
    template: Path, tmp_path: Path, listener: tuple[int, list[bytes]], name: str
) -> None:
    mailed = tmp_path / "mailed"
    shutil.copytree(template, mailed, symlinks=True)
    before = contents(mailed)
    port, received = listener
    proxy = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"),
        "HF_ENDPOINT": proxy, "http_proxy": proxy, "https_proxy": proxy, "all_proxy": proxy,
        "OPENAI_API_KEY": f"{SECRET}2", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    environment.pop("HF_HUB_OFFLINE", None)
    for folder in ("home", "tmp"):
        (tmp_path / folder).mkdir()
    connections = tmp_path / "connections"
    command = [sys.executable, "-P", "-c", PROGRAM, str(connections), *CASES[name].split()]
    done = subprocess.run(command, cwd=mailed, env=environment, capture_output=True, timeout=280)
    output = (done.stdout + done.stderr).decode(errors="surrogateescape")
    assert done.returncode in ((2,) if name in REFUSED else (0, 1)), output
    assert "Traceback" not in output
    ran = template.parent / "ran"
    code = ran.read_text() if ran.exists() else ""
    ran.unlink(missing_ok=True)
    if name == "recipe train":  # whose recipe asks for the model's code
        code = code.replace("model code ", "")
    assert code == ""
    assert received == [] and connections.read_text() == ""
    assert contents(mailed) == before
    assert SECRET not in output
    for path in (mailed / "OUT").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
    assert (CONTROLS - {"\r"}).isdisjoint(output), output
