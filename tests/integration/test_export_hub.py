"""Uploads to a stand-in for the hub that speaks its API as huggingface_hub 1.33 calls it."""

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ROOT
from tests.messages import printed_line
from tests.processes import wait_until
from tests.serving import Quiet, serving
from tests.unit.adapters.make import base_tensors, factors, make, make_base

pytestmark = pytest.mark.slow
TOKEN = "hf_of_this_test"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: `objects` are uploaded files by hash, `commits` {path: bytes} each."""

    daemon_threads = True

    def __init__(self, repo="org/name"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repo = repo
        self.objects, self.commits, self.puts, self.created, self.unknown = {}, [], [], [], []
        self.readme, self.titles = None, []
        self.hang_over = None  # uploads of more bytes never end

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(Quiet, BaseHTTPRequestHandler):
    """create, validate-yaml, preupload, LFS batch and upload, commit (NDJSON)."""

    def reply(self, value, code=200):
        self.send(json.dumps(value).encode(), code)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        """The README.md of the newest commit; the client's other questions have no answer."""
        readme = self.server.readme
        if readme is None or self.path != f"/{self.server.repo}/resolve/main/README.md":
            self.send(b"", 404, {"X-Error-Code": "EntryNotFound"})
            return
        digest = hashlib.sha1(readme).hexdigest()
        self.send(readme, 200, {"X-Repo-Commit": digest, "ETag": f'"{digest}"'})

    def do_POST(self):
        body, hub = self.body(), self.server
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.reply({"error": "Invalid credentials"}, 401)
        elif self.path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self.reply({"url": f"{hub.url}/{hub.repo}", "name": hub.repo})
        elif self.path == "/api/validate-yaml":
            self.reply({"warnings": [], "errors": []})
        elif self.path == f"/api/models/{hub.repo}/preupload/main":
            self.reply({"files": [self.mode(file) for file in json.loads(body)["files"]]})
        elif self.path == f"/{hub.repo}.git/info/lfs/objects/batch":
            self.reply({"objects": [self.action(item) for item in json.loads(body)["objects"]]})
        elif self.path == f"/api/models/{hub.repo}/commit/main":
            hub.commits.append(self.committed([json.loads(line) for line in body.splitlines()]))
            self.reply(
                {"commitUrl": f"{hub.url}/{hub.repo}/commit/1", "commitOid": "1" * 40, "success": True}
            )
        else:
            hub.unknown.append(self.path)
            self.reply({"error": "unknown"}, 404)

    def mode(self, file):
        large = file["path"].endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def action(self, item):
        if item["oid"] in self.server.objects:
            return item
        return {**item, "actions": {"upload": {"href": f"{self.server.url}/lfs/{item['oid']}"}}}

    def committed(self, lines):
        files = {}
        self.server.titles.append((lines[0]["value"]["summary"], lines[0]["value"]["description"]))
        for line in lines[1:]:
            value = line["value"]
            large = line["key"] == "lfsFile"
            files[value["path"]] = (
                self.server.objects[value["oid"]] if large else base64.b64decode(value["content"])
            )
        return files

    def do_PUT(self):
        oid, size = self.path.rpartition("/")[2], int(self.headers["Content-Length"])
        hub = self.server
        hub.puts.append(oid)
        if hub.hang_over is not None and size > hub.hang_over:
            time.sleep(600)
        hub.objects[oid] = self.body()
        self.reply({})


@pytest.fixture
def hub():
    server = Hub()
    with serving(server):
        yield server
    assert not server.unknown


@pytest.fixture
def fused_model(tmp_path):
    """A model in two shards of different size, with files that do not belong on the hub."""
    folder = make_base(tmp_path / "fused", base_tensors(), shards=2)
    (folder / "optimizer.pt").write_bytes(b"pickle")
    (folder / "README.md").write_text(
        "---\nbase_model: org/base\n---\n\n# Fused\n\nIt is written by Tuneyard.\n"
    )
    return folder


