"""Hub ids against a local server that answers as the hub does: through HF_ENDPOINT, cached, or said no to."""

import functools
import gzip
import json
import random
import shutil
from functools import partial

import pytest

from testing.forks import Forks
from tests.hub_server import MAIN, Handler, commit, hub_of
from tests.messages import printed_line
from tests.unit.compiler.conftest import ROWS, as_parquet, json_lines
from tuneyard.core.datasets import read_records

SPLITS = ("train", "validation", "test")
OLD = "v1"
GATED = ("our/gated",)


def lines(rows):
    return json_lines(rows).encode()


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


def card(*configs):
    """Return the head of a dataset's README, which names the files of its configurations."""
    listed = [
        {"config_name": name, "data_files": [{"split": s, "path": f"{name}/{s}-*"} for s in splits]}
        for name, splits in configs
    ]
    return f"---\nconfigs: {json.dumps(listed)}\n---\n".encode()


GLUE = {
    f"rte/{split}-00000-of-00001.parquet": as_parquet([{**row, "sentence2": f"{split}."} for row in ROWS])
    for split in SPLITS
}
PAIRS = ("train", "validation")


@functools.cache
def repos():
    """The files of each repository by revision: large ones, which only the tests that ask for them make."""
    return {
        "nyu-mll/glue": {
            MAIN: {
                "README.md": card(("rte", SPLITS), ("cola", ("train",))),
                **GLUE,
                "cola/train-00000-of-00001.parquet": b"not asked for",
            }
        },
        "Open-Orca/SlimOrca": {
            MAIN: {
                f"data/train-{shard:05}-of-00002.parquet": as_parquet(
                    [talk(shard * 5000 + n) for n in range(5000)], 500
                )
                for shard in range(2)
            }
        },
        "qiaojin/PubMedQA": {
            MAIN: {
                "README.md": card(("pqa_labeled", ("train",)), ("pqa_artificial", ("train",))),
                "pqa_labeled/train-0.parquet": as_parquet([study(n) for n in range(500)]),
                "pqa_artificial/train-0.parquet": b"not asked for",
            }
        },
        "HuggingFaceH4/stack-exchange-preferences": {
            MAIN: {"data/a.stackexchange.com/train-0.parquet": as_parquet([thread(n) for n in range(20)])}
        },
        "our/own": {
            MAIN: {
                "README.md": b"not data",
                "data/train.jsonl.gz": gzip.compress(lines(ROWS)),
                "data/dev.jsonl": lines([{"premise": "A man.", "hypothesis": "Someone.", "label": 0}]),
            },
            OLD: {"pairs.jsonl": lines([{"question": "Old?", "answer": "Yes."}])},
            "v3": {
                "mixed.jsonl": lines([{"question": "Old?", "answer": "Yes."}, {"question": 1, "answer": {}}])
            },
            "v5": {"table.csv": b"question,answer\n007,NA\n"},
            "v4": {"own.py": b"raise SystemExit('run')"},
        },
        "our/pairs": {
            MAIN: {
                "README.md": card(("default", PAIRS), ("zh", PAIRS)),
                **{
                    f"{config}/{split}-0.parquet": as_parquet(
                        [{"question": f"{config} {split}?", "answer": "Yes."}]
                    )
                    for config in ("default", "zh")
                    for split in PAIRS
                },
            },
        },
    }


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with hub_of(repos(), tmp_path_factory.mktemp("hub") / "home", GATED) as server:
        yield server


@pytest.fixture(scope="module")
def forks(hub):
    """A process that has imported what commands of the compiler need, with the stand-in for the hub."""
    with Forks(
        "datasets", "tuneyard.compiler.cli", "tuneyard.compiler.publish.compile", env=hub.env
    ) as process:
        yield process


@pytest.fixture
def read(forks):
    """Run a command of the compiler and return what it printed."""
    return partial(forks.run, "compiler")


@pytest.fixture
def check(hub, read):
    """The same, with nothing fetched before."""
    shutil.rmtree(hub.env["HF_HOME"], ignore_errors=True)
    hub.sent.clear()
    return read


@pytest.fixture
def orca(tmp_path):
    """A spec that streams a dataset."""
    spec = tmp_path / "orca.yaml"
    source = "{hub: {path: Open-Orca/SlimOrca, stream: true}}"
    spec.write_text(f"like: messages\nabout: SlimOrca\nsource: {source}\n")
    return spec


def test_a_dataset_of_the_hub_is_fetched_once_and_compiled(check, hub, tmp_path):
    command = ("compile", "rte", "--out", tmp_path / "out")
    said = check(*command).stdout
    assert "read 9  kept 9" in said and "alpaca_rte_eval 3" in said
    assert {file: hub.sent[file] for file in GLUE} == {file: len(data) for file, data in GLUE.items()}
    hub.sent.clear()
    assert "up to date" in check(*command).stdout
    check(*command, "--force")
    assert hub.sent.keys() <= {"README.md"}
    assert "stale" not in check("list", "--out", tmp_path / "out").stdout


