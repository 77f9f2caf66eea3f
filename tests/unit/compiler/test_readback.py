"""What is written is counted on the disk: a compile that loses a row or a field of it publishes nothing."""

import json
import random
import re

import pytest
from xxhash import xxh3_64

from tests.messages import raises
from tests.unit.compiler.conftest import ROWS
from tests.unit.compiler.test_specs import DEMO, sources
from tuneyard.compiler import chunked_reading, pipeline
from tuneyard.compiler.compile import check_spec, compile_spec
from tuneyard.compiler.read import jsons, stream
from tuneyard.compiler.request import CompileRequest
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.model import load_spec
from tuneyard.compiler.write.joined_file import StagedRows
from tuneyard.compiler.write.readback import read_back
from tuneyard.compiler.write.record_file import RecordFile
from tuneyard.core.datasets import find_dataset, read_records
from tuneyard.core.errors import ContentError
from tuneyard.core.prompt import conversation
from tuneyard.core.row_index import fingerprint, read_row_index

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
write, save = RecordFile.write, RecordFile._save


def lose_records(file, data, records):
    """Drop the last record of a batch, as a broken writer would, and count what is left."""
    lines = data.splitlines(keepends=True)
    write(file, b"".join(lines[:-1]), records - 1)


def lose_in_one_file(file, data, records):
    if file.path.suffix == ".jsonl":
        lose_records(file, data, records)
    else:
        write(file, data, records)


def lose_bytes(data):
    return data[:-40]


def lose_a_line(data):
    """Lose one whole record, so that what is left is sound."""
    head, _, rest = data.partition(b"\n")
    return head + b"\n" + rest.partition(b"\n")[2]


def join_records(data):
    return data.replace(b"\n", b" ", 3).replace(b" ", b"\n", 1)


def rename_a_field(data):
    return data.replace(b'"output":', b'"outptu":', 1)


def add_a_field(data):
    return data.replace(b'{"instruction":', b'{"more":1,"instruction":', 1)


def spoil(data):
    return data.replace(b'"output":', b'"output"', 1)


def write_no_object(data):
    return b'[\n"a",\n"b",\n"c",\n'


def repeat_a_record(file, data, records):
    """Write the first record of a batch over its second."""
    lines = data.splitlines(keepends=True)
    write(file, b"".join([lines[0], lines[0], *lines[2:]]), records)


def swap_records(file, data, records):
    lines = data.splitlines(keepends=True)
    write(file, b"".join([lines[1], lines[0], *lines[2:]]), records)


def overwrite_a_line(data):
    """Write one whole record over another, so that the count stays."""
    lines = data.split(b"\n")
    return b"\n".join([*lines[:2], lines[1], *lines[3:]])


def change_a_letter(data):
    return data.replace(b"Premise 7.", b"Premise 8.", 1)


