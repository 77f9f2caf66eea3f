"""Hub ids against a local server that answers as the hub does: through HF_ENDPOINT, cached, or said no to."""

import gzip
import hashlib
import json
import random
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from compiler.hub import _of_copy, _of_own
from core.errors import RequestError
from tests.unit.compiler.conftest import ROWS, as_parquet

SPLITS = ("train", "validation", "test")
COPY, MAIN, OLD = "refs/convert/parquet", "main", "v1"


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def lines_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def talk(n):
    answer = random.Random(n).randbytes(1000).hex()  # compresses badly: the file takes several requests
    return {"conversations": [{"from": "human", "value": f"Say {n}."}, {"from": "gpt", "value": answer}]}


def study(n):
    return {
        "pubid": n,
        "question": f"Does drug {n} help?",
        "context": {"contexts": [f"Trial {n}."], "labels": ["RESULTS"]},
        "long_answer": f"Drug {n} helps.",
        "final_decision": "yes",
    }


def thread(n):
    answers = [{"pm_score": 1, "text": "No idea."}, {"pm_score": 5, "text": f"Train it {n} times."}]
    return {"qid": n, "question": f"How do I train a neural network {n}?", "answers": answers}


GLUE = {
    f"rte/{split}/0000.parquet": as_parquet([{**row, "sentence2": f"{split}."} for row in ROWS])
    for split in SPLITS
}
REPOS = {
    "nyu-mll/glue": {COPY: {**GLUE, "cola/train/0000.parquet": b"not asked for"}},
    "Open-Orca/SlimOrca": {
        COPY: {
            f"default/train/{shard:04}.parquet": as_parquet(
                [talk(shard * 5000 + n) for n in range(5000)], 500
            )
            for shard in range(2)
        }
    },
    "qiaojin/PubMedQA": {
        COPY: {
            "pqa_labeled/train/0000.parquet": as_parquet([study(n) for n in range(500)]),
            "pqa_artificial/train/0000.parquet": b"not asked for",
        }
    },
    "HuggingFaceH4/stack-exchange-preferences": {
        COPY: {"default/partial-train/0000.parquet": as_parquet([thread(n) for n in range(20)])}
    },
    "our/own": {
        MAIN: {
            "README.md": b"not data",
            "data/train.jsonl.gz": gzip.compress(lines(ROWS)),
            "data/dev.csv": b"premise,hypothesis,label\nA man.,Someone.,0\n",
        },
        OLD: {"pairs.jsonl": lines([{"question": "Old?", "answer": "Yes."}])},
    },
    "our/pairs": {
        COPY: {
            f"{config}/{split}/0000.parquet": as_parquet(
                [{"question": f"{config} {split}?", "answer": "Yes."}]
            )
            for config in ("default", "zh")
            for split in ("train", "validation")
        }
    },
}