def variables(hub):
    """The environment of a user of the stand-in; None: of a hub that does not answer."""
    return {
        "HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9",
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }


def start(hub, *words, **env):
    """Begin an export to the stand-in."""
    command = [
        sys.executable,
        "-m",
        "adapters",
        "export",
        *map(str, words),
        "--to",
        "hub",
        "--repo",
        "org/name",
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **variables(hub), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code):
    said, _ = process.communicate()
    assert process.returncode == code, said
    assert "Traceback" not in said
    return said


def test_an_upload_killed_in_the_middle_goes_on_where_it_was(hub, fused_model):
    sizes = sorted(path.stat().st_size for path in fused_model.glob("*.safetensors"))
    assert sizes[0] < sizes[1]
    hub.hang_over = sizes[0]
    process = start(hub, fused_model)
    wait_until(lambda: len(hub.puts) == 2 and len(hub.objects) == 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert hub.commits == []  # nothing is seen before all of it is there
    (arrived,) = hub.objects
    hub.hang_over, hub.puts = None, []
    assert "org/name/commit/1" in finish(start(hub, fused_model), 0)
    assert len(hub.puts) == 1
    assert arrived not in hub.puts
    (files,) = hub.commits
    shards = [path.name for path in sorted(fused_model.glob("*.safetensors"))]
    wanted = {"README.md", "config.json", "model.safetensors.index.json", "tokenizer.json", *shards}
    assert files.keys() == wanted
    for name in wanted - {"README.md"}:
        assert files[name] == (fused_model / name).read_bytes()
    assert files["README.md"].decode().startswith("---\nbase_model: org/base\n")


def test_an_adapter_goes_up_into_a_private_repository(hub, tmp_path):
    adapter = make(tmp_path / "rte", factors())
    finish(start(hub, adapter, "--private", "--license", "apache-2.0"), 0)
    assert hub.created[0]["visibility"] == "private"
    (files,) = hub.commits
    assert files.keys() == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert b"base_model: org/base\nlibrary_name: peft\nlicense: apache-2.0\n" in files["README.md"]


def test_refusals_name_the_way_out(hub, tmp_path):
    adapter = make(tmp_path / "rte", factors())
    home = {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": ""}
    assert "export HF_TOKEN=" in finish(start(hub, adapter, **home), 2)
    assert "HF_HUB_OFFLINE is set" in finish(start(hub, adapter, HF_HUB_OFFLINE="1"), 2)
    assert "refuses the token (401)" in finish(start(hub, adapter, HF_TOKEN="hf_wrong"), 2)
    assert "run the command again" in finish(start(None, adapter), 2)
    assert hub.commits == []


def test_a_card_that_was_edited_on_the_hub_is_kept(hub, tmp_path):
    adapter = make(tmp_path / "rte", factors())
    home = {"HF_HOME": str(tmp_path / "home")}
    finish(start(hub, adapter, "--license", "mit", **home), 0)
    hub.readme = hub.commits[0]["README.md"]
    finish(start(hub, adapter, "--license", "apache-2.0", "--message", "Second\n\nmore", **home), 0)
    assert b"license: apache-2.0" in hub.commits[1]["README.md"]
    hub.readme = hub.commits[1]["README.md"].replace(b"## How to load it", b"## Loading")
    printed_line(finish(start(hub, adapter, **home), 0), "org/name/README.md", "--card FILE")
    assert hub.commits[2].keys() == {"adapter_config.json", "adapter_model.safetensors"}
    printed_line(
        finish(start(hub, adapter, "--license", "mit", **home), 2), "org/name/README.md", "--license"
    )
    (tmp_path / "card.md").write_text("# By hand\n")
    finish(start(hub, adapter, "--card", tmp_path / "card.md", **home), 0)
    assert hub.commits[3]["README.md"] == b"# By hand\n"
    assert hub.titles == [
        ("Upload rte with Tuneyard", ""),
        ("Second", "more"),
        *[("Upload rte with Tuneyard", "")] * 2,
    ]
