"""`python -m tools.fetch_data` against a server: only files with the right hash get their names."""

import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from testing.real_data import QWEN, TOKENIZERS
from tests.conftest import ROOT
from tests.real_data import real_path

CATALOGUE = ROOT / "tools/public_data.yaml"
BODIES = {
    "/rte/dev.tsv": b"index\tlabel\n0\tyes\n",
    "/large.bin": bytes(range(256)) * 12_000,  # 3 MB: several blocks
    "/中文%20x.json": '{"键": 1}'.encode(),
    "/empty.txt": b"",
}


class Handler(http.server.BaseHTTPRequestHandler):
    """It serves BODIES, below /moved by a redirect, and misbehaves at other addresses."""

    server: "Server"

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
        elif self.path == "/cut-off":
            self.answer(b"half", length=8)
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            while not self.wfile.closed:
                self.wfile.write(b"x" * 65536)
        elif self.path == "/waits":
            self.answer(b"half", length=8)
            self.server.goes_on.wait(20)
            self.wfile.write(b"full")
        elif self.path in self.server.bodies:
            self.answer(self.server.bodies[self.path])
        else:
            self.send_error(404)

    def answer(self, body: bytes, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


class Server(http.server.ThreadingHTTPServer):
    """A server that notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.goes_on = threading.Event()
        quoted = "/%E4%B8%AD%E6%96%87%20x.json"
        self.bodies = {quoted if "中" in path else path: body for path, body in BODIES.items()}

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.goes_on.set()
        running.shutdown()


def entry(path: str, body: bytes, **others: object) -> dict[str, object]:
    return {"path": path, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), **others}


def write_catalogue(folder: Path, address: str, files: dict[str, object], **others: object) -> Path:
    source = {"address": address, "licence": "MIT", "files": files}
    path = folder / "catalogue.yaml"
    path.write_text(json.dumps({"sources": [source], **others}))
    return path


def command(folder: Path, catalogue: Path) -> list[str]:
    return [sys.executable, "-m", "tools.fetch_data", str(folder), "--catalogue", str(catalogue)]


def fetch(folder: Path, catalogue: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "no_proxy": "127.0.0.1"}
    ended = subprocess.run(
        command(folder, catalogue), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


def files_of(folder: Path) -> set[str]:
    """All files below a folder, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_files_are_downloaded_once(server: Server, tmp_path: Path) -> None:
    files = {
        "rte/dev.tsv": entry("moved/rte/dev.tsv", BODIES["/rte/dev.tsv"]),
        "a/b/large.bin": entry("large.bin", BODIES["/large.bin"]),
        "中文 x.json": entry("%E4%B8%AD%E6%96%87%20x.json", BODIES["/中文%20x.json"]),
        "empty.txt": entry("empty.txt", b""),
    }
    catalogue, data = write_catalogue(tmp_path, server.address, files), tmp_path / "data"
    ended = fetch(data, catalogue)
    assert "4 downloaded, 0 kept" in ended.stdout
    assert "large.bin" in ended.stderr or "100%" in ended.stderr  # the progress
    assert files_of(data) == set(files)
    assert (data / "a/b/large.bin").read_bytes() == BODIES["/large.bin"]
    assert (data / "rte/dev.tsv").read_bytes() == BODIES["/rte/dev.tsv"]
    (data / "empty.txt").unlink()
    server.asked.clear()
    assert "1 downloaded, 3 kept" in fetch(data, catalogue).stdout
    assert server.asked == ["/empty.txt"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("large.bin", b"x" * len(BODIES["/large.bin"]), "SHA-256"),
        ("large.bin", b"x" * 1000, "1,000 bytes"),
        ("rte/dev.tsv", b"x" * 1000, "1,000"),
        ("cut-off", b"halffull", "8"),
        ("endless", b"x" * 100_000, "100,000 bytes"),
        ("nowhere", b"x", "404"),
        ("moved/nowhere", b"x", "404"),
    ],
)
def test_another_file_is_refused_and_nothing_of_it_stays(
    server: Server, tmp_path: Path, path: str, body: bytes, words: str
) -> None:
    files = {
        "bad/file": entry(path, body),
        "good.tsv": entry("rte/dev.tsv", BODIES["/rte/dev.tsv"]),
    }
    data = tmp_path / "data"
    ended = fetch(data, write_catalogue(tmp_path, server.address, files), code=1)
    (line,) = [line for line in ended.stderr.splitlines() if "error: " in line]
    assert f"{server.address}{path}" in line and words in line
    assert files_of(data) == {"good.tsv"}


def test_a_file_of_the_user_stays(server: Server, tmp_path: Path) -> None:
    files = {"dev.tsv": entry("rte/dev.tsv", BODIES["/rte/dev.tsv"])}
    data = tmp_path / "data"
    data.mkdir()
    (data / "dev.tsv").write_text("my own\n")
    ended = fetch(data, write_catalogue(tmp_path, server.address, files), code=1)
    assert "dev.tsv: SHA-256 is" in ended.stderr and "delete it" in ended.stderr
    assert (data / "dev.tsv").read_text() == "my own\n" and server.asked == []


