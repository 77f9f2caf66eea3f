"""`--limit N`: the first N rows of each split that can be read."""

import io
import json
import zipfile

import pytest

from tuneyard.compiler.problems import Problems
from tuneyard.compiler.read import jsons, stream

SPEC = """
about: a test
columns: {question: [question], answer: {names: [answer], is: answer}}
write: [{dataset: t, file: t.jsonl, format: alpaca, instruction: "{question}", output: "{answer}"}]
"""
UNREADABLE = {2, 3, 11, 12, 13, 14, 15, 16, 29}  # numbers of rows, from 0
ROWS = 30


def objects(number):
    if number in UNREADABLE:
        return '{"question": "a key", "question": "twice"}'
    return json.dumps({"question": f"q {number}", "answer": "a"})


def cells(number, delimiter):
    return delimiter.join(["q", "a", "too many"] if number in UNREADABLE else [f"q {number}", "a"])


def archive(**members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        for name, text in members.items():
            zipped.writestr(f"{name}.jsonl", text)
    return packed.getvalue()


def lines(start, stop):
    return "".join(f"{objects(number)}\n" for number in range(start, stop))


FILES = {
    "a.jsonl": lambda: lines(0, ROWS),
    "a.zip": lambda: archive(a=lines(0, 11), b=lines(11, 17), c=lines(17, ROWS)),  # none of b can be read
    "a.json": lambda: "[" + ",\n".join(map(objects, range(ROWS))) + "]",
    "line.json": lambda: "[" + ",".join(map(objects, range(ROWS))) + "]",
    "inside.json": lambda: '{"data": [' + ", ".join(map(objects, range(ROWS))) + "]}",
    "a.csv": lambda: "question,answer\n" + "".join(f"{cells(number, ',')}\n" for number in range(ROWS)),
    "a.tsv": lambda: "question\tanswer\n" + "".join(f"{cells(number, chr(9))}\n" for number in range(ROWS)),
}


@pytest.mark.parametrize("block", [40, 1 << 17])
@pytest.mark.parametrize("name", list(FILES))
def test_unreadable_rows_beyond_the_limit_are_not_reported(bench, monkeypatch, name, block):
    monkeypatch.setattr(stream, "BLOCK", block)
    monkeypatch.setattr(jsons, "LOOKED_AT", block)
    source, spec = bench.write(name, FILES[name]()), bench.write("t.yaml", SPEC)
    readable = [number for number in range(ROWS) if number not in UNREADABLE]
    for limit in range(1, len(readable) + 1):
        last = readable[limit - 1]
        rejected = sorted(number for number in UNREADABLE if number < last)
        report = bench.compile(spec, source, limit=limit, reject=True, force=True)
        assert (report.read, report.kept, report.rejected) == (limit + len(rejected), limit, len(rejected))
        assert report.problems.count("E") == len(rejected)
        records = [record["instruction"] for record in bench.records("t.jsonl")]
        assert records == [f"q {number}" for number in readable[:limit]]


def test_a_limit_is_of_all_files_of_a_split(bench):
    spec = bench.write("t.yaml", SPEC)
    for name in ("a", "b", "c"):
        bench.write(f"data/{name}.jsonl", FILES["a.jsonl"]())
    readable = ROWS - len(UNREADABLE)
    report = bench.compile(spec, bench.folder / "data", limit=readable + 4, reject=True)
    assert (report.kept, report.rejected) == (readable + 4, len(UNREADABLE) + 2)
    unreadable_only = bench.write("bad.jsonl", "{x\n" * 9)
    report = bench.compile(spec, unreadable_only, limit=5, reject=True, force=True)
    assert (report.read, report.kept, report.rejected) == (9, 0, 9)


@pytest.mark.parametrize("name", list(FILES))
def test_memory_holds_a_block_of_unreadable_rows(bench, monkeypatch, name):
    """Each keeps its text until its batch ends. In a file without any other row that was all of them."""
    monkeypatch.setattr(stream, "BLOCK", 1000)
    monkeypatch.setattr(jsons, "LOOKED_AT", 1000)
    monkeypatch.setattr(jsons, "BATCH", 50)
    monkeypatch.setitem(globals(), "UNREADABLE", {*UNREADABLE, *range(ROWS, ROWS + 2000)})
    monkeypatch.setitem(globals(), "ROWS", ROWS + 2000)
    held = []
    end_batch = Problems.end_batch

    def count_and_end(problems, last=None):
        held.append(len(problems._batch))
        end_batch(problems, last)

    monkeypatch.setattr(Problems, "end_batch", count_and_end)
    report = bench.compile(bench.write("t.yaml", SPEC), bench.write(name, FILES[name]()), reject=True)
    assert report.rejected == len(UNREADABLE) and max(held) < 200
