"""Hub ids against a local server that answers as the hub does: through HF_ENDPOINT, cached, or said no to."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from compiler.hub import _chosen
from core.errors import RequestError
from tests.unit.compiler.conftest import ROWS, as_parquet

SPLITS = ("train", "validation", "test")
FILES = {
    f"rte/{split}/0000.parquet": as_parquet([{**row, "sentence2": f"{split}."} for row in ROWS])
    for split in SPLITS
}
FILES["cola/train/0000.parquet"] = b"not asked for"
BRANCH = "refs/convert/parquet"


class Hub(BaseHTTPRequestHandler):
    """The two calls that huggingface_hub makes: the tree of a branch, and a file of it."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path))
        file = path.removeprefix(f"/datasets/nyu-mll/glue/resolve/{BRANCH}/")
        if path == f"/api/datasets/nyu-mll/glue/tree/{BRANCH}":
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in FILES.items()
            ]
            self.reply(json.dumps(tree).encode(), body, {"Content-Type": "application/json"})
        elif file in FILES:
            etag = hashlib.sha1(FILES[file]).hexdigest()
            self.reply(FILES[file], body, {"X-Repo-Commit": "a" * 40, "ETag": f'"{etag}"'})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def reply(self, data, body, headers):
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def hub(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    server.env = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_hub_id_is_fetched_once_and_compiled(run, hub, tmp_path):
    out = tmp_path / "out"
    said = run("-m", "compiler", "compile", "rte", "--out", out, env=hub.env).stdout
    assert "read 9  kept 9" in said and "alpaca_rte_eval 3" in said
    fetched = [path for command, path in hub.asked if command == "GET" and "/resolve/" in path]
    assert len(fetched) == 3 and not any("cola" in path for path in fetched)
    hub.asked.clear()
    run("-m", "compiler", "compile", "rte", "--out", out, "--force", env=hub.env)
    assert not [path for command, path in hub.asked if command == "GET" and "/resolve/" in path]


def test_offline_both_ways_out_are_named(run, tmp_path):
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    said = run("-m", "compiler", "compile", "rte", "--out", tmp_path / "out", code=2, env=env).stderr
    assert "--source PATH" in said and "HF_ENDPOINT" in said and not (tmp_path / "out").exists()


def test_a_dataset_that_is_not_there(run, hub, tmp_path):
    said = run("-m", "compiler", "compile", "pubmedqa", "--out", tmp_path / "out", code=2, env=hub.env).stderr
    assert "the hub has no dataset 'qiaojin/PubMedQA'" in said


@pytest.mark.parametrize(
    ("files", "name", "expected"),
    [
        (["default/train/0.parquet", "default/test/0.parquet"], None, [("train", "default/train/0.parquet")]),
        (["a/train/1.parquet", "a/train/0.parquet", "README.md"], "a", ["0", "1"]),
        (["a/train/0.parquet"], "b", "has no configuration 'b' (there: a)"),
        (["a/test/0.parquet"], None, "none of the splits train (there: test)"),
    ],
)
def test_which_files(files, name, expected):
    if isinstance(expected, str):
        with pytest.raises(RequestError) as error:
            _chosen("x/y", files, name, {"train": ()})
        assert expected in str(error.value)
    else:
        chosen = _chosen("x/y", files, name, {"train": ()})
        assert len(chosen) == len(expected) and chosen == sorted(chosen)