@pytest.mark.slow
def test_torch_is_not_imported_for_the_hub(run, hub):
    code = (
        "import sys; from tuneyard.compiler.publish.compile import check_dataset\n"
        "from tuneyard.compiler.engine.request import CompileRequest\n"
        "from tuneyard.compiler.spec.load import load_spec\n"
        "print(check_dataset(CompileRequest(load_spec('rte'))).read, 'torch' in sys.modules)"
    )
    assert run("-c", code, env=hub.env).stdout == "9 False\n"


def test_a_mixture_streams_only_as_far_as_its_shares_go(check, hub, tmp_path):
    """mix-small: 800 reports here, 800 of SlimOrca's 10,000 rows, 400 of PubMedQA's 500."""
    reports = tmp_path / "reports.jsonl"
    reports.write_bytes(
        lines([{"instruction": f"CompileReport {n}?", "output": f"It is {n}."} for n in range(900)])
    )
    command = ("compile", "mix-small", "--source", f"reports={reports}", "--out", tmp_path / "o")
    done = check(*command)
    assert "mix_small_train 1800  mix_small_eval 200" in done.stdout
    assert "orca: 800 rows of 800 wanted" in done.stderr
    assert "data/train-00001-of-00002.parquet" not in hub.sent, "the second shard is not needed"
    assert hub.sent["data/train-00000-of-00002.parquet"] > 0
    assert not any("artificial" in file for file in hub.sent)
    hub.sent.clear()
    assert "up to date" in check(*command).stdout and hub.sent.keys() <= {"README.md"}
    assert "stale" not in check("list", "--out", tmp_path / "o").stdout


@pytest.mark.slow
def test_a_stream_reads_ranges_of_a_file(check, hub, orca, tmp_path):
    assert "read 10  kept 10" in check("compile", orca, "--limit", 10, "--out", tmp_path / "o").stdout
    ((file, sent),) = hub.sent.items()
    assert sent < 0.7 * len(repos()["Open-Orca/SlimOrca"][MAIN][file])


@pytest.mark.slow
def test_rows_of_a_stream_have_places(check):
    done = check("show", "stackexchange", "--row", 3)
    assert "Train it 2 times." in done.stdout
    at = commit("HuggingFaceH4/stack-exchange-preferences", MAIN)
    assert f"hf://datasets/HuggingFaceH4/stack-exchange-preferences@{at}/data/" in done.stdout


@pytest.mark.parametrize(
    ("source", "file", "asked"),
    [
        ("hub:our/pairs", "qa.json", "default train?"),
        ("hub:our/pairs", "qa-eval.json", "default validation?"),
        ("hub:our/pairs:zh", "qa.json", "zh train?"),
        ("hub:our/pairs:zh", "qa-eval.json", "zh validation?"),
        ("train=hub:our/pairs:zh:validation", "qa.json", "zh validation?"),
        ("eval=hub:our/pairs:zh:train", "qa-eval.json", "zh train?"),
        ("hub:our/pairs::validation", "qa-eval.json", "default validation?"),
        (f"hub:our/pairs@{commit('our/pairs', MAIN)}:zh:train", "qa.json", "zh train?"),
        (f"hub:our/own@{OLD}", "qa.json", "Old?"),
    ],
)
def test_a_dataset_of_the_hub_for_any_spec(read, tmp_path, source, file, asked):
    read("compile", "qa", "--source", source, "--out", tmp_path / "o")
    (record,) = read_records(tmp_path / f"o/qa/{file}")
    assert record["instruction"] == asked


def test_a_dataset_of_the_hub_for_splits_and_parts(read, tmp_path):
    """All splits by their usual names, one of them by its name, and a part of a mixture."""
    mnli = ("check", "mnli", "--out", tmp_path, "--source")
    assert "read 9 " in read(*mnli, "hub:nyu-mll/glue:rte").stdout
    assert "read 3 " in read(*mnli, "hub:nyu-mll/glue:rte:validation").stdout
    assert "validation." in read("show", "rte", "--source", "eval=hub:nyu-mll/glue:rte").stdout
    spec = tmp_path / "mix.yaml"
    parts = "{a: {share: 0.5, as: qa}, b: {share: 0.5, as: qa}}"
    write = "[{dataset: m, file: m.jsonl, format: alpaca}]"
    spec.write_text(f"about: m\nmix: {{total: 2, parts: {parts}}}\nwrite: {write}\n")
    both = ("--source", "a=hub:our/pairs", "--source", "b=hub:our/pairs:zh:validation")
    read("compile", spec, *both, "--out", tmp_path / "o")
    asked = [record["instruction"] for record in read_records(tmp_path / "o/mix/m.jsonl")]
    assert asked == ["default train?", "zh validation?"]