@pytest.mark.parametrize("arranged", [False, True])
@pytest.mark.parametrize(
    ("name", "broken", "facts"),
    [
        ("write", repeat_a_record, "records 1; 300"),
        ("write", swap_records, "records 1; 300"),
        ("_save", overwrite_a_line, "records 1; 300"),
        ("_save", change_a_letter, "records 1; 300"),
        ("write", lose_records, "300 rows; 299"),
        ("_save", lose_bytes, ""),
        ("_save", lose_a_line, "300; 299"),
        ("_save", join_records, "298"),
        ("_save", rename_a_field, "records 1; 300"),
        ("_save", add_a_field, "records 1; 300"),
        ("_save", spoil, "records 1; 300"),
        ("_save", write_no_object, ""),
    ],
)
def test_a_broken_writer_publishes_nothing(bench, monkeypatch, arranged, name, broken, facts):
    train = bench.rows("train.jsonl", MANY)
    bench.compile("rte", bench.rows("old.jsonl", MANY[:9]).rename(bench.folder / "train.json"))
    before = {path: path.read_bytes() for path in bench.out.rglob("*") if path.is_file()}
    spec = bench.write("rte.yaml", "like: rte\ndrop_duplicates: true\n") if arranged else "rte"

    def save_changed(file, data):
        has_records = b"{" in data
        save(file, broken(data) if has_records else data)

    monkeypatch.setattr(RecordFile, name, broken if name == "write" else save_changed)
    with raises(ContentError, *facts.split("; ")):
        bench.compile(spec, f"train={train}")
    assert {path: path.read_bytes() for path in bench.out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("arranged", [False, True])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_record_written_over_another_on_the_disk_publishes_nothing(bench, monkeypatch, suffix, arranged):
    """The count stays, each record is sound, and one of them is there twice in place of another."""
    looked = RecordFile.read_back

    def overwrite_on_the_disk(file):
        lines = file.path.read_bytes().split(b"\n")
        lines[9] = lines[8]
        file.path.write_bytes(b"\n".join(lines))
        return looked(file)

    extra = "\ndrop_duplicates: true" if arranged else ""
    text = f'about: a\nlike: rte{extra}\nwrite: [{{file: "rte-{{split}}{suffix}"}}]\n'
    spec = bench.write("mine.yaml", text)
    source = f"train={bench.rows('train.jsonl', MANY)}"
    monkeypatch.setattr(RecordFile, "read_back", overwrite_on_the_disk)
    with raises(ContentError, "records 1", "300"):
        bench.compile(spec, source)
    assert not (bench.out / "mine").exists() and not (bench.out / "dataset_info.json").exists()
    monkeypatch.setattr(RecordFile, "read_back", looked)
    assert bench.compile(spec, source).kept == 300


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("arranged", [False, True])
def test_a_damaged_record_is_placed_in_the_whole_file(bench, monkeypatch, arranged, workers):
    """Chunks number their own records. An error names records of the file that they are joined to."""
    monkeypatch.setattr(chunked_reading, "CHUNK", 4000)
    monkeypatch.setattr(stream, "BLOCK", 1000)
    monkeypatch.setattr(jsons, "LOOKED_AT", 1000)
    monkeypatch.setattr(pipeline, "ARRANGED", 50)
    looked = RecordFile.read_back

    def change_a_record(file):
        if file.path.suffix == ".rows":
            return looked(file)
        file.path.write_bytes(file.path.read_bytes().replace(b"Of 222.", b"Of 2x2."))
        return looked(file)

    extra = "\ndrop_duplicates: true" if arranged else ""
    text = f'about: a\nlike: rte{extra}\nwrite: [{{file: "rte-{{split}}.jsonl"}}]\n'
    monkeypatch.setattr(RecordFile, "read_back", change_a_record)
    first, last = damaged_records(bench, bench.write("mine.yaml", text), workers)
    assert first <= 223 <= last  # records count from 1
    if arranged or workers == 2:
        assert last - first < 100


def damaged_records(bench, spec, workers):
    source = f"train={bench.rows('train.jsonl', MANY)}"
    with pytest.raises(ContentError) as caught:
        bench.compile(spec, source, workers=workers)
    match = re.search(r"rte-train.jsonl: one of the records (\d+) to (\d+):", str(caught.value))
    return int(match[1]), int(match[2])


def test_a_row_that_cannot_be_put_in_order_is_placed_in_the_file_that_it_is_for(bench, monkeypatch):
    """Its length is more than what the file of all rows has. The task that copies it knows 50 rows."""
    monkeypatch.setattr(pipeline, "ARRANGED", 50)
    places = StagedRows.places

    def too_long(staged, rows):
        offsets, lengths = places(staged, rows)
        for number, row in enumerate(rows):
            if row == 222:
                lengths[number] += 10**9
        return offsets, lengths

    text = 'about: a\nlike: rte\ndrop_duplicates: true\nwrite: [{file: "rte-{split}.jsonl"}]\n'
    monkeypatch.setattr(StagedRows, "places", too_long)
    assert damaged_records(bench, bench.write("mine.yaml", text), 1) == (201, 250)


def back(path):
    with path.open("rb") as file:
        yield from read_back(path, frozenset("ab"), file, xxh3_64())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b'[\n{"a":1,"b":2}\n]'),
        ("a.json", b'[\n{"a":1,"b":2},\n]\n'),
        ("a.json", b'[\n{"a":1,"b":2}\n]\n[\n]\n'),
        ("a.json", b'[ {"a":1,"b":2}\n]\n'),
        ("a.json", b'[\n{"a":1,"b":2}\n{"a":1,"b":2}\n]\n'),
        ("a.json", b'[\n{"a":1,"b":2},{"a":1,"b":2}\n]\n'),
        ("a.json", b'[\n{"a":1},\n{"b":2}\n]\n'),
        ("a.json", b'[\n{"a":1,"b":2},\n{"a":1},\n{"a":1,"b":2}\n]\n'),
        ("a.json", b'[\n{"a":1,"b":2,"c":3}\n]\n'),
        ("a.json", b'{"a":1,"b":2}\n'),
        ("a.jsonl", b'{"a":1,"b":2}'),
        ("a.jsonl", b'{"a":1,"b":2},\n'),
        ("a.jsonl", b'{"a":1,"b":2}\n\n'),
        ("a.jsonl", b'{"a":1,\n"b":2}\n'),
        ("a.jsonl", b'[\n{"a":1,"b":2}\n]\n'),
        ("a.jsonl", b'{"a":1}\n'),
    ],
)
def test_a_file_that_is_not_just_its_records_is_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with raises(ContentError):
        list(back(tmp_path / name))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 1000])
def test_records_come_back_whatever_the_size_of_a_block(tmp_path, monkeypatch, size):
    """The edge of a block falls on each place that a file has: none is lost or taken twice."""
    monkeypatch.setattr("tuneyard.compiler.write.readback.BLOCK", size)
    records = [{"a": n, "b": "]\n{" * n} for n in range(6)]
    texts = [json.dumps(record, separators=(",", ":")) for record in records]
    (tmp_path / "a.json").write_text("[\n" + ",\n".join(texts) + "\n]\n")
    (tmp_path / "a.jsonl").write_text("\n".join(texts) + "\n")
    for name in ("a.json", "a.jsonl"):
        assert [r for block in back(tmp_path / name) for r in block] == records