class Hub(BaseHTTPRequestHandler):
    """The calls that huggingface_hub makes: a branch, its tree, some paths of it, a file or a range of it."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(asked["paths"])

    def answer(self, paths=None):
        path = unquote(urlsplit(self.path).path)
        call = re.fullmatch(
            rf"/api/datasets/([^/]+/[^/]+)/(tree|revision|paths-info)/({COPY}|{MAIN}|v[0-9])/?(.*)", path
        )
        file = re.fullmatch(rf"/datasets/([^/]+/[^/]+)/resolve/({COPY}|{MAIN}|v[0-9])/(.+)", path)
        branches = REPOS.get((call or file)[1]) if call or file else None
        files = branches and branches.get(call[3] if call else file[2])
        if branches is None or files is None or (file and file[3] not in files):
            missing = "Repo" if branches is None else "Revision" if files is None else "Entry"
            self.reply(b"", 404, {"X-Error-Code": f"{missing}NotFound"})
        elif file:
            self.file(path, files[file[3]])
        else:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
                if name.startswith(call[4]) and (paths is None or name in paths)
            ]
            body = {"id": call[1], "sha": "a" * 40} if call[2] == "revision" else tree
            self.reply(json.dumps(body).encode(), 200, {"Content-Type": "application/json"})

    def file(self, path, data):
        headers = {"X-Repo-Commit": "a" * 40, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if span:
            headers["Content-Range"] = f"bytes {span[1]}-{span[2]}/{len(data)}"
            data = data[int(span[1]) : int(span[2]) + 1]
        if self.command == "GET":
            self.server.sent[path.split("/resolve/")[1]] += len(data)
        self.reply(data, 206 if span else 200, headers)

    def reply(self, data, status, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def hub(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.sent = Counter()
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


def size(repo, file, branch=COPY):
    """Return the whole size of a file."""
    return len(REPOS[repo][branch][file])


def test_a_hub_id_is_fetched_once_and_compiled(run, hub, tmp_path):
    out = tmp_path / "out"
    said = run("-m", "compiler", "compile", "rte", "--out", out, env=hub.env).stdout
    assert "read 9  kept 9" in said and "alpaca_rte_eval 3" in said
    assert hub.sent == {f"{COPY}/{file}": len(data) for file, data in GLUE.items()}
    hub.sent.clear()
    run("-m", "compiler", "compile", "rte", "--out", out, "--force", env=hub.env)
    assert not hub.sent


def test_a_mixture_streams_only_as_far_as_its_shares_go(run, hub, tmp_path):
    """mix-small: 800 reports here, 800 of SlimOrca's 10,000 rows, 400 of PubMedQA's 500."""
    reports = tmp_path / "reports.jsonl"
    reports.write_bytes(lines([{"instruction": f"Report {n}?", "output": f"It is {n}."} for n in range(900)]))
    command = ("compile", "mix-small", "--source", f"reports={reports}", "--out", tmp_path / "o")
    done = run("-m", "compiler", *command, env=hub.env)
    assert "mix_small_train 1800  mix_small_eval 200" in done.stdout
    assert "orca: 800 rows of 800 wanted" in done.stderr
    orca = "default/train/{}.parquet"
    assert f"{COPY}/{orca.format('0001')}" not in hub.sent, "the second shard is not needed"
    assert hub.sent[f"{COPY}/{orca.format('0000')}"] > 0
    assert not any("artificial" in file for file in hub.sent)
    hub.sent.clear()
    assert "up to date" in run("-m", "compiler", *command, env=hub.env).stdout and not hub.sent


@pytest.mark.slow
def test_a_stream_reads_ranges_of_a_file(run, hub, tmp_path):
    spec = tmp_path / "orca.yaml"
    spec.write_text(
        "like: messages\nabout: SlimOrca\nsource: {hub: {path: Open-Orca/SlimOrca, stream: true}}\n"
    )
    done = run("-m", "compiler", "compile", spec, "--limit", 10, "--out", tmp_path / "o", env=hub.env)
    assert "read 10  kept 10" in done.stdout
    ((_, sent),) = hub.sent.items()
    assert sent < 0.7 * size("Open-Orca/SlimOrca", "default/train/0000.parquet")


@pytest.mark.slow
def test_the_large_mixture_takes_a_partial_copy(run, hub, tmp_path):
    done = run("-m", "compiler", "show", "stackexchange", "--row", 3, env=hub.env)
    assert "Train it 2 times." in done.stdout
    assert "hf://datasets/HuggingFaceH4/stack-exchange-preferences@refs/convert/parquet/" in done.stdout


@pytest.mark.slow
def test_jsonl_and_csv_of_a_dataset_without_a_copy(run, hub, tmp_path):
    spec = tmp_path / "own.yaml"
    spec.write_text("like: mnli\nabout: Our own\nsource: {hub: {path: our/own, name: data}}\n")
    done = run("-m", "compiler", "compile", spec, "--out", tmp_path / "out", env=hub.env)
    assert "alpaca_mnli_train 3  alpaca_mnli_eval 1" in done.stdout
    streamed = spec.write_text(spec.read_text().replace("name: data", "name: data, stream: true")) and spec
    again = run("-m", "compiler", "compile", streamed, "--out", tmp_path / "2", env=hub.env)
    assert "alpaca_mnli_train 3  alpaca_mnli_eval 1" in again.stdout


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("hub:our/pairs", "default train?"),
        ("hub:our/pairs:zh", "zh train?"),
        ("train=hub:our/pairs:zh:validation", "zh validation?"),
        ("hub:our/pairs::validation", "default validation?"),
        (f"hub:our/pairs@{COPY}:zh:train", "zh train?"),
        (f"hub:our/own@{OLD}", "Old?"),
    ],
)
def test_a_dataset_of_the_hub_for_any_spec(run, hub, tmp_path, source, asked):
    run("-m", "compiler", "compile", "qa", "--source", source, "--out", tmp_path / "o", env=hub.env)
    (record,) = lines_of(tmp_path / "o" / "qa" / "qa.jsonl")
    assert record["instruction"] == asked


def test_a_dataset_of_the_hub_for_splits_and_parts(run, hub, tmp_path):
    """All splits by their names in circulation, one of them by its name, and a part of a mixture."""
    mnli = ("-m", "compiler", "check", "mnli", "--out", tmp_path, "--source")
    assert "read 9 " in run(*mnli, "hub:nyu-mll/glue:rte", env=hub.env).stdout
    assert "read 3 " in run(*mnli, "hub:nyu-mll/glue:rte:validation", env=hub.env).stdout
    show = ("-m", "compiler", "show", "rte", "--source", "eval=hub:nyu-mll/glue:rte")
    assert "validation." in run(*show, env=hub.env).stdout
    out = ("--out", tmp_path / "o")
    spec = tmp_path / "mix.yaml"
    parts = "{a: {share: 0.5, as: qa}, b: {share: 0.5, as: qa}}"
    write = "[{dataset: m, file: m.jsonl, format: alpaca}]"
    spec.write_text(f"about: m\nmix: {{total: 2, parts: {parts}}}\nwrite: {write}\n")
    both = ("--source", "a=hub:our/pairs", "--source", "b=hub:our/pairs:zh:validation")
    run("-m", "compiler", "compile", spec, *both, *out, env=hub.env)
    asked = [record["instruction"] for record in lines_of(tmp_path / "o" / "mix" / "m.jsonl")]
    assert asked == ["default train?", "zh validation?"]


@pytest.mark.parametrize(
    ("spec", "source", "said"),
    [
        ("qa", "hub:", "expected hub:owner/name[@revision][:config][:split]"),
        ("qa", "hub:a/b:c:d:e", "expected hub:owner/name[@revision][:config][:split]"),
        ("qa", "hub:our/own@v2", "the hub has no revision 'v2' of our/own"),
        ("qa", "hub:our/pairs:en", "no configuration 'en' (there: default, zh)"),
        ("qa", "hub:our/pairs:zh:test", "none of the splits test (there: train, validation)"),
        ("qa", f"hub:our/own@{OLD}::test", "no data file for test"),
        ("rte", "hub:nyu-mll/glue:rte:text", "rte has no split 'text'"),
        ("mix-small", "hub:our/pairs", "say for which part"),
    ],
)
def test_what_the_hub_has_not(run, hub, tmp_path, spec, source, said):
    command = ("-m", "compiler", "compile", spec, "--source", source, "--out", tmp_path / "o")
    assert said in run(*command, code=2, env=hub.env).stderr and not (tmp_path / "o").exists()


def test_offline_both_ways_out_are_named(run, tmp_path):
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    said = run("-m", "compiler", "compile", "rte", "--out", tmp_path / "out", code=2, env=env).stderr
    assert "--source PATH" in said and "HF_ENDPOINT" in said and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nobody/nothing", "the hub has no dataset 'nobody/nothing'"),
        pytest.param("our/own, name: other", "our/own has no data file for train", marks=pytest.mark.slow),
        pytest.param("no such id!", "cannot be fetched from the hub", marks=pytest.mark.slow),
    ],
)
def test_a_wrong_id_names_the_ways_out(run, hub, tmp_path, path, said):
    spec = tmp_path / "wrong.yaml"
    spec.write_text(f"like: mnli\nabout: Wrong\nsource: {{hub: {{path: {path}}}}}\n")
    error = run("-m", "compiler", "compile", spec, "--out", tmp_path / "out", code=2, env=hub.env).stderr
    assert said in error and ("--source PATH" in error or "data files:" in error)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_hub_that_breaks_off_in_the_middle_of_a_stream(run, hub, tmp_path, monkeypatch):
    """The tree is there, the file is not: exit 2 with the ways out, nothing written."""
    spec = tmp_path / "orca.yaml"
    spec.write_text(
        "like: messages\nabout: SlimOrca\nsource: {hub: {path: Open-Orca/SlimOrca, stream: true}}\n"
    )
    monkeypatch.setattr(Hub, "file", lambda self, *_: self.reply(b"", 403, {}))
    said = run("-m", "compiler", "compile", spec, "--out", tmp_path / "o", code=2, env=hub.env).stderr
    assert "cannot be fetched from the hub" in said and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("files", "name", "expected"),
    [
        (["default/train/0.parquet", "default/test/0.parquet"], None, [("train", "default/train/0.parquet")]),
        (["a/train/1.parquet", "a/train/0.parquet", "README.md"], "a", ["0", "1"]),
        (["a/train/0.parquet"], "b", "has no configuration 'b' (there: a)"),
        (["a/test/0.parquet"], None, "none of the splits train (there: test)"),
    ],
)
def test_which_files_of_a_copy(files, name, expected):
    if isinstance(expected, str):
        with pytest.raises(RequestError) as error:
            _of_copy("x/y", files, name, {"train": "train"})
        assert expected in str(error.value)
    else:
        chosen = _of_copy("x/y", files, name, {"train": "train"})
        assert len(chosen) == len(expected) and chosen == sorted(chosen)


@pytest.mark.parametrize(
    ("files", "name", "homes", "expected"),
    [
        (["b.jsonl", "a.csv"], None, {"train": "train"}, [("train", "a.csv"), ("train", "b.jsonl")]),
        (["x/train-0.jsonl", "x/dev.jsonl"], None, {"train": "train"}, [("train", "x/train-0.jsonl")]),
        (["dev.csv", "dev_matched.csv"], None, {"eval": "eval", "dev": "eval", "m": "m", "dev_matched": "m"},
         [("eval", "dev.csv"), ("m", "dev_matched.csv")]),
        (["en/train.csv", "zh/train.csv"], "zh", {"train": "train"}, [("train", "zh/train.csv")]),
        (["constrain.csv", "a.csv"], None, {"train": "train", "eval": "eval"}, "no data file for train"),
    ],
)  # fmt: skip
def test_which_of_a_datasets_own_files(files, name, homes, expected):
    if isinstance(expected, str):
        with pytest.raises(RequestError, match=expected):
            _of_own("x/y", files, name, homes)
    else:
        assert _of_own("x/y", files, name, homes) == expected
