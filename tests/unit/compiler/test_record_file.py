"""What is written: counted and hashed on the way, with the row index beside it. Lost rows publish nothing."""

import hashlib
import json
import random

import pytest

from tests.folders import names
from tests.json_files import read_json
from tests.messages import raises
from tests.unit.compiler.conftest import ROWS
from tests.unit.compiler.test_specs import DEMO, sources
from tuneyard.compiler.engine import row_loop
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import check_dataset, compile_dataset
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.write import record_file
from tuneyard.compiler.write.record_file import RecordFile
from tuneyard.core.datasets import find_dataset, read_records
from tuneyard.core.datasets.compiled import SEPARATOR, fingerprints, read_manifest, read_row_index
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.prompt import prompt_and_answer

MANY = [
    ROWS[0] | {"sentence1": f"Premise {n % 70}.", "sentence2": f"Of {n}.", "label": n % 2, "idx": n}
    for n in range(300)
]
QA = """
about: two outputs
columns: {question: [question], answer: [answer]}
write:
  - {dataset: "a", file: a.json, format: alpaca, instruction: "{question}", output: "{answer}"}
  - {file: b.jsonl, format: messages, user: "{question}", assistant: "{answer}"}
"""
add = RecordFile.add


def lose_a_record(file, data, keys=None):
    """Drop the last record of a batch, as a broken renderer would."""
    if file.path.suffix == ".jsonl":
        data = b"".join(data.splitlines(keepends=True)[:-1])
    add(file, data, keys)


def test_outputs_that_lose_a_record_are_not_published(bench, monkeypatch):
    source = bench.rows("x.jsonl", [{"question": f"{n}", "answer": "a"} for n in range(9)])
    monkeypatch.setattr(RecordFile, "add", lose_a_record)
    with raises(ContentError, "read 9", "b.jsonl has 8"):
        bench.compile(QA, source)
    assert list(bench.out.rglob("*")) == []


def test_a_row_that_no_count_knows_is_an_internal_error(bench, monkeypatch):
    """A row that is lost before it is kept is in no file and in no count: the sum tells."""
    check = row_loop.Checker.check
    monkeypatch.setattr(row_loop.Checker, "check", lambda self, *given: check(self, *given).keep([0]))
    source = bench.rows("train.jsonl", ROWS)
    for way in (compile_dataset, check_dataset):
        with raises(ContentError, "3", "1", "0"):
            way(CompileRequest(load_spec("rte"), sources=(str(source),), out=bench.out))


@pytest.mark.parametrize("more", ["", "split: {eval: 0.3}\n"])
def test_hashes_and_counts_are_those_of_the_files(bench, more):
    text = QA.replace("a.json", '"a-{split}.json"').replace('"a"', '"a_{split}"') if more else QA
    spec = bench.write("two.yaml", f"{text}{more}")
    source = bench.rows("x.jsonl", [{"question": f"{n}\n", "answer": "a"} for n in range(2500)])
    bench.compile(spec, source)
    manifest = read_manifest(bench.out / "two")
    for name, file in manifest.files.items():
        path = bench.out / "two" / name
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256
        if path.suffix != ".npy":
            assert len(read_records(path)) == file.rows
    assert names(bench.out / "two") == sorted([*manifest.files, "manifest.json"])


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("copied", [3, 1 << 20])
def test_a_file_of_parts_is_the_file_that_is_written_at_once(tmp_path, monkeypatch, suffix, copied):
    monkeypatch.setattr(record_file, "COPIED", copied)
    texts = [[b'{"a":1}', b'{"a":2}'], [], [b'{"a":"\\n"}']]
    with RecordFile(tmp_path / f"whole{suffix}") as whole, RecordFile(tmp_path / f"joined{suffix}") as joined:
        for number, records in enumerate(texts):
            data = whole.separator.join([*records, b""])
            whole.add(data)
            part_path = tmp_path / f"part-{number}{suffix}"
            with RecordFile(part_path, is_fragment=True) as part:
                part.add(data)
            joined.add_fragment(part_path)
    assert joined.path.read_bytes() == whole.path.read_bytes()
    assert (joined.sha256, joined.records) == (whole.sha256, 3)
    assert len(read_records(whole.path)) == 3