def test_outputs_that_differ_in_their_records_are_not_published(bench, monkeypatch):
    spec = bench.write("two.yaml", QA)
    source = bench.rows("x.jsonl", [{"question": f"{n}", "answer": "a"} for n in range(9)])
    monkeypatch.setattr(RecordFile, "write", lose_in_one_file)
    with raises(ContentError, "9 rows", "8 records", "b.jsonl"):
        bench.compile(spec, source)


def test_a_row_that_no_count_knows_is_an_internal_error(bench, monkeypatch):
    """A row that is lost before it is kept is in no file and in no count: the sum tells."""
    from tuneyard.compiler import chunks

    sift = chunks.Checker.check
    monkeypatch.setattr(chunks.Checker, "check", lambda self, *given: sift(self, *given).keep([0]))
    source = bench.rows("train.jsonl", ROWS)
    for way in (compile_spec, check_spec):
        with raises(ContentError, "3", "1", "0"):
            way(load_spec("rte"), CompileRequest(sources=(str(source),), out=bench.out))


def test_a_bad_row_that_was_not_written_down_is_an_internal_error(bench, monkeypatch):
    monkeypatch.setattr("tuneyard.compiler.problems._rejected_line", lambda *_: b"")
    with raises(ContentError, "4", "3", "0"):
        bench.compile("rte", bench.rows("train.jsonl", [*ROWS, ROWS[0] | {"label": 7}]), reject=True)


@pytest.mark.parametrize("name", [name for name in known_specs() if name not in DEMO])
def test_fingerprints_are_those_of_the_prompts_that_eval_makes(name, tmp_path):
    spec = load_spec(name)
    report = compile_spec(spec, CompileRequest(sources=sources(spec), out=tmp_path))
    registered = json.loads((tmp_path / "dataset_info.json").read_text())
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
            asked = [conversation(record, found.entry, "here").messages for record in records]
            told = [[m["content"] for m in messages if m["role"] != "system"] for messages in asked]
        assert examples.fingerprints.tolist() == list(map(fingerprint, told))
        assert len(examples.fingerprints) == report.datasets[dataset]
        assert list(examples.clusters) == ([spec.group] if spec.group else [])


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("", {}),
        ("", {"limit": 123}),
        ("", {"duplicates": False}),
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
    mine = bench.write("rte.yaml", f"{json.dumps(about)[:-1]},\n{spec.replace(chr(10), ',')} }}\n")
    rows = [*MANY, *MANY[:50], MANY[0] | {"label": 9}] if options.get("reject") else [*MANY, *MANY[:50]]
    random.Random(3).shuffle(rows)
    given = [bench.rows("train.jsonl", rows)]
    if "split:" not in spec:
        given.append(bench.rows("dev.jsonl", MANY[100:180]))
    bench.compile(mine, *given, **options)
    for file in bench.out.rglob("*.json"):
        if file.name in ("manifest.json", "dataset_info.json"):
            assert (
                "cluster" not in json.loads(file.read_text())
                or json.loads(file.read_text())["cluster"] == "premise"
            )
            continue
        premises = [record["instruction"].split('"')[1] for record in read_records(file)]
        numbers = read_row_index(file).clusters["premise"].tolist()
        first = {premise: number for number, premise in enumerate(dict.fromkeys(premises))}
        assert numbers == [first[premise] for premise in premises] and premises


def test_numbers_are_clusters_by_their_value(bench):
    spec = bench.write(
        "n.yaml",
        "about: x\ncolumns: {q: [q], doc: {names: [doc], is: any}}\nfit: {group: doc}\n"
        'write: [{dataset: n, file: n.json, format: alpaca, instruction: "{q}", output: "{q}"}]\n',
    )
    docs = [-1, -2, 1, True, -1, "1", [1]]
    bench.compile(spec, bench.rows("x.jsonl", [{"q": f"{n}", "doc": doc} for n, doc in enumerate(docs)]))
    file = bench.out / "n" / "n.json"
    assert read_row_index(file).clusters["doc"].tolist() == [0, 1, 2, 3, 0, 4, 5]


def test_a_file_beside_the_records_may_have_no_other_output_s_name(bench):
    spec = bench.write("two.yaml", QA.replace("{file: b.jsonl", "{dataset: b, file: a.jsonl"))
    with raises(ContentError, "a.examples.npy"):
        load_spec(str(spec))


def test_the_clusters_of_mnli_dev_are_its_premises(bench, real_data):
    file = real_data / "mnli" / "dev_matched.jsonl"
    report = bench.compile("mnli", f"eval={file}")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    kept = [row["premise"] for row in rows if row["label"] != "-"]
    examples = read_row_index(bench.out / "mnli" / "alpaca_mnli-eval.json")
    assert report.kept == len(examples.fingerprints) == len(kept) == 9815
    assert len(set(examples.clusters["premise"].tolist())) == len(set(kept)) == 3334