def test_a_spec_names_files_and_a_revision_of_the_hub(read, tmp_path):
    spec = tmp_path / "own.yaml"
    hub = "{path: our/own, name: default, revision: main, data_files: {train: data/train*, dev: [data/dev*]}}"
    spec.write_text(f"like: mnli\nabout: Our own\nsource: {{hub: {hub}}}\n")
    done = read("compile", spec, "--out", tmp_path / "out")
    assert "alpaca_mnli_train 3  alpaca_mnli_eval 1" in done.stdout


@pytest.mark.parametrize(
    ("spec", "source", "said"),
    [
        ("qa", "hub:", "expected hub:owner/name[@revision][:config][:split]"),
        ("qa", "hub:a/b:c:d:e", "expected hub:owner/name[@revision][:config][:split]"),
        ("qa", "hub:our/own@v2", "Revision 'v2' doesn't exist"),
        ("qa", "hub:our/own@v4", "no longer supported"),
        ("qa", "hub:our/pairs:en", "Available: ['default', 'zh']"),
        ("mnli", "hub:nyu-mll/glue", "Config name is missing"),
        ("qa", "hub:our/pairs:zh:test", "none of the splits test (found: train, validation)"),
        ("qa", "hub:our/gated", "our/gated' is a gated dataset"),
        ("qa", "hub:nobody/nothing", "'nobody/nothing' doesn't exist on the Hub"),
        ("qa", "hub:no such id!", "expected hub:owner/name[@revision][:config][:split]"),
        ("qa", "hub:json", "expected hub:owner/name[@revision][:config][:split]"),
        ("rte", "hub:nyu-mll/glue:rte:text", "rte has no split 'text'"),
        ("mix-small", "hub:our/pairs", "name its part"),
    ],
)
def test_what_the_hub_has_not(read, tmp_path, spec, source, said):
    error = read("compile", spec, "--source", source, "--out", tmp_path / "o", code=2).stderr
    assert said in error and not (tmp_path / "o").exists() and "Traceback" not in error


def test_files_of_the_hub_are_read_as_any_other(read):
    """`datasets` would refuse the whole file, or alter it: 007 would be 7, and NA null."""
    error = read("check", "qa", "--source", "hub:our/own@v3", code=1).stderr
    printed_line(error, "mixed.jsonl:2", "E105", "question", "1")
    assert '"007"' in read("show", "qa", "--source", "hub:our/own@v5").stdout


def test_offline_both_fixes_are_named(run, tmp_path):
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    said = run("-m", "compiler", "compile", "rte", "--out", tmp_path / "out", code=2, env=env).stderr
    assert "with --source PATH, or put its files into data/raw/rte/" in said
    assert "HF_ENDPOINT" in said and not (tmp_path / "out").exists()


def test_a_hub_that_breaks_off_in_the_middle_of_a_stream(check, orca, tmp_path, monkeypatch):
    """The list of files is there, the file is not: exit 2 with the fixes, nothing written."""
    monkeypatch.setattr(Handler, "file", lambda self, *_: self.send(b"", 403))
    said = check("compile", orca, "--out", tmp_path / "o", code=2).stderr
    assert "cannot be read" in said and "HF_ENDPOINT" in said and not (tmp_path / "o").exists()


def test_files_of_the_hub_by_their_addresses(read, tmp_path):
    """A file, a folder, and a stream, which is read in place: all with the bytes of a download."""
    repository = "hf://datasets/our/own"
    read("compile", "qa", "--source", f"{repository}@{OLD}/pairs.jsonl", "--out", tmp_path / "o")
    (record,) = read_records(tmp_path / "o/qa/qa.json")
    assert record["instruction"] == "Old?"
    done = read("check", "mnli", "--source", f"{repository}/data", "--out", tmp_path)
    assert "read 4 " in done.stdout
    error = read("check", "qa", "--source", f"{repository}/none.jsonl", code=2).stderr
    assert f"{repository}/none.jsonl: source not found" in error
    error = read("check", "qa", "--source", "hf://datasets/our/gated/a.jsonl", code=2).stderr
    assert "hf://datasets/our/gated/a.jsonl: " in error and "HF_TOKEN" in error


@pytest.mark.slow
def test_workers_read_a_stream(read, orca, tmp_path):
    for workers in (1, 2):
        read("compile", orca, "--out", tmp_path / str(workers), "--workers", workers)
    one, two = (sorted((tmp_path / n / "orca").glob("*.json*")) for n in "12")
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two] and len(one) > 1