@pytest.mark.parametrize("name", [name for name in known_specs() if name not in DEMO])
def test_fingerprints_are_those_of_the_prompts_that_eval_makes(name, tmp_path):
    spec = load_spec(name)
    report = compile_dataset(CompileRequest(spec, sources=sources(spec), out=tmp_path))
    registered = read_json(tmp_path / "dataset_info.json")
    assert registered
    for dataset in registered:
        found = find_dataset(dataset, tmp_path)
        examples = read_row_index(found.path)
        records = read_records(found.path)
        if name in ("messages", "tools"):  # hold calls of tools, which no conversation of ours has
            talks = [record.get("conversations") or record["messages"] for record in records]
            kept = [[turn for turn in talk[:-1] if "system" not in turn.values()] for talk in talks]
            told = [[list(turn.values())[1] for turn in talk] for talk in kept]
        elif name == "media":  # nor images
            talks = [(record["conversations"], record) for record in records]
            words = [[t["value"] for t in talk[:-1] if t["from"] != "system"] for talk, _ in talks]
            files = [[*record["images"], *record["videos"], *record["audios"]] for _, record in talks]
            told = [[*asked, *paths] for asked, paths in zip(words, files, strict=True)]
        else:
            asked = [prompt_and_answer(record, found.entry, "here").messages for record in records]
            told = [[m["content"] for m in messages if m["role"] != "system"] for messages in asked]
        assert examples.fingerprints.tolist() == list(fingerprints(list(map(SEPARATOR.join, told))))
        assert len(examples.fingerprints) == report.datasets[dataset]
        assert list(examples.clusters) == ([spec.group] if spec.group else [])


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("", {}),
        ("", {"limit": 123}),
        ("", {"reject": True}),
        ("drop_duplicates: true", {}),
        ("drop_leaks: true", {}),
        ("sample: 0.4", {}),
        ('filter: {keywords: ["7"]}', {}),
        ("split: {eval: 0.3, stratify: label}", {}),
        ("split: {eval: 0.3, group: premise}", {}),
        ("split: {eval: 0.3, by: hash}", {}),
    ],
)
def test_row_i_of_the_clusters_is_record_i_of_the_file(bench, spec, options):
    """Whatever drops, samples, splits or orders the rows: equal clusters are equal premises."""
    about = load_spec("rte").raw | {"source": {}} if "split:" in spec else {"like": "rte"}
    if "group" in spec:
        del about["fit"]  # rows that a split keeps together are clusters
    mine = bench.write("rte.yaml", f"{json.dumps(about)[:-1]},\n{spec.replace(chr(10), ',')} }}\n")
    rows = [*MANY, *MANY[:50], MANY[0] | {"label": 9}] if options.get("reject") else [*MANY, *MANY[:50]]
    random.Random(3).shuffle(rows)
    given = [bench.rows("train.jsonl", rows)]
    if "split:" not in spec:
        given.append(bench.rows("dev.jsonl", MANY[100:180]))
    bench.compile(mine, *given, **options)
    for file in bench.out.rglob("*.json"):
        if file.name in ("manifest.json", "dataset_info.json"):
            assert "cluster" not in read_json(file) or read_json(file)["cluster"] == "premise"
            continue
        premises = [record["instruction"].split('"')[1] for record in read_records(file)]
        numbers = read_row_index(file).clusters["premise"].tolist()
        first = {premise: number for number, premise in enumerate(dict.fromkeys(premises))}
        assert numbers == [first[premise] for premise in premises] and premises


def test_numbers_are_clusters_by_their_value(bench):
    spec = bench.write(
        "n.yaml",
        "about: x\ncolumns: {q: [q], doc: {names: [doc], is: any}}\nfit: {group: doc}\n"
        'write: [{dataset: n, file: n.json, format: alpaca, instruction: "{q}", output: "x"}]\n',
    )
    docs = [-1, -2, 1, True, -1, "1", [1]]
    bench.compile_rows(spec, [{"q": f"{n}", "doc": doc} for n, doc in enumerate(docs)])
    file = bench.out / "n/n.json"
    assert read_row_index(file).clusters["doc"].tolist() == [0, 1, 2, 3, 0, 4, 5]


def test_a_file_beside_the_records_may_have_no_other_output_s_name(bench):
    spec = bench.write("two.yaml", QA.replace("{file: b.jsonl", "{dataset: b, file: a.jsonl"))
    with raises(ContentError, "a.examples.npy"):
        load_spec(str(spec))