def test_a_host_that_is_not_there_is_asked_once(tmp_path: Path) -> None:
    with Server() as closed:
        address = closed.address
    files = {f"{number}.txt": entry(f"{number}.txt", b"x") for number in range(3)}
    data = tmp_path / "data"
    ended = fetch(data, write_catalogue(tmp_path, address, files), code=1)
    assert "0.txt: " in ended.stderr and "refused" in ended.stderr
    assert "1.txt: not asked for" in ended.stderr and "2.txt: not asked for" in ended.stderr
    assert files_of(data) == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_half_file_and_the_next_one_goes_on(
    server: Server, tmp_path: Path, number: signal.Signals
) -> None:
    files = {
        "first.tsv": entry("rte/dev.tsv", BODIES["/rte/dev.tsv"]),
        "second": entry("waits", b"halffull"),
    }
    catalogue, data = write_catalogue(tmp_path, server.address, files), tmp_path / "data"
    with subprocess.Popen(
        command(data, catalogue), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        deadline = time.monotonic() + 60
        while not (data / ".second.part").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        running.send_signal(number)
        code = running.wait(60)
    assert code == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    left = {".second.part"} if number == signal.SIGKILL else set()
    assert files_of(data) == {"first.tsv"} | left
    server.goes_on.set()
    assert "1 downloaded, 1 kept" in fetch(data, catalogue).stdout
    assert files_of(data) == {"first.tsv", "second"}


def test_a_file_made_of_others_is_checked_as_well(server: Server, tmp_path: Path) -> None:
    table = b"index\tlabel\n0\tyes\n"
    files = {"dev.tsv": entry("rte/dev.tsv", table)}
    whole = hashlib.sha256(b"0\tyes\n").hexdigest()
    cuts = {
        "rows.tsv": {"cut": "rows without header", "of": ["dev.tsv"], "sha256": whole},
        "other.tsv": {"cut": "rows without header", "of": ["dev.tsv"], "sha256": "0" * 64},
        "none.tsv": {"cut": "rows without header", "of": ["missing.tsv"], "sha256": whole},
    }
    data = tmp_path / "data"
    ended = fetch(data, write_catalogue(tmp_path, server.address, files, cuts=cuts), code=1)
    assert "1 downloaded, 0 kept, 1 made" in ended.stdout
    assert "other.tsv: made with SHA-256" in ended.stderr and "none.tsv: needs missing.tsv" in ended.stderr
    assert files_of(data) == {"dev.tsv", "rows.tsv"} and (data / "rows.tsv").read_bytes() == b"0\tyes\n"


@pytest.mark.parametrize(
    ("files", "others", "words"),
    [
        ({"../out.txt": entry("empty.txt", b"")}, {}, "'../out.txt'"),
        ({"/tmp/out.txt": entry("empty.txt", b"")}, {}, "'/tmp/out.txt'"),
        ({"a/../../out.txt": entry("empty.txt", b"")}, {}, "'a/../../out.txt'"),
        ({"a.txt": entry("empty.txt", b"", sha256="12")}, {}, "sha256 is '12'"),
        ({"a.txt": entry("empty.txt", b"", bytes=-1)}, {}, "bytes is -1"),
        ({"a.txt": "empty.txt"}, {}, "a.txt: found str"),
        ({"a.txt": {}}, {}, "bytes is None"),
        ([], {}, "found list"),
        ({}, {"sources": 5}, "sources: found int"),
        ({}, {"cuts": {"b": {"cut": "os.system", "of": [], "sha256": "0" * 64}}}, "cut is 'os.system'"),
        ({}, {"cuts": {"b": {"cut": "reports 0", "of": 3, "sha256": "0" * 64}}}, "of is 3"),
    ],
)
def test_a_catalogue_of_another_form_is_refused_with_its_place(
    server: Server, tmp_path: Path, files: dict[str, object], others: dict[str, object], words: str
) -> None:
    catalogue = write_catalogue(tmp_path, server.address, files, **others)
    ended = fetch(tmp_path / "data", catalogue, code=1)
    assert str(catalogue) in ended.stderr and words in ended.stderr
    assert server.asked == [] and files_of(tmp_path) == {"catalogue.yaml"}


@pytest.mark.parametrize("address", ["file:///etc/", "ftp://127.0.0.1/", "etc/", "http://127.0.0.1/a"])
def test_only_http_is_asked(tmp_path: Path, address: str) -> None:
    files = {"passwd": entry("passwd", b"")}
    assert repr(address) in fetch(tmp_path / "data", write_catalogue(tmp_path, address, files), code=1).stderr


def test_every_public_file_has_its_address_licence_and_hash() -> None:
    catalogue = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))
    names = [name for source in catalogue["sources"] for name in source["files"]]
    assert len(names) == len(set(names)) == 174
    assert not set(names) & set(catalogue["cuts"])
    for source in catalogue["sources"]:
        assert source["licence"] and source["address"].startswith("https://")
    sources_of_cuts = {name for cut in catalogue["cuts"].values() for name in cut["of"]}
    assert sources_of_cuts <= set(names)


def test_the_real_files_are_those_of_the_catalogue(tmp_path: Path) -> None:
    """Each is kept, and what is made of others has the hash of the file that was given."""
    catalogue = yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))
    for source in catalogue["sources"]:
        for name in source["files"]:
            link = tmp_path / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if name.startswith("tokenizers/"):
                link.symlink_to(real_path(name.removeprefix("tokenizers/"), TOKENIZERS))
            else:
                link.symlink_to(real_path(name))
    assert real_path(QWEN, TOKENIZERS).is_dir()
    assert "0 downloaded, 174 kept, 11 made" in fetch(tmp_path, CATALOGUE).stdout
    assert (tmp_path / "defect/raw/ict_04.json").read_bytes() == real_path(
        "defect/raw/ict_04.json"
    ).read_bytes()
