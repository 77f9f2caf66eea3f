"""A stand-in for the hub with its datasets, as huggingface_hub asks for them."""

import hashlib
import json
import re
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from tests.serving import Quiet, local_server, serving

MAIN = "main"


def commit(repo, branch):
    """Return the id of the commit that a branch of a stand-in repository is at."""
    return hashlib.sha1(f"{repo} {branch}".encode()).hexdigest()


class Handler(Quiet, BaseHTTPRequestHandler):
    """The calls that huggingface_hub makes: a branch, its tree, some paths of it, a file or a range of it."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer(json.loads(self.body())["paths"])

    def answer(self, paths=None):
        path = urlsplit(self.path).path
        call = re.fullmatch(
            r"/api/datasets/([^/]+/[^/]+)(?:/(tree|revision|paths-info)/([^/]+)/?(.*))?", path
        )
        file = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repo = (call or file)[1] if call or file else None
        if repo in self.server.gated:
            self.send(b"", 403, {"X-Error-Code": "GatedRepo"})
            return
        branches = dict(self.server.repos.get(repo, {}))
        branches |= {commit(repo, name): files for name, files in branches.items()}
        revision = (call[3] if call else file[2] if file else None) or MAIN
        files = branches.get(unquote(revision))
        inside = unquote(call[4] or "" if call else file[3] if file else "")
        if files is None or (file and inside not in files):
            missing = "Repo" if not branches else "Revision" if files is None else "Entry"
            self.send(b"", 404, {"X-Error-Code": f"{missing}NotFound"})
        elif file:
            self.file(inside, files[inside], self.sha(repo, revision))
        elif call[2] in (None, "revision"):
            siblings = [{"rfilename": name} for name in files]
            body = {"id": repo, "sha": self.sha(repo, revision), "siblings": siblings}
            self.send(json.dumps(body).encode(), headers={"Content-Type": "application/json"})
        else:
            self.tree(files, inside, paths)

    def sha(self, repo, revision):
        known = {commit(repo, name) for name in self.server.repos[repo]}
        return revision if revision in known else commit(repo, unquote(revision))

    def tree(self, files, inside, paths):
        """List files and folders, as far as they are asked for, below a folder."""
        deep = "recursive=true" in self.path.lower()
        entries = {}
        for name, data in files.items():
            parts = name.split("/")
            entries |= {
                "/".join(parts[:n]): {"type": "directory", "oid": "b" * 40} for n in range(1, len(parts))
            }
            entries[name] = {"type": "file", "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        below = f"{inside}/" if inside else ""
        body = [
            {"path": name, **about}
            for name, about in entries.items()
            if (name in paths if paths is not None else name.startswith(below))
            and (deep or paths is not None or "/" not in name.removeprefix(below))
        ]
        if body or paths is not None:
            self.send(json.dumps(body).encode(), headers={"Content-Type": "application/json"})
        else:
            self.send(b"", 404, {"X-Error-Code": "EntryNotFound"})

    def file(self, path, data, sha):
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span:
            headers["Content-Range"] = f"bytes {span[1]}-{span[2]}/{len(data)}"
            data = data[int(span[1]) : int(span[2]) + 1]
        if self.command == "GET":
            self.server.sent[path] += len(data)
        self.send(data, 206 if span else 200, headers)


@contextmanager
def hub_of(repos, home, gated=()):
    """A server with repositories {owner/name: {branch: {path: bytes}}} inside the block.

    `sent` counts the bytes of each file that were asked for, `env` is that of a command that asks it.
    """
    server = local_server(Handler)
    server.repos, server.gated, server.sent = repos, gated, Counter()
    with serving(server) as url:
        server.env = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }
        yield server
